"""One row in one call: how far it ran is the runtime's word, where it left is the criterion's."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fastbert.exits.alone import RunsAlone, answer_alone
from fastbert.exits.criteria import (
    Entropy,
    EntropyCriterion,
    ExitCriterion,
    Measure,
    Seen,
    ThresholdCriterion,
)
from fastbert.exits.measures import MaxProbability, Patience

EXITS, CLASSES = 5, 3
# The doubt falls from exit to exit: max-probability from 0.96 to 0.0015.
LOGITS = np.array([[0.1 * 4**layer, 0, -0.2] for layer in range(EXITS)], np.float32)
DOUBTS = MaxProbability().doubt(LOGITS[np.newaxis], 1)


@dataclass
class Rounding(RunsAlone):
    """Runs on as long as its own doubt, which errs by a factor, is not below the bound."""

    error: float = 1.0
    knows: type[Measure] | None = MaxProbability
    asked: list[Any] = field(default_factory=list)

    @property
    def num_exits(self) -> int:
        return EXITS

    def run_alone(
        self, batch: Any, exits: tuple[int, ...], measure: Measure, bounds: np.ndarray
    ) -> np.ndarray | None:
        self.asked.append((exits, bounds))
        if self.knows is None or not isinstance(measure, self.knows):
            return None
        logits = LOGITS[np.array(exits) - 1]
        doubt = measure.doubt(logits[np.newaxis], 1)[:-1] * self.error
        sure = np.flatnonzero(doubt < bounds)
        return np.asarray(logits[: 1 + (sure[0] if len(sure) else len(bounds))])


def criterion(*thresholds: float) -> ThresholdCriterion:
    return ThresholdCriterion(MaxProbability(), thresholds)


def test_the_row_leaves_at_the_first_exit_that_is_sure_enough() -> None:
    for layer in range(1, EXITS):
        thresholds = [1e-9] * (EXITS - 1)
        thresholds[layer - 1] = float(DOUBTS[layer - 1]) * 1.01
        answered = answer_alone(Rounding(), "row", criterion(*thresholds))
        assert answered is not None
        np.testing.assert_array_equal(answered[0], LOGITS[layer - 1 : layer])
        assert answered[1] == layer


def test_the_teacher_answers_who_goes_on_to_the_end() -> None:
    answered = answer_alone(Rounding(), "row", criterion(1e-9, 1e-9, 0.0, 1e-9))
    assert answered is not None
    np.testing.assert_array_equal(answered[0], LOGITS[-1:])
    assert answered[1] == EXITS


def test_only_watched_exits_are_asked_and_their_bounds_are_a_little_lower() -> None:
    backend = Rounding()
    answer_alone(backend, "row", criterion(0.0, 0.5, 0.0, 0.25))
    [(exits, bounds)] = backend.asked
    assert exits == (2, 4, EXITS)
    assert bounds.dtype == np.float32
    assert ((0.998 * np.array([0.5, 0.25]) < bounds) & (bounds < [0.5, 0.25])).all()


def test_a_runtime_that_went_too_far_answers_from_where_the_row_left() -> None:
    hesitating = Rounding(error=1.5)
    answered = answer_alone(hesitating, "row", criterion(1e-9, float(DOUBTS[1]) * 1.01, 0.9, 0.9))
    assert answered is not None
    assert answered[1] == 2
    np.testing.assert_array_equal(answered[0], LOGITS[1:2])


def test_a_runtime_that_stopped_too_early_leaves_the_row_to_the_loop() -> None:
    rash = Rounding(error=0.5)
    assert answer_alone(rash, "row", criterion(1e-9, float(DOUBTS[1]) * 0.9, 1e-9, 1e-9)) is None


def test_at_the_threshold_itself_nobody_leaves_as_in_the_loop() -> None:
    exact = float(DOUBTS[2])
    answered = answer_alone(Rounding(), "row", criterion(1e-9, 1e-9, exact, 1e-9))
    assert answered is not None
    assert answered[1] == EXITS
    above = float(np.nextafter(np.float32(exact), np.float32(1)))
    answered = answer_alone(Rounding(), "row", criterion(1e-9, 1e-9, above, 1e-9))
    assert answered is not None
    assert answered[1] == 3


def test_the_papers_speed_is_one_threshold_of_entropy() -> None:
    backend = Rounding(knows=Entropy)
    speed = float(Entropy().doubt(LOGITS[np.newaxis], 1)[3]) * 1.01
    answered = answer_alone(backend, "row", EntropyCriterion(speed))
    assert answered is not None
    assert answered[1] == 4
    [(exits, bounds)] = backend.asked
    assert exits == (1, 2, 3, 4, 5)
    np.testing.assert_allclose(bounds, speed, rtol=2e-3)


class Own:
    """A rule of somebody's own."""

    def watches(self, exit_layer: int) -> bool:
        return True

    def leaves(self, seen: Seen) -> np.ndarray:
        return np.ones(len(seen.latest), bool)


@pytest.mark.parametrize(
    "rule",
    [
        Own(),
        EntropyCriterion(0.0),
        criterion(0.0, 0.0, 0.0, 0.0),
        ThresholdCriterion(Patience(), (0.5,) * 4),
    ],
    ids=["own", "speed 0", "nobody asked", "looks back"],
)
def test_what_the_loop_does_is_left_to_it_unasked(rule: ExitCriterion) -> None:
    backend = Rounding(knows=None)
    assert answer_alone(backend, "row", rule) is None
    assert not backend.asked


def test_a_measure_that_the_runtime_cannot_compute_is_left_to_the_loop() -> None:
    assert answer_alone(Rounding(knows=Entropy), "row", criterion(0.5, 0.5, 0.5, 0.5)) is None


def test_thresholds_of_another_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each of the 4 students"):
        answer_alone(Rounding(), "row", criterion(0.5, 0.5))
