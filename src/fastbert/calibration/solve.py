"""The speed for a goal: from recorded exits to the thresholds that lose, cost or save so much.

A `Calibration` holds what all exits answered on held-out rows, once. Every goal is then solved
without the model. Thresholds come from `fastbert.calibration.path`, which is drawn without
labels, by what the teacher makes of the students' answers: this says the same with less noise.
Labels choose the point on it, and where rows are few the teacher has a say in that too. A goal
with a confidence follows `fastbert.calibration.promise`.
"""

import decimal
import logging
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.calibration.answerer import TORCH, Answerer
from fastbert.calibration.goal import AGREEMENT, Goal
from fastbert.calibration.path import RowCosts, exit_layers_at, threshold_path
from fastbert.calibration.points import AnsweredRows, OperatingPoint
from fastbert.calibration.promise import (
    PValue,
    betting,
    binomial,
    rows_needed,
    safe_steps,
)
from fastbert.errors import CalibrationError

logger = logging.getLogger(__name__)
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
        metric = goal.metric or self._meant(goal)
        if metric not in (AGREEMENT, *self.task.metrics):
            raise CalibrationError(
                f"{metric} is no metric of {self.task.name}, which has "
                f"{', '.join(self.task.metrics)} and {AGREEMENT}"
            )
        if metric != AGREEMENT and self.truth is None:
            raise CalibrationError(
                f"{metric} needs labels, and the calibration rows have none; ask for the metric "
                "agreement, or calibrate with labelled rows"
            )
        if goal.confidence is not None:
            return self._promised(metric, max_drop, goal.confidence)
        measured = self._lost(metric)
        counted = measured + self._overlooked(metric)
        allowed = allowed_drop(max_drop, self.recorded.num_rows)
        good = [
            point
            for point, drop in zip(self.points, counted, strict=True)
            if drop <= allowed + 1e-9
        ]
        return min(good, key=lambda point: point.flops)

    def _meant(self, goal: Goal) -> str:
        """Return the metric of a goal that names none."""
        if self.truth is None:
            return AGREEMENT
        first, *_ = self.task.metrics
        return first if goal.confidence is None else self._mean_metric

    @property
    def _mean_metric(self) -> str:
        """The metric that is one less the mean loss, of which the teacher can expect something."""
        return next(name for name, metric in self.task.metrics.items() if metric.is_mean)

    def _overlooked(self, metric: str) -> Float[np.ndarray, " points"]:
        """Return how much more each point loses on other rows than was measured."""
        changed = np.array([1 - point.agreement for point in self.points])
        if metric == AGREEMENT:
            return np.asarray(np.maximum(self._changed_elsewhere - changed, 0))
        expected = np.array([point.expected_drop for point in self.points])
        lost, rows = self._lost(self._mean_metric), self.recorded.num_rows
        return np.asarray(overlooked_drop(lost, expected, changed, rows))

    def _lost(self, metric: str) -> Float[np.ndarray, " points"]:
        """Return how much worse each point is than every layer, as measured here."""
        if metric == AGREEMENT:
            kept = np.array([point.agreement for point in self.points])
        else:
            column = self.task.metrics[metric].column
            kept = np.array([point.metrics[column] for point in self.points])
        return np.asarray(kept[0] - kept)

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
            changed[point] = self.task.losses(given, answers[-1]).mean()
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

    def _promised(self, metric: str, bound: float, confidence: float) -> OperatingPoint:
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

    def _test(self, metric: str, bound: float, confidence: float, rows: int) -> tuple[bool, PValue]:
        """Return the sharper test, judged by nothing but the number of rows.

        The binomial one is exact but counts only answers that change for the worse; betting
        sets those against the ones that change for the better.
        """
        bet = partial(betting, low=-1.0, confidence=confidence)
        if metric == AGREEMENT or rows < BETTING_FROM * rows_needed(bound, 1 - confidence, bet):
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
        metric: str,
        rows: Int[np.ndarray, " tests"],
        path: Float[np.ndarray, "points students"],
        *,
        harm_only: bool,
    ) -> Iterator[Float[np.ndarray, " tests"]]:
        """Yield, for each setting, how much worse than the teacher each row is answered."""
        truth = self.answers[-1] if metric == AGREEMENT or self.truth is None else self.truth
        wrong = self.task.losses(self.answers[:, rows], truth[rows])
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
            # The measured time is the mean of all students.
            student = np.tile(layer * self.times.student / self.times.layer, (len(student), 1))
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
