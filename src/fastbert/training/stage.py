"""What both training stages share: settings, the Hugging Face Trainer set up, and what it prints.

Everything a training loop does is the Trainer's: mixed precision, accumulation, schedules,
logging, resuming. A stage only brings a model, a loss and a stream of examples.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from fastbert.errors import TrainingError
from fastbert.training.checkpoints import CheckpointWriter, last_whole_checkpoint
from fastbert.training.progress import Progress
from fastbert.training.stream import ExampleStream


def has_native_bf16() -> bool:
    """Return whether this machine multiplies bfloat16 in hardware; emulation would be slower."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()  # torch has no public name for it before 2.13


def refuse_several_devices() -> None:
    """Refuse to start where the Trainer would spread a batch over devices or processes.

    The students' answers have no rows on their first axis, along which it would gather them, and
    every process would write the same files.

    Raises:
        TrainingError: Several GPUs are visible, or a launcher has started several processes.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise TrainingError(
            f"WORLD_SIZE is {processes}: training runs in one process on one device; start it "
            "without torchrun or accelerate launch"
        )
    if (gpus := torch.cuda.device_count()) > 1:
        raise TrainingError(
            f"{gpus} GPUs are visible and training runs on one; choose it, such as by "
            "CUDA_VISIBLE_DEVICES=0"
        )


@dataclass(frozen=True)
class StageSettings:
    """How one stage is trained. Defaults are the paper's where it names them.

    Args:
        epochs: Passes over the examples.
        learning_rate: Peak of the linear warm-up and decay.
        batch_size: Examples of one forward pass on one device.
        gradient_accumulation: Batches whose gradients are added before a step.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: AdamW's, for all but biases and norms.
        seed: Of the order of the examples, the dropout and new weights.
        bf16: Compute in bfloat16; the weights stay float32. None where the machine is fast at it.
        checkpoint_steps: A checkpoint is written after so many steps, and after each epoch.
        report_to: A tracker that the Trainer knows, such as `tensorboard`.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 32
    gradient_accumulation: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 42
    bf16: bool | None = None
    checkpoint_steps: int = 500
    report_to: str = "none"

    def __post_init__(self) -> None:
        """Refuse settings that would train nothing."""
        for name in ("epochs", "batch_size", "gradient_accumulation", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")

    @property
    def computes_bf16(self) -> bool:
        """Whether this machine computes in bfloat16."""
        return has_native_bf16() if self.bf16 is None else self.bf16


def run_stage(
    make_trainer: Callable[..., Trainer],
    model: nn.Module,
    settings: StageSettings,
    *,
    title: str,
    train: ExampleStream,
    dev: ExampleStream | None,
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    folder: Path,
    resume: bool,
    best_by: str,
    label_smoothing: float = 0.0,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place, leave it with its best weights on dev, and return its history.

    Args:
        make_trainer: The Trainer with the stage's loss, or what makes one.
        model: What is trained and written to checkpoints.
        settings: Epochs, learning rate and the like.
        title: The name of the stage, for progress bars and messages.
        train: The examples, in a new order each epoch.
        dev: What the best epoch is chosen on; without it the last one is kept.
        collate: Makes a batch of examples.
        folder: Where checkpoints go.
        resume: Go on from the last whole checkpoint in `folder`, if there is one.
        best_by: `loss`, where low is best, or a metric, where high is best.
        label_smoothing: Share of the probability spread over all classes.
        compute_metrics: What dev is judged by besides the loss.

    Returns:
        For each epoch its number, and the loss and the metrics on dev; empty without dev.

    Raises:
        TrainingError: The loss is not a number.
    """
    trainer = make_trainer(
        model=model,
        args=_arguments(settings, folder, best_by if dev else None, label_smoothing),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=collate,
        callbacks=[
            StageProgress(title, best_by),
            StopOnBrokenLoss(title),
            CheckpointWriter(settings.checkpoint_steps),
        ],
        compute_metrics=compute_metrics,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    # The Trainer divides the loss by the batches of a step; in transformers 5.3 it lets accelerate
    # do so once more.
    trainer.accelerator.gradient_accumulation_steps = 1
    checkpoint = last_whole_checkpoint(folder) if resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return _history(trainer.state.log_history)


def _history(logs: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return how dev was judged after each epoch, without what is only true of this machine.

    The training loss is left out: what the Trainer averages it over depends on where a run resumed.
    """
    history = []
    for log in logs:
        if "eval_loss" in log:
            judged = {
                name.removeprefix("eval_"): figure
                for name, figure in log.items()
                if name.startswith("eval_") and not name.endswith(("runtime", "time", "second"))
            }
            dev_loss = judged.pop("loss")
            epoch = {"epoch": float(round(log["epoch"])), "dev_loss": dev_loss}
            history.append(epoch | judged)
    return history


def _arguments(
    settings: StageSettings, folder: Path, best_by: str | None, label_smoothing: float
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder.resolve()),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=settings.computes_bf16,
        use_cpu=not torch.accelerator.is_available(),
        label_smoothing_factor=label_smoothing,
        report_to=settings.report_to,
        eval_strategy="no" if best_by is None else "epoch",
        save_strategy="epoch",
        save_total_limit=3,  # the newest, the one before it should that be damaged, the best
        load_best_model_at_end=best_by is not None,
        metric_for_best_model=best_by,
        greater_is_better=None if best_by is None else best_by != "loss",
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # StopOnBrokenLoss has to see them
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,  # StageProgress shows it
    )


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
    """Stops a stage whose loss is no longer a number, before such weights count as trained."""

    def __init__(self, title: str) -> None:
        """Name the stage."""
        self.title = title

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check what the Trainer logs."""
        loss: float = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.title}: the loss became {loss} by step {state.global_step}; "
                "try a lower learning rate"
            )
