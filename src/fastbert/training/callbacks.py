"""What the Trainer is told beside the training: progress that stays, and when to stop."""

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fastbert.errors import TrainingError
from fastbert.training.progress import Progress


class StageProgress(TrainerCallback):
    """How far the stage is, and a line for each epoch that stays on the screen."""

    def __init__(self, title: str, best_by: str) -> None:
        """Name the stage and the figure that its epochs are judged by."""
        self.title = title
        self.best_by = best_by
        self.loss = math.nan
        self.progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin where a resumed run left off."""
        if state.is_world_process_zero:
            self.progress = Progress(self.title, state.max_steps, "step", state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the step."""
        if self.progress is not None:
            epochs = round(args.num_train_epochs)
            epoch = min(int(state.epoch or 0) + 1, epochs)
            self.progress.move_to(state.global_step, f"epoch {epoch} of {epochs}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Show the running loss, and print an epoch's line when its evaluation is in."""
        logs: dict[str, float] = kwargs["logs"]
        self.loss = logs.get("loss", self.loss)
        if self.progress is None:
            return
        self.progress.note(f"loss {self.loss:.4f}")
        figure = logs.get(f"eval_{self.best_by}")
        if figure is not None:
            self._print_epoch(args, state, f"  dev {self.best_by} {figure:.4f}")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print the epoch's line where nothing is evaluated."""
        if args.eval_strategy == "no":
            self._print_epoch(args, state, "")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.close()

    def _print_epoch(self, args: TrainingArguments, state: TrainerState, dev: str) -> None:
        if self.progress is not None:
            epoch = f"epoch {round(state.epoch or 0)}/{round(args.num_train_epochs)}"
            self.progress.write(f"{epoch}  loss {self.loss:.4f}{dev}")


class StopOnBrokenLoss(TrainerCallback):
    """Stops a stage that diverges, before such weights are saved or count as the best."""

    def __init__(self, title: str) -> None:
        """Name the stage."""
        self.title = title

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the loss before a checkpoint is written."""
        control.should_log |= control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the loss before the epoch is judged."""
        control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check what the Trainer logs: the loss since it last did, and the latest gradient."""
        logs: dict[str, float] = kwargs["logs"]
        for cause, name in (("loss", "loss"), ("norm of the gradient", "grad_norm")):
            figure = logs.get(name, 0.0)
            if not math.isfinite(figure):
                raise TrainingError(
                    f"{self.title}: the {cause} became {figure} by step {state.global_step}; "
                    "try a lower learning rate"
                )
