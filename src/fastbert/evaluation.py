"""What a speed gives on labelled texts: quality, layers, cost and time."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.metrics import accuracy_score, f1_score

from fastbert.classifier import FastBertClassifier
from fastbert.cost import ModelShape
from fastbert.criteria import EntropyCriterion
from fastbert.data import Example
from fastbert.engine import ExitResult


@dataclass(frozen=True)
class Evaluation:
    """What one speed gave on a set of labelled texts.

    Args:
        speed: The threshold.
        accuracy: Share of texts answered right.
        macro_f1: F1 averaged over the model's classes; one that never occurs and is never
            answered is left out.
        rows: How many texts.
        mean_exit_layer: Encoder layers a text ran on average.
        layers: Encoder layers there are.
        speedup_flops: FLOPs of the full model without students over those spent (true count).
        speedup_paper: The same in the paper's count.
        seconds: From texts to answers, tokenisation included.
        rows_per_second: Texts answered in a second.
        exit_layers: How many texts left after each layer, the first one first.
    """

    speed: float
    accuracy: float
    macro_f1: float
    rows: int
    mean_exit_layer: float
    layers: int
    speedup_flops: float
    speedup_paper: float
    seconds: float
    rows_per_second: float
    exit_layers: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON takes them."""
        return asdict(self)


def evaluate(
    classifier: FastBertClassifier,
    examples: Sequence[Example],
    speeds: Iterable[float],
    batch_size: int = 32,
) -> list[Evaluation]:
    """Classify labelled texts at each speed and measure.

    Args:
        classifier: What is evaluated.
        examples: Labelled texts; every label must be one of the classifier's.
        speeds: Thresholds from 0 (every layer) to 1.
        batch_size: Texts computed together; it changes the time and nothing else.
    """
    texts = [example.content for example in examples]
    numbers = {label: number for number, label in enumerate(classifier.labels)}
    truth = np.array([numbers[example.label or ""] for example in examples])
    lengths = np.array([len(tokens.ids) for tokens in classifier.encode(texts)])
    classifier.predict(texts[:batch_size], 0.0, batch_size)  # first calls are slower

    evaluations = []
    for speed in speeds:
        criterion = EntropyCriterion(speed)
        start = time.perf_counter()
        result = classifier.classify(texts, criterion, batch_size)
        seconds = time.perf_counter() - start
        evaluations.append(_summary(classifier, criterion, truth, lengths, result, seconds))
    return evaluations


def model_shape(classifier: FastBertClassifier) -> ModelShape:
    """Return the widths that decide what a classifier costs."""
    config = classifier.config
    return ModelShape.from_config(
        classifier.folder.model_config,
        len(config.labels),
        layout=config.layout,
        pooling=config.students.pooling,
        student_width=config.students.width,
        student_heads=config.students.num_heads,
    )


def _summary(
    classifier: FastBertClassifier,
    criterion: EntropyCriterion,
    truth: Int[np.ndarray, " rows"],
    lengths: Int[np.ndarray, " rows"],
    result: ExitResult,
    seconds: float,
) -> Evaluation:
    answers = result.logits.argmax(axis=-1)
    layers = classifier.num_layers
    shape = model_shape(classifier)
    watched = [layer for layer in range(1, layers) if criterion.watches(layer)]
    return Evaluation(
        speed=criterion.speed,
        accuracy=float(accuracy_score(truth, answers)),
        macro_f1=float(f1_score(truth, answers, average="macro", zero_division=0.0)),
        rows=len(truth),
        mean_exit_layer=float(result.exit_layer.mean()),
        layers=layers,
        speedup_flops=shape.speedup(result.exit_layer, lengths, watched),
        speedup_paper=shape.paper_speedup(result.exit_layer),
        seconds=seconds,
        rows_per_second=len(truth) / seconds,
        exit_layers=np.bincount(result.exit_layer, minlength=layers + 1)[1:].tolist(),
    )
