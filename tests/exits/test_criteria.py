"""Uncertainty is the paper's, and the threshold test is strict."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from scipy.stats import entropy

from fastbert.exits.criteria import (
    EntropyCriterion,
    ExitCriterion,
    Measure,
    Seen,
    ThresholdCriterion,
    log_softmax,
    uncertainty,
    watched_exits,
)
from tests.seen import seen

finite = st.floats(-50, 50, width=32)


def logits_of(probabilities: list[float]) -> np.ndarray:
    return np.asarray(np.log([probabilities]))


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_uncertainty_is_one_when_all_classes_are_equally_likely(classes: int) -> None:
    assert uncertainty(np.zeros((4, classes))) == pytest.approx(np.ones(4))


def test_uncertainty_is_zero_for_certain_rows_and_never_overflows() -> None:
    assert uncertainty(np.array([[1000.0, -1000.0, 0.0]])).tolist() == [0.0]


@given(arrays(np.float64, (5, 3), elements=finite))
def test_uncertainty_is_the_entropy_over_log_n(logits: np.ndarray) -> None:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert uncertainty(logits) == pytest.approx(entropy(p, axis=1) / np.log(3), abs=1e-9)


def test_uncertainty_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        uncertainty(np.zeros((4, 1)))


@pytest.mark.parametrize("speed", [-0.1, 1.1, float("nan")])
def test_a_speed_that_no_uncertainty_can_reach_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="between 0"):
        EntropyCriterion(speed)


def test_a_row_at_the_threshold_stays() -> None:
    # The authors' script let it leave, their package did not; at speed 0 nobody may leave.
    logits = logits_of([0.9, 0.1])[None]
    at = float(uncertainty(logits[-1])[0])
    assert not EntropyCriterion(at).leaves(seen(logits)).any()
    assert EntropyCriterion(np.nextafter(at, 1)).leaves(seen(logits)).all()


def test_a_certain_row_does_not_leave_at_speed_zero() -> None:
    certain = np.array([[[1000.0, 0.0]]])
    assert not EntropyCriterion(0.0).leaves(seen(certain)).any()


def test_only_the_latest_exit_decides() -> None:
    sure, unsure = logits_of([0.999, 0.001]), logits_of([0.5, 0.5])
    assert EntropyCriterion(0.5).leaves(seen(np.stack([unsure, sure]))).all()
    assert not EntropyCriterion(0.5).leaves(seen(np.stack([sure, unsure]))).any()


def test_students_are_watched_only_where_a_row_could_leave() -> None:
    assert not EntropyCriterion(0.0).watches(1)
    assert EntropyCriterion(0.01).watches(1)


@given(
    arrays(np.float32, (1, 6, 4), elements=finite),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_higher_speed_lets_every_row_go_that_a_lower_one_does(
    logits: np.ndarray, one: float, other: float
) -> None:
    slow, fast = sorted([one, other])
    assert not (
        EntropyCriterion(slow).leaves(seen(logits)) & ~EntropyCriterion(fast).leaves(seen(logits))
    ).any()


@given(arrays(np.float64, (2, 5, 3), elements=finite))
def test_log_softmax_is_scipys(logits: np.ndarray) -> None:
    assert log_softmax(logits) == pytest.approx(special.log_softmax(logits, axis=-1), abs=1e-9)


@pytest.mark.parametrize("classes", [3, 7, 77])
def test_uncertainty_never_rounds_to_more_than_one(classes: int) -> None:
    # In float32 the equal logits of 7 classes gave 1.0000001, a threshold that is then refused.
    assert uncertainty(np.zeros((4, classes), np.float32)).max() <= 1
    wavering = np.random.default_rng(0).normal(size=(3000, classes)) * 1e-3
    assert uncertainty(wavering.astype(np.float32)).max() <= 1
    assert uncertainty(wavering * 1e-4).max() <= 1


# Thresholds for each exit.


@dataclass(frozen=True)
class FirstLogit(Measure):
    """The first logit of the latest exit is the doubt; notes what it was handed."""

    handed: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        self.handed.append((logits, exit_layer))
        return np.asarray(logits[-1, :, 0])


@dataclass(frozen=True)
class FirstLogitLookingBack(FirstLogit):
    looks_back: ClassVar[bool] = True


def answers(doubts: list[list[float]]) -> np.ndarray:
    """Return logits [exits, rows, 2] whose first class is the doubt."""
    return np.stack([np.array(doubts), np.full_like(np.array(doubts), -7.0)], axis=-1)


def test_it_is_an_exit_criterion_as_any_other() -> None:
    assert isinstance(ThresholdCriterion(FirstLogit(), (0.5,)), ExitCriterion)


@pytest.mark.parametrize(
    "thresholds", [(), (-0.1,), (0.2, 1.1), (float("nan"), 0.1), (0.1, float("inf"))]
)
def test_thresholds_that_no_doubt_can_reach_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="between 0") as refused:
        ThresholdCriterion(FirstLogit(), thresholds)
    assert str(list(thresholds)) in str(refused.value)


def test_the_whole_range_of_thresholds_is_taken() -> None:
    assert ThresholdCriterion(FirstLogit(), (0.0, 1.0)).thresholds == (0.0, 1.0)


def test_a_doubt_at_the_threshold_of_the_exit_stays() -> None:
    criterion = ThresholdCriterion(FirstLogit(), (0.25, 0.5))
    at, below = 0.25, float(np.nextafter(0.25, 0))
    assert criterion.leaves(seen(answers([[at, below, 0.0]]))).tolist() == [False, True, True]


def test_each_exit_has_its_own_threshold() -> None:
    measure = FirstLogit()
    criterion = ThresholdCriterion(measure, (0.2, 0.9, 0.4))
    doubts = [[0.1, 0.3, 0.5, 0.95]] * 3
    leaving = [criterion.leaves(seen(answers(doubts[:layer]))).tolist() for layer in (1, 2, 3)]
    assert leaving == [
        [True, False, False, False],
        [True, True, True, False],
        [True, True, False, False],
    ]
    assert [exit_layer for _, exit_layer in measure.handed] == [1, 2, 3]


def test_exits_with_a_threshold_of_zero_are_skipped_in_the_history() -> None:
    # Exits 1, 3 and 4 are off, so the two answers seen are those after layers 2 and 5.
    measure = FirstLogit()
    criterion = ThresholdCriterion(measure, (0.0, 0.1, 0.0, 0.0, 0.8))
    assert watched_exits(criterion, 6) == (2, 5)
    assert criterion.leaves(seen(answers([[0.5, 0.05]]), [2])).tolist() == [False, True]
    assert criterion.leaves(seen(answers([[0.5], [0.5]]), [2, 5])).tolist() == [True]
    assert [exit_layer for _, exit_layer in measure.handed] == [2, 5]


def test_a_measure_that_looks_back_has_every_student_asked_up_to_the_last_open_exit() -> None:
    measure = FirstLogitLookingBack()
    criterion = ThresholdCriterion(measure, (0.0, 0.1, 0.0, 0.8, 0.0))
    assert watched_exits(criterion, 6) == (1, 2, 3, 4)
    history = answers([[0.0, 0.9], [0.0, 0.5], [0.0, 0.5], [0.0, 0.85]])
    leaving = [criterion.leaves(seen(history[:layer])).tolist() for layer in (1, 2, 3, 4)]
    assert leaving == [[False, False], [True, False], [False, False], [True, False]]
    assert [exit_layer for _, exit_layer in measure.handed] == [1, 2, 3, 4]


def test_the_history_goes_only_to_a_measure_that_looks_back() -> None:
    history = answers([[0.1], [0.2], [0.3]])
    for measure, expected in ((FirstLogit(), history[-1:]), (FirstLogitLookingBack(), history)):
        ThresholdCriterion(measure, (0.5, 0.5, 0.5)).leaves(seen(history))
        [(handed, exit_layer)] = measure.handed
        assert np.array_equal(handed, expected)
        assert exit_layer == 3


def test_thresholds_of_zero_watch_nothing() -> None:
    for measure in (FirstLogit(), FirstLogitLookingBack()):
        criterion = ThresholdCriterion(measure, (0.0, 0.0, 0.0))
        assert watched_exits(criterion, 4) == ()


def test_a_threshold_is_that_of_the_exit_whatever_was_seen_before_it() -> None:
    # After layer 4 alone, a count of the exits seen would take the threshold after layer 1.
    criterion = ThresholdCriterion(FirstLogit(), (0.9, 0.0, 0.0, 0.2))
    assert criterion.leaves(seen(answers([[0.1, 0.5]]), [4])).tolist() == [True, False]
    assert criterion.leaves(seen(answers([[0.1, 0.5]]), [1])).tolist() == [True, True]


# What was seen.


def test_looking_back_gives_what_each_exit_said_about_the_rows_still_running() -> None:
    logits = np.random.default_rng(3).normal(size=(3, 7, 2))
    running = [np.array([0, 1, 2, 3, 4, 5, 6]), np.array([1, 2, 4, 6]), np.array([2, 6])]
    what = Seen()
    for layer, rows, answered in zip([1, 4, 5], running, logits, strict=True):
        what = what.then(layer, rows, answered[rows])
        assert np.array_equal(what.stacked, logits[: len(what.layers), rows])
        assert np.array_equal(what.latest, answered[rows])
        assert what.exit_layer == layer
    assert what.layers == (1, 4, 5)


def test_what_an_exit_answered_is_kept_as_it_came() -> None:
    logits = np.random.default_rng(4).normal(size=(2, 5, 3))
    what = Seen().then(1, np.arange(5), logits[0])
    then = what.then(2, np.array([1, 3]), logits[1, [1, 3]])
    assert then.logits[0] is what.logits[0]
    assert what.layers == (1,)  # the earlier value has not changed
