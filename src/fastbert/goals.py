"""The speed for a goal: from recorded exits to the thresholds that lose, cost or save so much.

A `Calibration` holds what all exits answered on held-out rows, once. Every goal is then solved
without the model. Thresholds come from `fastbert.thresholds`, whose path is drawn without
labels, by what the teacher makes of the students' answers: this says the same with less noise.
Labels choose the point on it, and where rows are few the teacher has a say in that too. A goal
with a confidence follows `fastbert.guarantee`.
"""

import decimal
import logging
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.calibration import RecordedExits
from fastbert.cost import ModelShape
from fastbert.criteria import Measure, ThresholdCriterion, log_softmax
from fastbert.errors import CalibrationError
from fastbert.guarantee import PValue, betting, binomial, rows_needed, safe_steps
from fastbert.measures import DEFAULT_MEASURE, MEASURES
from fastbert.thresholds import RowCosts, exit_layers_at, threshold_path

logger = logging.getLogger(__name__)

Metric = Literal["accuracy", "f1", "agreement"]

DEFAULT_MAX_DROP = 0.005
LEAST_ROWS = 20  # fewer say nothing about 11 thresholds
ROWS_TO_SPLIT = 3_000  # with fewer, a promise does better with equal thresholds and every row
PATH_SHARE = 5  # one row in so many draws the path that the others test
BETTING_FROM = 1.5  # times the rows it needs without any loss; below, betting learns too late
TEXTS_LOST = 2.5  # taken to be answered worse besides those that are: few rows hide a few errors
LEAST_SHARE = 1 / 10  # of an allowed drop, which is left however few the rows
FOLDS = 5  # of the rows, each of which judges settings that the others draw
ROWS_TO_FOLD = 10_000  # from so many on a path loses elsewhere what it loses on its own rows
STANDARD_ERRORS = 2  # by which the teacher's expectation may raise a measured drop
SEED = 0  # of the order in which rows are split and bet on

# Equal thresholds, fixed before any row is seen; finer near 0, where sure students are.
EQUAL_THRESHOLDS = np.unique([*np.linspace(0, 1, 201), *np.geomspace(1e-8, 1, 161)])


class GoalOptions(TypedDict, total=False):
    """What may be asked for, as arguments of `speed_for`, `predict` and the like; see `Goal`."""

    max_drop: float
    metric: Metric
    confidence: float
    min_speedup: float
    max_mean_layers: float
    max_flops: float
    latency_ms: float
    saving: float


@dataclass(frozen=True)
class Goal:
    """What the speed shall reach: exactly one of these, on texts like the calibration's.

    Args:
        max_drop: At most so much worse than the full model, as a share: 0.005 is half a point.
            With few rows more is asked of them than that, so that it holds on other texts too.
        metric: Of what: accuracy, macro F1, or agreement with the full model's answers, which
            needs no labels. By default accuracy where there are labels.
        confidence: With `max_drop`, the probability that it holds for unseen texts, such as 0.95;
            without it nothing is promised.
        min_speedup: At least so many times fewer FLOPs than the full model.
        max_mean_layers: At most so many encoder layers on average.
        max_flops: At most so many FLOPs a text on average.
        latency_ms: At most so many milliseconds a text on average, one at a time, by the times
            that were measured when calibrating.
        saving: From 0 (every layer) to 1 (the fastest there is): such a share of the layers
            that can be saved.

    Raises:
        ValueError: There is not exactly one goal, or a value is out of range.
    """

    max_drop: float | None = None
    metric: Metric | None = None
    confidence: float | None = None
    min_speedup: float | None = None
    max_mean_layers: float | None = None
    max_flops: float | None = None
    latency_ms: float | None = None
    saving: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no goal."""
        aims = self._aims
        if len(aims) != 1:
            given = " and ".join(aims) or "none"
            raise ValueError(f"a goal is exactly one of {', '.join(AIMS)}; got {given}")
        if self.metric not in (None, *get_args(Metric)):
            raise ValueError(f"metric must be one of {get_args(Metric)}, got {self.metric!r}")
        for name in ("metric", "confidence"):
            if getattr(self, name) is not None and self.max_drop is None:
                raise ValueError(f"{name} goes with max_drop, not with {aims[0]}")
        if self.confidence is not None and self.metric == "f1":
            raise ValueError("confidence goes with accuracy or agreement; F1 is no mean over texts")
        for name in ("max_drop", "confidence", "saving"):
            _check_range(name, getattr(self, name), 1.0)
        for name in ("min_speedup", "max_mean_layers", "max_flops", "latency_ms"):
            _check_range(name, getattr(self, name), np.inf)
        if self.confidence is not None and not (0 < self.confidence < 1 and self.max_drop):
            raise ValueError("confidence must lie between 0 and 1, and max_drop be more than 0")

    @property
    def aim(self) -> tuple[str, float]:
        """The one thing asked for, and how much of it."""
        [name] = self._aims
        return name, getattr(self, name)

    @property
    def _aims(self) -> list[str]:
        return [name for name in AIMS if getattr(self, name) is not None]

    def as_dict(self) -> dict[str, float | str]:
        """Return what was given, by name."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


AIMS = ("max_drop", "min_speedup", "max_mean_layers", "max_flops", "latency_ms", "saving")


def _check_range(name: str, value: float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:
        raise ValueError(f"{name} must lie between 0 and {high:g}, got {value}")


DEFAULT_GOAL = Goal(max_drop=DEFAULT_MAX_DROP)  # where nobody asks for another


@dataclass(frozen=True)
class Answerer:
    """What computed answers. Thresholds chosen from them are meant for it alone.

    Args:
        runtime: `torch`, `openvino` or `onnx`.
        precision: `fp32`, `bf16` or `int8`.
    """

    runtime: str = "torch"
    precision: str = "fp32"

    def __str__(self) -> str:
        """Name it in a message."""
        return f"{self.runtime} in {self.precision}"


TORCH = Answerer()
TIMED_PARTS = ("start", "layer", "student", "teacher")


@dataclass(frozen=True)
class PartTimes:
    """How long the parts of the model take for one text, in milliseconds.

    Args:
        start: Tokenising and embedding.
        layer: One encoder layer.
        student: One student.
        teacher: The teacher's head.
        processor: On which processor they were measured; None where nobody knows.
    """

    start: float
    layer: float
    student: float
    teacher: float
    processor: str | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds, and what they gave on the calibration rows.

    Args:
        criterion: The exit rule, as `predict(texts, speed=...)` takes it.
        accuracy: Share of rows answered right; None without labels.
        macro_f1: F1 averaged over the classes; None without labels.
        agreement: Share of rows answered like the full model.
        expected_drop: Share of rows answered worse than by the full model, less those answered
            better, if classes are as likely as the full model says.
        mean_exit_layer: Encoder layers a row ran on average.
        flops: Mean of a row's FLOPs, true count.
        speedup_flops: FLOPs of the full model without students over those spent.
        latency_ms: Mean time of one text on its own; None if times were not measured.
        exit_layers: How many rows left after each layer, the first one first.
        goal: What was asked for, if this point was chosen for something.
    """

    criterion: ThresholdCriterion
    accuracy: float | None
    macro_f1: float | None
    agreement: float
    expected_drop: float
    mean_exit_layer: float
    flops: float
    speedup_flops: float
    latency_ms: float | None
    exit_layers: tuple[int, ...]
    goal: Goal | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each student; 0 where it is not asked."""
        return self.criterion.thresholds

    def quality(self, metric: Metric) -> float:
        """Return one of the figures of quality; all but agreement need labels."""
        figures = {"accuracy": self.accuracy, "f1": self.macro_f1, "agreement": self.agreement}
        value = figures[metric]
        assert value is not None, f"{metric} without labels"
        return value


@dataclass(frozen=True)
class AnsweredRows:
    """All exits' answers on some rows, and what they say about any thresholds.

    Args:
        recorded: The logits of every exit.
        truth: The class of each row; None where nobody labelled them.
        lengths: Tokens of each row, special tokens included.
        shape: The widths of the model, which decide what a layer and a student cost.
        measure: How doubtful an answer is; `DEFAULT_MEASURE` if none is given.
        times: How long the parts of the model take, where it was measured.
    """

    recorded: RecordedExits
    truth: Int[np.ndarray, " rows"] | None
    lengths: Int[np.ndarray, " rows"]
    shape: ModelShape
    measure: Measure = field(default_factory=MEASURES[DEFAULT_MEASURE])
    times: PartTimes | None = None

    @cached_property
    def doubts(self) -> Float[np.ndarray, "students rows"]:
        """How doubtful each student's answer to each row is."""
        return doubts_of(self.measure, self.recorded)

    @cached_property
    def answers(self) -> Int[np.ndarray, "exits rows"]:
        """The class that each exit answers."""
        return np.asarray(self.recorded.recorded.argmax(axis=-1))

    @cached_property
    def expected_losses(self) -> Float[np.ndarray, "exits rows"]:
        """How likely each answer is wrong, if classes are as likely as the teacher says."""
        teacher = np.exp(log_softmax(self.recorded.recorded[-1]))
        return np.asarray(1 - teacher[np.arange(len(teacher)), self.answers])

    def point(self, thresholds: Float[np.ndarray, " students"]) -> OperatingPoint:
        """Return what thresholds give on these rows."""
        criterion = ThresholdCriterion(self.measure, tuple(map(float, thresholds)))
        exit_layers = exit_layers_at(self.doubts, thresholds)
        given = exit_layers - 1, np.arange(len(exit_layers))
        answers, losses = self.answers[given], self.expected_losses[given]
        layers = self.shape.num_layers
        watched = [layer for layer in range(1, layers) if criterion.watches(layer)]
        asked = self.shape.students_asked(exit_layers, watched)
        flops = float(self.shape.row_flops(exit_layers, self.lengths, asked).mean())
        return OperatingPoint(
            criterion=criterion,
            accuracy=None if self.truth is None else float((answers == self.truth).mean()),
            macro_f1=None if self.truth is None else macro_f1(answers, self.truth),
            agreement=float((answers == self.answers[-1]).mean()),
            expected_drop=float((losses - self.expected_losses[-1]).mean(dtype=np.float64)),
            mean_exit_layer=float(exit_layers.mean()),
            flops=flops,
            speedup_flops=float(self.shape.full_flops(self.lengths).mean()) / flops,
            latency_ms=self._latency_ms(exit_layers, asked),
            exit_layers=tuple(np.bincount(exit_layers, minlength=layers + 1)[1:].tolist()),
        )

    def _latency_ms(
        self, exit_layers: Int[np.ndarray, " rows"], asked: Int[np.ndarray, " rows"]
    ) -> float | None:
        if self.times is None:
            return None
        by_teacher = float((exit_layers == self.shape.num_layers).mean())
        return (
            self.times.start
            + float(exit_layers.mean()) * self.times.layer
            + float(asked.mean()) * self.times.student
            + by_teacher * self.times.teacher
        )


def macro_f1(answers: Int[np.ndarray, " rows"], truth: Int[np.ndarray, " rows"]) -> float:
    """Return what scikit-learn's macro F1 is; serving without torch does without it too."""
    classes = int(max(answers.max(), truth.max())) + 1
    right = np.bincount(truth[answers == truth], minlength=classes)
    both = np.bincount(truth, minlength=classes) + np.bincount(answers, minlength=classes)
    return float((2 * right[both > 0] / both[both > 0]).mean())


def check_enough(rows: int) -> None:
    """Refuse so few rows that nothing can be learned from them.

    Raises:
        CalibrationError: There are too few.
    """
    if rows < LEAST_ROWS:
        raise CalibrationError(f"calibrating takes at least {LEAST_ROWS} rows, got {rows}")


def allowed_drop(max_drop: float, rows: int) -> float:
    """Return what so few rows may show of a drop, for it to hold on others too.

    Some texts are taken to be answered worse besides those that are, but a share of the drop is
    left however few the rows. It rises with `max_drop`, and with many rows it is that.
    """
    return max(max_drop - TEXTS_LOST / rows, max_drop * LEAST_SHARE)


def overlooked_drop(measured: Any, expected: Any, changed: Any, rows: int) -> Any:
    """Return how much accuracy is lost beyond what was measured, for any number of settings.

    It is what the teacher expects beyond it, within two standard errors of what was measured.

    Args:
        measured: The accuracy lost, by the labels.
        expected: The accuracy lost, by what the teacher thinks of all classes.
        changed: Share of the rows that get another answer.
        rows: How many.
    """
    error = np.sqrt(changed * rows + 1) / rows
    return np.clip(expected - measured, 0, STANDARD_ERRORS * error)


@dataclass(frozen=True)
class Calibration(AnsweredRows):
    """All exits' answers on held-out rows, from which thresholds are chosen.

    Args:
        fitted: Which rows the measure was fitted on, if it was: these cannot test a promise.
        answered_by: What computed the answers; None where nobody knows.

    Raises:
        CalibrationError: There are too few rows, or a logit is not finite.
    """

    fitted: Bool[np.ndarray, " rows"] | None = None
    answered_by: Answerer | None = TORCH

    def __post_init__(self) -> None:
        """Refuse rows that nothing can be learned from."""
        rows = self.recorded.num_rows
        check_enough(rows)
        bad = ~np.isfinite(self.recorded.recorded).all(axis=-1)
        if bad.any():
            exit_, row = np.argwhere(bad)[0]
            raise CalibrationError(
                f"the answer after layer {exit_ + 1} to row {row + 1} is NaN or infinite, as for "
                f"{bad.any(axis=0).sum()} of {rows} rows"
            )

    def solve(self, goal: Goal) -> OperatingPoint:
        """Return the thresholds for a goal, and what they gave here.

        Raises:
            CalibrationError: The goal cannot be met, or these rows cannot tell; the message says
                what can.
        """
        if goal.max_drop is not None:
            point = self._at_most_worse(goal, goal.max_drop)
        elif goal.saving is not None:
            point = self._saving(goal.saving)
        else:
            point = self._within_budget(goal)
        return replace(point, goal=goal)

    @cached_property
    def points(self) -> tuple[OperatingPoint, ...]:
        """What can be had, from every layer to the fastest."""
        everyone = np.full(self.recorded.num_rows, True)
        return tuple(self.point(thresholds) for thresholds in self._path(everyone))

    # Goals.

    def _at_most_worse(self, goal: Goal, max_drop: float) -> OperatingPoint:
        metric = goal.metric or ("agreement" if self.truth is None else "accuracy")
        if metric != "agreement" and self.truth is None:
            raise CalibrationError(
                f"{metric} needs labels, and the calibration rows have none; ask for the metric "
                "agreement, or calibrate with labelled rows"
            )
        if goal.confidence is not None:
            return self._promised(metric, max_drop, goal.confidence)
        full = self.points[0].quality(metric)
        measured = np.array([full - point.quality(metric) for point in self.points])
        counted = measured + self._overlooked(metric)
        allowed = allowed_drop(max_drop, self.recorded.num_rows)
        good = [
            point
            for point, drop in zip(self.points, counted, strict=True)
            if drop <= allowed + 1e-9
        ]
        return min(good, key=lambda point: point.flops)

    def _overlooked(self, metric: Metric) -> Float[np.ndarray, " points"]:
        """Return how much more each point loses on other rows than was measured."""
        changed = np.array([1 - point.agreement for point in self.points])
        if metric == "agreement":
            return np.asarray(np.maximum(self._changed_elsewhere - changed, 0))
        accuracy = np.array([point.accuracy for point in self.points], np.float64)
        expected = np.array([point.expected_drop for point in self.points])
        measured, rows = accuracy[0] - accuracy, self.recorded.num_rows
        return np.asarray(overlooked_drop(measured, expected, changed, rows))

    @cached_property
    def _changed_elsewhere(self) -> Float[np.ndarray, " points"]:
        """Return how many answers of each point are not the full model's, on rows it never saw.

        The path is drawn by what the full model makes of the answers, so on its own rows it looks
        better than it is. Each fold of the rows is left out once, and tells what settings of the
        same depth change there. With many rows the difference vanishes, and is not looked for.
        """
        rows = self.recorded.num_rows
        if rows >= ROWS_TO_FOLD:
            return np.zeros(len(self.points))
        folds = np.random.default_rng(SEED).permutation(rows) % FOLDS
        depth = np.array([point.mean_exit_layer for point in self.points])
        changed = np.zeros(len(depth))
        for fold in range(FOLDS):
            left_out = folds == fold
            layers, share = self._changed_along(self._path(~left_out), left_out)
            order = np.argsort(layers, kind="stable")
            at_least = np.maximum.accumulate(share[order][::-1])[::-1]  # deeper changes no more
            changed += left_out.mean() * np.interp(depth, layers[order], at_least)
        return changed

    def _changed_along(
        self, path: Float[np.ndarray, "points students"], rows: Bool[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Return mean exit layer and share of changed answers of each setting on some rows."""
        doubts, answers = self.doubts[:, rows], self.answers[:, rows]
        layers, changed = np.empty(len(path)), np.empty(len(path))
        for point, thresholds in enumerate(path):
            exit_layers = exit_layers_at(doubts, thresholds)
            given = answers[exit_layers - 1, np.arange(len(exit_layers))]
            layers[point] = exit_layers.mean()
            changed[point] = (given != answers[-1]).mean()
        return layers, changed

    def _within_budget(self, goal: Goal) -> OperatingPoint:
        """Return the slowest point that is fast enough: thresholds rise no further than needed."""
        name, limit = goal.aim
        figure_name, keeps, best = _BUDGETS[name]
        figures = [getattr(point, figure_name) for point in self.points]
        if None in figures:
            raise CalibrationError(
                f"{name} needs the times of this machine: calibrate again with --time"
            )
        for point, figure in zip(self.points, figures, strict=True):
            if keeps(figure, limit):
                return point
        raise CalibrationError(
            f"{name} {limit:g} cannot be reached: the best is {_within(best(figures), best)}"
        )

    def _saving(self, share: float) -> OperatingPoint:
        slowest, fastest = (self.points[end].mean_exit_layer for end in (0, -1))
        wanted = slowest - share * (slowest - fastest)
        return min(self.points, key=lambda point: abs(point.mean_exit_layer - wanted))

    def _promised(self, metric: Metric, bound: float, confidence: float) -> OperatingPoint:
        """Return the furthest point of a path that holds for unseen rows."""
        path, rows = self._path_and_tests()
        delta = 1 - confidence
        harm_only, p_value = self._test(metric, bound, confidence, len(rows))
        needed = rows_needed(bound, delta, p_value)
        if len(rows) < needed:
            raise CalibrationError(
                f"max_drop {bound:g} with confidence {confidence:g} takes at least "
                f"{self._rows_for(needed)} even if no answer gets worse; there are "
                f"{self.recorded.num_rows}"
            )
        losses = self._losses(metric, rows, path[1:], harm_only=harm_only)
        steps = safe_steps(losses, bound, delta, p_value)
        if not steps:
            logger.warning(
                "no early exit can be promised to lose at most %g with confidence %g: every layer "
                "is run; allow a larger drop or calibrate with more than %d rows",
                bound, confidence, self.recorded.num_rows,
            )  # fmt: skip
        return self.point(path[steps])

    def _test(
        self, metric: Metric, bound: float, confidence: float, rows: int
    ) -> tuple[bool, PValue]:
        """Return the sharper test, judged by nothing but the number of rows.

        The binomial one is exact but counts only answers that change for the worse; betting
        sets those against the ones that change for the better.
        """
        bet = partial(betting, low=-1.0, confidence=confidence)
        if metric == "agreement" or rows < BETTING_FROM * rows_needed(bound, 1 - confidence, bet):
            return True, binomial
        return False, bet

    def _path_and_tests(self) -> tuple[Float[np.ndarray, "points students"], np.ndarray]:
        """Return a path, and rows that had no part in drawing it, in random order."""
        order = np.random.default_rng(SEED).permutation(self.recorded.num_rows)
        if self.fitted is not None:
            order = order[~self.fitted[order]]
        if len(order) < ROWS_TO_SPLIT:
            equal = np.repeat(EQUAL_THRESHOLDS[:, None], len(self.doubts), axis=1)
            return equal.astype(self.doubts.dtype), order
        drawing = np.zeros(self.recorded.num_rows, bool)
        drawing[order[: len(order) // PATH_SHARE]] = True
        return self._path(drawing), order[len(order) // PATH_SHARE :]

    def _rows_for(self, tests: int) -> str:
        """Return in words how many rows it takes to have so many that test."""
        if tests >= ROWS_TO_SPLIT:  # some draw the path
            tests = -(-tests * PATH_SHARE // (PATH_SHARE - 1))
        if self.fitted is None:
            return f"{tests} calibration rows"
        return f"{tests} calibration rows that the criterion was not fitted on"

    def _losses(
        self,
        metric: Metric,
        rows: Int[np.ndarray, " tests"],
        path: Float[np.ndarray, "points students"],
        *,
        harm_only: bool,
    ) -> Iterator[Float[np.ndarray, " tests"]]:
        """Yield, for each setting, how much worse than the teacher each row is answered."""
        truth = self.answers[-1] if metric == "agreement" or self.truth is None else self.truth
        wrong = (self.answers[:, rows] != truth[rows]).astype(np.float64)
        doubts = self.doubts[:, rows]
        for thresholds in path:
            exit_layers = exit_layers_at(doubts, thresholds)
            drop = wrong[exit_layers - 1, np.arange(len(rows))] - wrong[-1]
            yield np.maximum(drop, 0) if harm_only else drop

    # What the rows say.

    def _path(self, rows: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, "points students"]:
        """Draw a path from some of the rows, by what the teacher expects each answer to lose."""
        lengths = self.lengths[rows]
        layer = self.shape.layer_flops(lengths).astype(np.float64)
        student = self.shape.student_flops(lengths).astype(np.float64)
        if self.times is not None and self.times.layer > 0:
            # An exit costs more time than its FLOPs say: small products, and a way to Python.
            student = layer * self.times.student / self.times.layer
        costs = RowCosts(layer, student, self.measure.looks_back)
        return threshold_path(self.doubts[:, rows], self.expected_losses[:, rows], costs)


# Which figure of a point a budget speaks of, when it is kept, and what the best figure would be.
_BUDGETS: dict[str, tuple[str, Callable[[float, float], bool], Callable[..., float]]] = {
    "min_speedup": ("speedup_flops", operator.ge, max),
    "max_mean_layers": ("mean_exit_layer", operator.le, min),
    "max_flops": ("flops", operator.le, min),
    "latency_ms": ("latency_ms", operator.le, min),
}


def _within(figure: float, best: Callable[..., float]) -> str:
    """Write a limit in four digits, rounded to the side where it can be kept."""
    towards = decimal.ROUND_FLOOR if best is max else decimal.ROUND_CEILING
    return f"{float(decimal.Context(4, towards).create_decimal(figure)):g}"


def doubts_of(measure: Measure, recorded: RecordedExits) -> Float[np.ndarray, "students rows"]:
    """Return a measure's doubt about what each student answered."""
    logits = recorded.recorded
    doubts = []
    for exit_layer in range(1, len(logits)):
        first = 0 if measure.looks_back else exit_layer - 1
        doubts.append(measure.doubt(logits[first:exit_layer], exit_layer))
    return np.stack(doubts)
