"""Recorded exits: the answers of all exits on held-out rows, from which any speed is replayed.

Recording runs the model once. Replaying goes through the same loop and the same criterion as
serving, so what is chosen here is what happens there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.criteria import ExitCriterion, Measure
from fastbert.exits.engine import ExitResult, classify


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

    def merge(self, states: Sequence[ReplayState]) -> ReplayState:
        """Put rows one after another."""
        return ReplayState(states[0].exit_layer, np.concatenate([state.rows for state in states]))

    def replay(self, criterion: ExitCriterion) -> ExitResult:
        """Return what the rows would have been answered, and where."""
        return classify(self, np.arange(self.num_rows), criterion)


def doubts_of(measure: Measure, recorded: RecordedExits) -> Float[np.ndarray, "students rows"]:
    """Return a measure's doubt about what each student answered."""
    logits = recorded.recorded
    doubts = []
    for exit_layer in range(1, len(logits)):
        first = 0 if measure.looks_back else exit_layer - 1
        doubts.append(measure.doubt(logits[first:exit_layer], exit_layer))
    return np.stack(doubts)
