"""Uncertainty is the paper's, and the threshold test is strict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from fastbert.criteria import EntropyCriterion, uncertainty

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
    assert not EntropyCriterion(at).leaves(logits).any()
    assert EntropyCriterion(np.nextafter(at, 1)).leaves(logits).all()


def test_a_certain_row_does_not_leave_at_speed_zero() -> None:
    certain = np.array([[[1000.0, 0.0]]])
    assert not EntropyCriterion(0.0).leaves(certain).any()


def test_only_the_latest_exit_decides() -> None:
    sure, unsure = logits_of([0.999, 0.001]), logits_of([0.5, 0.5])
    assert EntropyCriterion(0.5).leaves(np.stack([unsure, sure])).all()
    assert not EntropyCriterion(0.5).leaves(np.stack([sure, unsure])).any()


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
        EntropyCriterion(slow).leaves(logits) & ~EntropyCriterion(fast).leaves(logits)
    ).any()
