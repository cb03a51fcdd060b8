"""One row through a model in one call, where its runtime can judge by itself.

Between two layers the loop goes back to Python, which costs as much as a third of a small layer.
One row alone needs no packing of those that stay, so a runtime may run it on until it leaves. What
the runtime computes of doubt only says how far to go: who left, and where, is decided here, by the
criterion itself. So the answers are those of the loop, to the bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fastbert.exits.criteria import (
    EntropyCriterion,
    ExitCriterion,
    Measure,
    ThresholdCriterion,
    watched_exits,
)

RELUCTANCE = 1e-3  # share of a threshold by which a runtime waits longer, for it rounds otherwise


class RunsAlone(ABC):
    """A backend that can take one row from exit to exit in one call."""

    @property
    @abstractmethod
    def num_exits(self) -> int:
        """The number of encoder layers; the last exit is the teacher."""

    @abstractmethod
    def run_alone(
        self,
        batch: Any,
        exits: tuple[int, ...],
        measure: Measure,
        bounds: Float[np.ndarray, " students"],
    ) -> Float[np.ndarray, "passed classes"] | None:
        """Return what each exit answered up to the first whose doubt lies below its bound.

        Args:
            batch: One row.
            exits: The layers before the exits that are asked, rising, the teacher's last.
            measure: How doubtful an answer is; it does not look back.
            bounds: One for each of these exits but the teacher's.

        Returns:
            One row of logits for each exit that was passed; None where the measure cannot be
            computed there.
        """


def answer_alone(
    backend: RunsAlone, batch: Any, criterion: ExitCriterion
) -> tuple[Float[np.ndarray, "1 classes"], int] | None:
    """Return the answer about one row, and how many layers it ran.

    Args:
        backend: What runs it.
        batch: One row.
        criterion: Who may leave.

    Returns:
        None where the loop has to do it: nobody is asked but the teacher, the criterion is of
        another kind, or the runtime went no further though the criterion wants to.

    Raises:
        ValueError: The criterion has thresholds for another number of students.
    """
    rule = _as_thresholds(criterion, backend.num_exits - 1)
    if rule is None or rule.measure.looks_back:
        return None
    rule.refuse_other_depth(backend.num_exits)
    watched = watched_exits(rule, backend.num_exits)
    if not watched:
        return None
    thresholds = np.array([rule.thresholds[layer - 1] for layer in watched])
    bounds = (thresholds * (1 - RELUCTANCE)).astype(np.float32)
    exits = (*watched, backend.num_exits)
    passed = backend.run_alone(batch, exits, rule.measure, bounds)
    return None if passed is None else _first_sure(passed, exits, rule.measure, thresholds)


def _as_thresholds(criterion: ExitCriterion, students: int) -> ThresholdCriterion | None:
    """Return a criterion as a measure with a threshold for each student; None if it is none."""
    if isinstance(criterion, EntropyCriterion) and students:
        return ThresholdCriterion(criterion.entropy, (criterion.speed,) * students)
    return criterion if isinstance(criterion, ThresholdCriterion) else None


def _first_sure(
    passed: Float[np.ndarray, "passed classes"],
    exits: Sequence[int],
    measure: Measure,
    thresholds: Float[np.ndarray, " students"],
) -> tuple[Float[np.ndarray, "1 classes"], int] | None:
    """Return the answer of the first exit that is sure, else the teacher's if it was reached."""
    students = min(len(passed), len(thresholds))
    doubt = measure.doubt(passed[np.newaxis, :students], exits[students - 1])
    # In the precision of the doubt, as the criterion compares them.
    sure = np.flatnonzero(doubt < thresholds[:students].astype(doubt.dtype))
    if len(sure):
        place = int(sure[0])
    elif len(passed) == len(exits):
        place = len(passed) - 1
    else:
        return None
    return passed[place : place + 1], exits[place]
