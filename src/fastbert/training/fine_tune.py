"""Stage 1: fine-tune the backbone and the teacher with labels, as everybody does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer

from fastbert.data.example import Example
from fastbert.nn.model import Teacher
from fastbert.text import TextTokenizer
from fastbert.training.stage import StageSettings, run_stage
from fastbert.training.stream import ExampleStream, collator

FINE_TUNING = StageSettings(epochs=3, learning_rate=2e-5)


class FineTuneTrainer(Trainer):
    """The Trainer, less the row numbers that only distillation needs."""

    def __init__(self, **kwargs: Any) -> None:
        """Say that no loss is divided by the rows of a whole accumulation.

        The Trainer takes it from a classifier's `**kwargs` that the model does so, and leaves out
        its own division by the number of batches.
        """
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """Return the cross-entropy against the labels."""
        inputs = {name: tensor for name, tensor in inputs.items() if name != "row"}
        return super().compute_loss(model, inputs, *args, **kwargs)


def fine_tune(
    teacher: Teacher,
    tokenizer: TextTokenizer,
    train: Sequence[Example],
    dev: Sequence[Example],
    labels: Sequence[str],
    folder: Path,
    settings: StageSettings = FINE_TUNING,
    *,
    label_smoothing: float = 0.0,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train a teacher in place and leave it with the weights of its best epoch on dev.

    Args:
        teacher: A classifier with a fresh head.
        tokenizer: Turns texts into tokens.
        train: Labelled examples.
        dev: Labelled examples that choose the best epoch by accuracy.
        labels: The classes, in the order of the teacher's outputs.
        folder: Where checkpoints go.
        settings: Epochs, learning rate and the like; the paper's by default.
        label_smoothing: Share of the probability spread over all classes.
        resume: Go on from the last whole checkpoint.

    Returns:
        The history: for each epoch its number, loss and accuracy on dev.

    Source: Section 3.2.2, "Fine-tuning for backbone", of Liu et al., FastBERT (ACL 2020).
    """

    def stream(examples: Sequence[Example], seed: int | None) -> ExampleStream:
        return ExampleStream(
            lambda: examples,
            len(examples),
            tokenizer,
            batch_size=settings.batch_size,
            seed=seed,
            label_ids={label: index for index, label in enumerate(labels)},
        )

    return run_stage(
        FineTuneTrainer,
        teacher,
        settings,
        title="teacher",
        train=stream(train, settings.seed),
        dev=stream(dev, None),
        collate=collator(tokenizer),
        folder=folder,
        resume=resume,
        best_by="accuracy",
        compute_metrics=_accuracy,
        label_smoothing=label_smoothing,
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions
    return {"accuracy": accuracy_score(prediction.label_ids, np.argmax(logits, axis=-1))}
