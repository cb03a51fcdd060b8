"""What a speed gives on labelled texts: quality, layers, cost and time."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np
from jaxtyping import Int

from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.drift import Drift, compare
from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.exits.criteria import (
    EntropyCriterion,
    ExitCriterion,
    ThresholdCriterion,
    watched_exits,
)
from fastbert.exits.engine import ExitResult
from fastbert.exits.measures import Energy
from fastbert.processor import processor_name
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import Scored, scores
from fastbert.tasks.task import Decisions, Task
from fastbert.text import Text

TIMED_TEXTS, REPEATS = 50, 3
ALL_LEAVE, NOBODY_LEAVES = 1.0, 1e-30  # the energy of a sound answer lies between
DRIFT_TEXTS = 2_000  # that run every layer, to see whether they still behave as calibrated


@dataclass(frozen=True)
class Evaluation(Scored):
    """What one speed gave on a set of labelled texts.

    Args:
        speed: The paper's threshold; None where there is one for each student.
        metrics: What the answers are worth, by the names of the task's metrics.
        rows: How many texts.
        mean_exit_layer: Encoder layers a text ran on average.
        layers: Encoder layers there are.
        speedup_flops: FLOPs of the full model without students over those spent (true count).
        speedup_paper: The same in the paper's count.
        seconds: From texts to answers, tokenisation included, of those that were timed: all, or
            `seconds * rows_per_second` of them.
        rows_per_second: Texts answered in a second.
        exit_layers: How many texts left after each layer, the first one first.
        goal: What was asked for by name, where it was a goal.
        confidence: With which confidence, where one was asked for.
        thresholds: The threshold of each student, where a goal chose them.
    """

    speed: float | None
    metrics: dict[str, float]
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
        metrics = figures.pop("metrics")
        figures = {"speed": figures.pop("speed"), **metrics, **figures}
        if self.thresholds is None:
            for name in ("goal", "confidence", "thresholds"):
                del figures[name]
        return figures


def evaluate(
    classifier: FastBertClassifier,
    examples: Sequence[Example],
    speeds: Iterable[float | OperatingPoint | None],
    batch_size: int = 32,
) -> list[Evaluation]:
    """Classify labelled texts at each speed and measure.

    Args:
        classifier: What is evaluated.
        examples: Labelled texts; every label must be one of the classifier's.
        speeds: Thresholds from 0 (every layer) to 1, what `speed_for` returned, or None for the
            folder's default.
        batch_size: Texts computed together; it changes the time and nothing else.

    Raises:
        DataError: A label is not one of the classifier's.
        ValueError: There are no texts.
    """
    if not examples:
        raise ValueError("examples must be at least one labelled text, got none")
    task = classifier.config.task
    task.check(examples)
    texts = [example.content for example in examples]
    truth = task.array([example.label for example in examples])
    lengths = np.array([len(tokens.ids) for tokens in classifier.encode(texts)])

    last = classifier.num_layers
    evaluations = []
    for speed in speeds:
        criterion = classifier.criterion(speed)
        # First calls are slower, and an export compiles what leads to an exit when a row comes.
        _run_to(classifier, texts[:batch_size], [*watched_exits(criterion, last), last])
        start = time.perf_counter()
        result = classifier.classify(texts, criterion, batch_size)
        seconds = time.perf_counter() - start
        goal = classifier.default_goal if speed is None else getattr(speed, "goal", None)
        timed = len(texts), seconds
        shape = classifier.folder.shape
        evaluations.append(summary_of(task, shape, criterion, goal, truth, lengths, result, timed))
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
    now = classifier.record(sample_of(examples, DRIFT_TEXTS), batch_size)
    return compare(classifier.calibration.recorded, now, criterion, classifier.config.task)


def part_times(classifier: FastBertClassifier, examples: Sequence[Example]) -> PartTimes:
    """Measure how long the parts of the model take for one text at a time.

    A runtime may compute layers and exits in one piece, so whole runs are timed and the parts are
    what these differ by. Of each text the median of a few times counts, and the mean over a sample
    from all over them.
    """
    layers = classifier.num_layers
    students, last = range(1, layers), max(layers - 1, 1)
    texts = sample_of(examples, TIMED_TEXTS)

    def mean_ms(thresholds: dict[int, float]) -> float:
        rule = ThresholdCriterion(
            Energy(), tuple(thresholds.get(student, 0.0) for student in students)
        )
        for text in texts[:REPEATS]:
            classifier.classify([text], rule)  # first calls are slower
        return fmean(
            median(
                _milliseconds(partial(classifier.classify, [text], rule)) for _ in range(REPEATS)
            )
            for text in texts
        )

    to_first, to_last = mean_ms({1: ALL_LEAVE}), mean_ms({last: ALL_LEAVE})
    to_teacher, through_all = mean_ms({}), mean_ms(dict.fromkeys(students, NOBODY_LEAVES))
    student = (through_all - to_teacher) / max(layers - 1, 1)
    if layers > 2:
        layer = (to_last - to_first) / (layers - 2)
    else:  # as if the teacher cost what a student does
        layer = (to_teacher - to_first) / max(layers - 1, 1)
    start = to_first - layer - student
    teacher = to_teacher - start - layers * layer
    return PartTimes(
        start=max(start, 0.0),
        layer=max(layer, 0.0),
        student=max(student, 0.0),
        teacher=max(teacher, 0.0),
        processor=processor_name(),
    )


def sample_of(examples: Sequence[Example], most: int) -> list[Text]:
    """Return the texts, or of more than `most` some from all over them."""
    return [examples[row].content for row in rows_all_over(len(examples), most)]


def rows_all_over(count: int, most: int) -> Int[np.ndarray, " rows"]:
    """Return the numbers of `count` rows, or of more than `most` some from all over them."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def _run_to(classifier: FastBertClassifier, texts: Sequence[Text], exits: Sequence[int]) -> None:
    """Run some texts as one batch through the exits named; nobody leaves."""
    backend = classifier.backend
    [(_, batch)] = classifier.batches(classifier.encode(texts), len(texts))
    state = backend.start(batch)
    for exit_layer in exits:
        state, _logits = backend.advance(state, exit_layer)


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1_000 * (time.perf_counter() - start)


def summary_of(
    task: Task,
    shape: ModelShape,
    criterion: ExitCriterion,
    goal: Goal | None,
    truth: Decisions,
    lengths: Int[np.ndarray, " rows"],
    result: ExitResult,
    timed: tuple[int, float],
) -> Evaluation:
    """Return what the answers to some texts are worth and cost, whether computed or replayed.

    Args:
        task: What was answered.
        shape: The widths of the model.
        criterion: Who left where.
        goal: What was asked for by name, where it was a goal.
        truth: The right answers.
        lengths: Tokens of each text.
        result: The answers.
        timed: How many of the texts were timed, and the seconds they took.
    """
    layers = shape.num_layers
    watched = watched_exits(criterion, layers)
    texts, seconds = timed
    return Evaluation(
        speed=criterion.speed if isinstance(criterion, EntropyCriterion) else None,
        metrics=scores(task, task.decide(result.logits), truth),
        rows=len(truth),
        mean_exit_layer=float(result.exit_layer.mean()),
        layers=layers,
        speedup_flops=shape.speedup(result.exit_layer, lengths, watched),
        speedup_paper=shape.paper_speedup(result.exit_layer),
        seconds=seconds,
        rows_per_second=texts / seconds,
        exit_layers=np.bincount(result.exit_layer, minlength=layers + 1)[1:].tolist(),
        goal=goal.as_dict() if goal else None,
        confidence=goal.confidence if goal else None,
        thresholds=list(criterion.thresholds)
        if isinstance(criterion, ThresholdCriterion)
        else None,
    )
