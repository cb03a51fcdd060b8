"""What a contender keeps at each speed-up: chosen on dev, measured on test, by recorded answers.

The answers of test choose nothing. Every cost is told in the FLOPs of one model, the yardstick's,
so models of other depths and encoders stand on one axis. No model is run, so all of it can be made
again, such as for another measure of doubt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fastbert.calibration.choose import measure_to_calibrate
from fastbert.calibration.goal import DEFAULT_GOAL, Goal
from fastbert.calibration.points import AnsweredRows, OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.errors import CalibrationError
from fastbert.exits.recorded import RecordedExits
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import meant
from fastbert.tasks.task import Decisions, Metric, Task

TARGETS = (2.0, 3.0, 4.0, 6.0)
RETAINED = (0.99, 0.98)
AREA = np.geomspace(1.5, 6, 64)  # speed-ups in equal ratios, over which `area` is the mean
EQUAL_COST = 1.02  # costs that differ by less are taken to be equal


@dataclass(frozen=True)
class Split:
    """What all exits answered about labelled rows.

    Args:
        recorded: The logits of every exit; of one alone where no student was trained.
        truth: The right answers.
        lengths: Tokens of each row.
    """

    recorded: RecordedExits
    truth: Decisions
    lengths: Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Recording:
    """What a contender answered on dev and test.

    Args:
        task: What was answered.
        shape: The widths of the model.
        dev: Chooses.
        test: Is measured on.
    """

    task: Task
    shape: ModelShape
    dev: Split
    test: Split

    @property
    def metric(self) -> Metric:
        """The first metric of the task, by which all is judged."""
        return meant(self.task)

    def full(self, split: Split) -> float:
        """Return what the answers of the last exit are worth."""
        return self.metric.score(self.task.decide(split.recorded.recorded[-1]), split.truth)

    def full_flops(self, split: Split) -> float:
        """Return the mean FLOPs of a row through all layers, without students."""
        return float(self.shape.full_flops(split.lengths).mean())


@dataclass(frozen=True)
class Yardstick:
    """What contenders are measured by.

    Args:
        teacher: The metric of the first stage's teacher on test.
        metric: That of the better one, on dev, of the teacher and the full model that had a whole
            budget; what is kept is kept of this.
        dev_flops: Mean FLOPs of a row of dev through the teacher.
        test_flops: The same of test.
    """

    teacher: float
    metric: float
    dev_flops: float
    test_flops: float

    @classmethod
    def of(cls, teacher: Recording, plain: Recording | None = None) -> "Yardstick":
        """Return that of a teacher and, if there is one, of a full model of a whole budget."""
        best = max([teacher, *([plain] if plain else [])], key=lambda one: one.full(one.dev))
        return cls(
            teacher.full(teacher.test),
            best.full(best.test),
            teacher.full_flops(teacher.dev),
            teacher.full_flops(teacher.test),
        )


@dataclass(frozen=True)
class Point:
    """A setting, on test.

    Args:
        speedup: Times fewer FLOPs than the teacher of the yardstick.
        metric: What the answers are worth.
        retention: The same as a share of the yardstick's.
        thresholds: One for each student, as dev chose them; none where no student was trained.
    """

    speedup: float
    metric: float
    retention: float
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Frontier:
    """What a contender keeps at which speed-up, on test.

    Args:
        full: Every layer is run.
        full_change: Its metric less that of the first stage's teacher.
        default: The setting of the default goal.
        drop: How much worse that is than `full`.
        targets: For each of `TARGETS` the setting that dev chose to be at least so fast; None where
            dev has none.
        exact: The metric at exactly these speed-ups, of two neighbours on the curve; None past
            its ends.
        retained: For each of `RETAINED` the largest speed-up on the curve that keeps so much; None
            where nothing does.
        area: The retention as the mean over speed-ups from 1.5 to 6 in equal ratios; past its
            ends a curve goes on level. None for a single setting.
        curve: All settings of dev, from slow to fast.
        losses: How wrong each row is answered, at exactly the speed-ups of `exact`.
    """

    full: Point
    full_change: float
    default: Point
    drop: float
    targets: tuple[Point | None, ...]
    exact: tuple[float | None, ...]
    retained: tuple[float | None, ...]
    area: float | None
    curve: tuple[Point, ...]
    losses: tuple[Float[np.ndarray, " rows"] | None, ...]


def frontier(recording: Recording, measure: str, yardstick: Yardstick) -> Frontier:
    """Choose settings on dev and measure them on test.

    Args:
        recording: What the contender answered.
        measure: The name of a measure of doubt.
        yardstick: What it is measured by.

    Raises:
        CalibrationError: Dev has too few rows, or an answer is not finite.
        ValueError: The measure is unknown.
    """
    if recording.dev.recorded.num_exits == 1:
        return _single(recording, yardstick)
    return _Chosen(recording, measure, yardstick).frontier()


def _single(recording: Recording, yardstick: Yardstick) -> Frontier:
    """Return that of a model without students: one point."""
    metric = recording.full(recording.test)
    speedup = yardstick.test_flops / recording.full_flops(recording.test)
    only = Point(speedup, metric, metric / yardstick.metric)
    fast = yardstick.dev_flops / recording.full_flops(recording.dev)
    answers = recording.task.decide(recording.test.recorded.recorded[-1])
    losses = recording.task.losses(answers, recording.test.truth)
    mixes = [_mix(np.array([speedup]), wanted) for wanted in TARGETS]
    return Frontier(
        full=only,
        full_change=metric - yardstick.teacher,
        default=only,
        drop=0.0,
        targets=tuple(only if fast >= wanted else None for wanted in TARGETS),
        exact=tuple(None if mix is None else metric for mix in mixes),
        retained=tuple(speedup if only.retention >= share else None for share in RETAINED),
        area=None,
        curve=(only,),
        losses=tuple(None if mix is None else losses for mix in mixes),
    )


class _Chosen:
    """The settings that dev has for a contender, on test."""

    def __init__(self, recording: Recording, measure: str, yardstick: Yardstick) -> None:
        self.yardstick = yardstick
        self.task, self.metric = recording.task, recording.metric
        chosen, fitted = measure_to_calibrate(measure, recording.task)(recording.dev.recorded)
        dev, test, shape, task = recording.dev, recording.test, recording.shape, recording.task
        self.dev = Calibration(
            dev.recorded, dev.truth, dev.lengths, shape, task, chosen, fitted=fitted
        )
        self.truth = test.truth
        self.test = AnsweredRows(test.recorded, test.truth, test.lengths, shape, task, chosen)
        # From times fewer than its own full model to times fewer than the yardstick's.
        self.dev_ratio = yardstick.dev_flops / recording.full_flops(dev)
        self.test_ratio = yardstick.test_flops / recording.full_flops(test)
        self.curve = [self._on_test(point) for point in self.dev.points]

    def frontier(self) -> Frontier:
        full, default = self.curve[0], self._on_test(self.dev.solve(DEFAULT_GOAL))
        speedups = np.array([point.speedup for point in self.curve])
        metrics = np.array([point.metric for point in self.curve])
        mixes = [_mix(speedups, wanted) for wanted in TARGETS]
        return Frontier(
            full=full,
            full_change=full.metric - self.yardstick.teacher,
            default=default,
            drop=full.metric - default.metric,
            targets=tuple(self._at_least(wanted) for wanted in TARGETS),
            exact=tuple(None if mix is None else mix.of(metrics) for mix in mixes),
            retained=tuple(fastest_keeping(self.curve, share) for share in RETAINED),
            area=_area(speedups, metrics / self.yardstick.metric),
            curve=tuple(self.curve),
            losses=tuple(None if mix is None else self._losses(mix) for mix in mixes),
        )

    def _on_test(self, chosen: OperatingPoint) -> Point:
        """Return what a setting of dev gives on test."""
        point = self.test.point(np.array(chosen.thresholds, self.test.doubts.dtype))
        metric = point.metrics[self.metric.column]
        speedup = point.speedup_flops * self.test_ratio
        return Point(speedup, metric, metric / self.yardstick.metric, chosen.thresholds)

    def _at_least(self, speedup: float) -> Point | None:
        try:
            return self._on_test(self.dev.solve(Goal(min_speedup=speedup / self.dev_ratio)))
        except CalibrationError:
            return None

    def _losses(self, mix: "_Mix") -> Float[np.ndarray, " rows"]:
        """Return how wrong each row is answered where rows are shared between two settings."""
        before, after = (self._losses_at(self.curve[place]) for place in (mix.before, mix.after))
        return np.asarray((1 - mix.share) * before + mix.share * after)

    def _losses_at(self, point: Point) -> Float[np.ndarray, " rows"]:
        criterion = self.test.point(np.array(point.thresholds, self.test.doubts.dtype)).criterion
        answers = self.task.decide(self.test.recorded.replay(criterion).logits)
        return self.task.losses(answers, self.truth)


@dataclass(frozen=True)
class _Mix:
    """Two neighbours on a curve, and which share of the rows the faster one answers."""

    before: int
    after: int
    share: float

    def of(self, values: Float[np.ndarray, " points"]) -> float:
        return float((1 - self.share) * values[self.before] + self.share * values[self.after])


def _mix(speedups: Float[np.ndarray, " points"], wanted: float) -> _Mix | None:
    """Return which settings cost exactly so much together; None past the ends of the curve.

    Costs add up, speed-ups do not: a share of the rows is one of FLOPs.
    """
    for end, outside in ((0, speedups[0] >= wanted), (len(speedups) - 1, speedups[-1] <= wanted)):
        if outside and 1 / EQUAL_COST < speedups[end] / wanted < EQUAL_COST:
            return _Mix(end, end, 0.0)
    after = int(np.argmax(speedups >= wanted))
    if after == 0:  # all are slower, or all are faster
        return None
    costs, cost = 1 / speedups[[after - 1, after]], 1 / wanted
    return _Mix(after - 1, after, float((costs[0] - cost) / (costs[0] - costs[1])))


def fastest_keeping(curve: Sequence[Point], share: float) -> float | None:
    """Return the largest speed-up of those settings that keep so much; None if there is none."""
    return max((point.speedup for point in curve if point.retention >= share), default=None)


def _area(speedups: Float[np.ndarray, " points"], retention: Float[np.ndarray, " points"]) -> float:
    rising = np.log(np.maximum.accumulate(speedups))
    return float(np.interp(np.log(AREA), rising, retention).mean())
