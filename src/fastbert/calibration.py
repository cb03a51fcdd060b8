"""Recorded exits: the answers of all exits on held-out rows, from which any speed is replayed.

Recording runs the model once. Replaying goes through the same loop and the same criterion as
serving, so what is chosen here is what happens there.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fastbert.criteria import EntropyCriterion, ExitCriterion
from fastbert.engine import ExitResult, classify

SPEEDS = tuple(round(step / 100, 2) for step in range(101))


@dataclass(frozen=True)
class ReplayState:
    """Which recorded rows are still running, and the exit they reached."""

    exit_layer: int
    rows: Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class RecordedExits:
    """The logits of every exit for every row: an exit backend that computes nothing."""

    recorded: Float[np.ndarray, "exits rows classes"]

    @property
    def num_exits(self) -> int:
        """The number of exits recorded."""
        return len(self.recorded)

    @property
    def num_rows(self) -> int:
        """The number of rows recorded."""
        return int(self.recorded.shape[1])

    def start(self, batch: Int[np.ndarray, " rows"]) -> ReplayState:
        """Begin with the named rows."""
        return ReplayState(0, batch)

    def advance(
        self, state: ReplayState, exit_layer: int
    ) -> tuple[ReplayState, Float[np.ndarray, "rows classes"]]:
        """Go to an exit and return what it answered."""
        logits = np.asarray(self.recorded[exit_layer - 1, state.rows])
        return ReplayState(exit_layer, state.rows), logits

    def keep(self, state: ReplayState, rows: Int[np.ndarray, " rows"]) -> ReplayState:
        """Drop the other rows."""
        return ReplayState(state.exit_layer, state.rows[rows])

    def replay(self, criterion: ExitCriterion) -> ExitResult:
        """Return what the rows would have been answered, and where."""
        return classify(self, np.arange(self.num_rows), criterion)


@dataclass(frozen=True)
class SpeedPoint:
    """What one speed gives on labelled rows.

    Args:
        speed: The threshold.
        accuracy: Share of rows answered right.
        mean_exit_layer: Encoder layers that a row runs on average.
    """

    speed: float
    accuracy: float
    mean_exit_layer: float


def speed_curve(
    recorded: RecordedExits, labels: Int[np.ndarray, " rows"], speeds: tuple[float, ...] = SPEEDS
) -> list[SpeedPoint]:
    """Replay each speed on labelled rows."""
    points = []
    for speed in speeds:
        result = recorded.replay(EntropyCriterion(speed))
        right = result.logits.argmax(axis=-1) == labels
        points.append(SpeedPoint(speed, float(right.mean()), float(result.exit_layer.mean())))
    return points


def choose_speed(curve: list[SpeedPoint], max_drop: float = 0.005) -> float:
    """Return the speed with the fewest layers that loses at most `max_drop` against speed 0.

    Args:
        curve: Operating points on held-out rows, speed 0 among them.
        max_drop: How much accuracy may be lost, as a share of the rows.
    """
    full = next(point.accuracy for point in curve if point.speed == 0)
    good = [point for point in curve if point.accuracy >= full - max_drop - 1e-9]
    return min(good, key=lambda point: (point.mean_exit_layer, point.speed)).speed
