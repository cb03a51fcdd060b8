"""Running any stage of a scheme, on the Hugging Face Trainer.

Everything a training loop does is the Trainer's: mixed precision, accumulation, schedules,
logging, resuming. A stage only brings what trains and a loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)

from fastbert.errors import TrainingError
from fastbert.exits.recorded import RecordedExits
from fastbert.nn.model import FastBertModel
from fastbert.nn.objectives import TorchTask, objective_of
from fastbert.tasks.task import Task
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.caching import kept_hidden_states
from fastbert.training.callbacks import StageProgress, StopOnBrokenLoss
from fastbert.training.checkpoints import CheckpointWriter, last_whole_checkpoint
from fastbert.training.judging import judged
from fastbert.training.stage import Lesson, Stage, StageSettings
from fastbert.training.stream import TextStream, TrainingTexts, collator
from fastbert.training.trainee import Trainee


class StageTrainer(Trainer):
    """The Trainer with the loss of a stage."""

    def __init__(
        self, *, stage: Stage, task: Task, answers: TeacherAnswers | None, **kwargs: Any
    ) -> None:
        """Set the loss and what it is told, not divided by the rows of a whole accumulation.

        The Trainer takes it from a classifier's `**kwargs` that the model does so, and leaves out
        its own division by the number of batches.
        """
        super().__init__(**kwargs)
        self.stage = stage
        self.answers = answers if stage.taught else None
        self.objective: TorchTask = objective_of(task)
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the stage's loss."""
        return self._learn(model, **inputs)[0]

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss on a batch of dev, what its exits answer, and the rows' numbers."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, exits = self._learn(model, **inputs)
        return loss, exits.transpose(0, 1), inputs["row"]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Give the students their own learning rate where others learn beside them."""
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.stage.students_learning_rate
        if rate == self.stage.settings.learning_rate:
            return optimizer
        assert isinstance(self.model, Trainee)
        students = {id(weight) for weight in self.model.model.students.parameters()}
        for group in list(optimizer.param_groups):
            weights = group["params"]
            group["params"] = [weight for weight in weights if id(weight) not in students]
            faster = [weight for weight in weights if id(weight) in students]
            optimizer.add_param_group({**group, "params": faster, "lr": rate})
        return optimizer

    def _learn(
        self,
        model: nn.Module,
        labels: Tensor | None = None,
        labelled: Tensor | None = None,
        **inputs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        exits = model(**inputs)
        taught = None if self.answers is None else self.answers.to(inputs["row"])
        lesson = Lesson(exits, labels, self.objective, labelled, taught)
        if model.training:
            step, steps = self.state.global_step, self.state.max_steps
            lesson = replace(lesson, progress=step / steps, step=step)
        return self.stage.loss(lesson), exits.float()


def run_stage(
    stage: Stage,
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    folder: Path,
    *,
    answers: TeacherAnswers | None = None,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train parts of `model` in place, and leave them with their best weights on dev.

    Args:
        stage: What trains, and how.
        model: The model; parts that the stage does not name stay as they are.
        tokenizer: What made the tokens, and pads them.
        texts: What is learned from.
        folder: Where checkpoints, and the cache if any, go. A cache that lies there already is used
            if it was made of these weights and texts.
        answers: Of the fixed teacher, to all of train and then all of dev; for stages that ask for
            them.
        resume: Go on from the last whole checkpoint in `folder`, if there is one.

    Returns:
        The history: for each epoch its number, the loss on dev and what `judging.py` tells. Empty
        without dev.

    Raises:
        TrainingError: The loss is not a number, or there are no labels where the stage needs them.
    """
    refuse_without_labels(stage, texts)
    train, dev = _streams(stage, texts)
    trainee = Trainee(model, stage)
    trainee.cache = kept_hidden_states(stage, model, tokenizer, texts, folder, resume=resume)
    best_by = next(iter(model.task.metrics)) if stage.best_by == "metric" else stage.best_by
    trainer = StageTrainer(
        stage=stage,
        task=model.task,
        answers=answers,
        model=trainee,
        args=_arguments(stage.settings, folder, best_by if dev else None),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=collator(tokenizer),
        callbacks=[
            StageProgress(stage.name, best_by),
            CheckpointWriter(stage.settings.checkpoint_steps),
            StopOnBrokenLoss(stage.name),  # after the one that asks for checkpoints
        ],
        compute_metrics=_judge(model.task, texts, answers if stage.taught else None),
    )
    model.to(trainer.args.device)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    # The Trainer divides the loss by the batches of a step; in transformers 5.3 it lets accelerate
    # do so once more.
    trainer.accelerator.gradient_accumulation_steps = 1
    checkpoint = last_whole_checkpoint(folder) if resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    model.eval()
    return _history(trainer.state.log_history)


def refuse_without_labels(stage: Stage, texts: TrainingTexts) -> None:
    """Refuse a stage that needs labels where no text has one.

    Raises:
        TrainingError: It does.
    """
    if stage.needs_labels and texts.labels is None:
        raise TrainingError(
            f"{stage.name}: this stage learns from labels, and no text has one; give labelled "
            "texts, or choose a scheme that needs none"
        )


def _streams(stage: Stage, texts: TrainingTexts) -> tuple[TextStream, TextStream | None]:
    """Return what a stage reads of the texts, in training order, and of dev in its own."""
    settings = stage.settings
    train = TextStream(
        texts.train,
        batch_size=settings.batch_size,
        seed=settings.seed,
        labels=texts.labels if stage.needs_labels else None,
        labelled_alone=stage.labels == "every",
    )
    if texts.dev is None:
        return train, None
    dev = TextStream(
        texts.dev,
        batch_size=settings.batch_size,
        seed=None,
        labels=texts.dev_labels if stage.needs_labels else None,
        first_row=len(texts.train),
    )
    return train, dev


def _judge(
    task: Task, texts: TrainingTexts, answers: TeacherAnswers | None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return what judges an epoch on dev, which comes in its own order."""
    taught = None if answers is None else task.decide(answers.logits[len(texts.train) :])

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        recorded = np.moveaxis(np.asarray(prediction.predictions), 1, 0)
        return judged(task, RecordedExits(recorded), texts.dev_labels, taught)

    return judge


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


def _arguments(settings: StageSettings, folder: Path, best_by: str | None) -> TrainingArguments:
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
