"""Running any stage of a scheme, on the Hugging Face Trainer.

Everything a training loop does is the Trainer's: mixed precision, accumulation, schedules,
logging, resuming. A stage only brings what trains and a loss.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)

from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.nn.model import FastBertModel
from fastbert.nn.objectives import TorchTask, objective_of
from fastbert.tasks.metrics import agreement
from fastbert.tasks.task import Decisions, Task
from fastbert.text import TextTokenizer
from fastbert.training.callbacks import StageProgress, StopOnBrokenLoss
from fastbert.training.checkpoints import CheckpointWriter, last_whole_checkpoint
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.stage import Lesson, Stage, StageSettings
from fastbert.training.stream import TextStream, TrainingTexts, collator
from fastbert.training.trainee import Trainee

WATCHED_SPEED = 0.5  # at which the paper follows the training


class StageTrainer(Trainer):
    """The Trainer with the loss of a stage."""

    def __init__(self, *, stage: Stage, task: Task, **kwargs: Any) -> None:
        """Set the loss, and say that it is not divided by the rows of a whole accumulation.

        The Trainer takes it from a classifier's `**kwargs` that the model does so, and leaves out
        its own division by the number of batches.
        """
        super().__init__(**kwargs)
        self.stage = stage
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

    def _learn(
        self, model: nn.Module, labels: Tensor | None = None, **inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        exits = model(**inputs)
        return self.stage.loss(Lesson(exits, labels, self.objective)), exits.float()


def run_stage(
    stage: Stage,
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    folder: Path,
    *,
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
        resume: Go on from the last whole checkpoint in `folder`, if there is one.

    Returns:
        The history: for each epoch its number, the loss and the metrics on dev and, where students
        are asked, at the paper's speed 0.5, agreement with the teacher and the mean exit layer.
        Empty without dev.

    Raises:
        TrainingError: The loss is not a number.
    """
    train, dev = _streams(stage, texts)
    trainee = Trainee(model, stage)
    if stage.cache_hidden_states:
        streams = [train] if dev is None else [train, dev]
        trainee.cache = _cache(model, tokenizer, streams, folder, stage.settings)
    best_by = "loss" if stage.best_by == "loss" else next(iter(model.task.metrics))
    trainer = StageTrainer(
        stage=stage,
        task=model.task,
        model=trainee,
        args=_arguments(stage.settings, folder, best_by if dev else None),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=collator(tokenizer),
        callbacks=[
            StageProgress(stage.name, best_by),
            StopOnBrokenLoss(stage.name),
            CheckpointWriter(stage.settings.checkpoint_steps),
        ],
        compute_metrics=partial(_judged, model.task, texts.dev_labels),
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


def _streams(stage: Stage, texts: TrainingTexts) -> tuple[TextStream, TextStream | None]:
    """Return what a stage reads of the texts, in training order, and of dev in its own."""
    settings = stage.settings
    labels, dev_labels = (texts.labels, texts.dev_labels) if stage.needs_labels else (None, None)
    train = TextStream(
        texts.train, batch_size=settings.batch_size, seed=settings.seed, labels=labels
    )
    if texts.dev is None:
        return train, None
    dev = TextStream(
        texts.dev,
        batch_size=settings.batch_size,
        seed=None,
        labels=dev_labels,
        first_row=train.rows,
    )
    return train, dev


def _judged(task: Task, truth: Decisions | None, prediction: EvalPrediction) -> dict[str, float]:
    """Return what the paper's Figure 7 follows through the epochs; dev comes in its own order."""
    exits = RecordedExits(np.moveaxis(np.asarray(prediction.predictions), 1, 0))
    answered = exits.replay(EntropyCriterion(WATCHED_SPEED))
    answers = task.decide(answered.logits)
    name, metric = next(iter(task.metrics.items()))
    figures = {} if truth is None else {name: metric.score(answers, truth)}
    if exits.num_exits == 1:
        return figures
    return figures | {
        "agreement": agreement(task, answers, task.decide(exits.recorded[-1])),
        "mean_exit_layer": float(answered.exit_layer.mean()),
    }


def _cache(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    streams: Sequence[TextStream],
    folder: Path,
    settings: StageSettings,
) -> HiddenCache:
    """Return the hidden states of the rows of all streams: those in `folder` if they are these."""
    bf16 = settings.computes_bf16
    digest = hashlib.sha256(f"bf16 {bf16}".encode())
    for stream in streams:
        digest.update(repr((stream.first_row, stream.rows, stream.tokens.hashes)).encode())
    for name, weight in model.teacher.state_dict().items():
        digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    identity = digest.hexdigest()
    if cache := HiddenCache.load(folder, identity):
        return cache
    lengths = np.concatenate([stream.tokens.lengths(0, stream.rows) for stream in streams])
    loaders = [  # batches of similar length
        DataLoader(stream, settings.batch_size, collate_fn=collator(tokenizer))
        for stream in streams
    ]
    batches = chain.from_iterable(loaders)
    return HiddenCache.build(model, batches, lengths, folder, identity=identity, bf16=bf16)


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
