"""What a speed gives on labelled texts: quality, layers, cost and time."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean, median
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int
from sklearn.metrics import accuracy_score, f1_score

from fastbert.classifier import FastBertClassifier, Text
from fastbert.criteria import EntropyCriterion, ExitCriterion
from fastbert.data import Example
from fastbert.drift import Drift, compare
from fastbert.engine import ExitResult
from fastbert.goals import OperatingPoint, StageTimes

TIMED_TEXTS, REPEATS = 50, 3
DRIFT_TEXTS = 2_000  # that run every layer, to see whether they still behave as calibrated

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """What one speed gave on a set of labelled texts.

    Args:
        speed: The threshold; None where a goal chose several.
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
        goal: What was asked for by name, where it was a goal.
        confidence: With which confidence, where one was asked for.
        thresholds: The threshold of each student, where a goal chose them.
    """

    speed: float | None
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
    goal: dict[str, Any] | None = None
    confidence: float | None = None
    thresholds: list[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON takes them; those of a goal where there was one."""
        figures = asdict(self)
        if self.thresholds is None:
            for name in ("goal", "confidence", "thresholds"):
                del figures[name]
        return figures


def evaluate(
    classifier: FastBertClassifier,
    examples: Sequence[Example],
    speeds: Iterable[float | OperatingPoint],
    batch_size: int = 32,
) -> list[Evaluation]:
    """Classify labelled texts at each speed and measure.

    Args:
        classifier: What is evaluated.
        examples: Labelled texts; every label must be one of the classifier's.
        speeds: Thresholds from 0 (every layer) to 1, or what `speed_for` returned.
        batch_size: Texts computed together; it changes the time and nothing else.
    """
    texts = [example.content for example in examples]
    numbers = {label: number for number, label in enumerate(classifier.labels)}
    truth = np.array([numbers[example.label or ""] for example in examples])
    lengths = np.array([len(tokens.ids) for tokens in classifier.encode(texts)])
    classifier.predict(texts[:batch_size], 0.0, batch_size)  # first calls are slower

    evaluations = []
    for speed in speeds:
        criterion = (
            speed.criterion if isinstance(speed, OperatingPoint) else EntropyCriterion(speed)
        )
        start = time.perf_counter()
        result = classifier.classify(texts, criterion, batch_size)
        seconds = time.perf_counter() - start
        evaluations.append(_summary(classifier, speed, criterion, truth, lengths, result, seconds))
    return evaluations


def drift_of(
    classifier: FastBertClassifier,
    examples: Sequence[Example],
    criterion: ExitCriterion,
    batch_size: int = 32,
) -> Drift:
    """Compare texts with those of the calibration, at one setting; they need no labels.

    Args:
        classifier: A calibrated classifier.
        examples: The texts; of more than `DRIFT_TEXTS`, a sample from all over them.
        criterion: The setting in use.
        batch_size: Texts computed together.

    Raises:
        FolderError: The classifier is not calibrated.
    """
    now = classifier.record(_sample(examples, DRIFT_TEXTS), batch_size)
    return compare(classifier.calibration.recorded, now, criterion)


def stage_times(classifier: FastBertClassifier, examples: Sequence[Example]) -> StageTimes:
    """Measure how long the parts of the model take for one text at a time.

    Of each text the median of a few runs counts, and the mean over a sample from all over them.
    """
    texts = _sample(examples, TIMED_TEXTS)
    classifier.predict(texts, 0.0, 1)  # first calls are slower
    runs = [[_times_of(classifier, text) for _ in range(REPEATS)] for text in texts]

    def mean(part: str) -> float:
        return fmean(median(getattr(run, part) for run in of_text) for of_text in runs)

    return StageTimes(mean("start"), mean("layer"), mean("student"), mean("teacher"))


def _sample(examples: Sequence[Example], most: int) -> list[Text]:
    """Return the texts, or of more than `most` some from all over them."""
    rows = np.unique(np.linspace(0, len(examples) - 1, most).astype(int))
    return [examples[row].content for row in rows]


def _times_of(classifier: FastBertClassifier, text: Text) -> StageTimes:
    """Run one text through every layer and every exit, by the clock."""
    backend = classifier.backend
    start, state = _timed(
        lambda: backend.start(next(iter(classifier.batches(classifier.encode([text]), 1)))[1])
    )
    layers, exits = [], []
    for _ in range(backend.num_exits):
        milliseconds, state = _timed(partial(backend.advance, state))
        layers.append(milliseconds)
        milliseconds, _logits = _timed(partial(backend.logits, state))
        exits.append(milliseconds)
    students = exits[:-1] or [0.0]
    return StageTimes(start, fmean(layers), fmean(students), exits[-1])


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return how many milliseconds it took, and what came of it."""
    start = time.perf_counter()
    result = work()
    return 1_000 * (time.perf_counter() - start), result


def _summary(
    classifier: FastBertClassifier,
    speed: float | OperatingPoint,
    criterion: ExitCriterion,
    truth: Int[np.ndarray, " rows"],
    lengths: Int[np.ndarray, " rows"],
    result: ExitResult,
    seconds: float,
) -> Evaluation:
    answers = result.logits.argmax(axis=-1)
    layers, shape = classifier.num_layers, classifier.folder.shape
    watched = [layer for layer in range(1, layers) if criterion.watches(layer)]
    chosen = speed if isinstance(speed, OperatingPoint) else None
    goal = chosen.goal if chosen else None
    return Evaluation(
        speed=speed if isinstance(speed, float | int) else None,
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
        goal=goal.as_dict() if goal else None,
        confidence=goal.confidence if goal else None,
        thresholds=list(chosen.thresholds) if chosen else None,
    )
