"""Paired differences and their standard errors, by hand."""

import numpy as np
import pytest

from fastbert.calibration.paired import Difference, paired_difference


def test_what_is_hard_for_both_cancels_out() -> None:
    hard = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]])
    difference = paired_difference(hard - 0.25 * hard, hard)
    assert difference.mean == pytest.approx(0.25 * 4 / 7)
    same = paired_difference(hard, hard)
    assert (same.mean, same.error, same.is_tie) == (0.0, 0.0, True)


def test_the_error_of_one_seed_is_that_of_the_rows() -> None:
    ours, others = np.array([[0.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 1.0]])
    difference = paired_difference(ours, others)
    # Two rows better, two alike: mean 1/2, variance (4 · 1/4) / 3 of a row.
    assert difference.mean == 0.5
    assert difference.error == pytest.approx(np.sqrt(1 / 3 / 4))
    assert difference.is_tie


def test_seeds_add_their_own_variance() -> None:
    ours = np.zeros((2, 3))
    others = np.array([[0.2, 0.2, 0.2], [0.4, 0.4, 0.4]])
    difference = paired_difference(ours, others)
    assert difference.mean == pytest.approx(0.3)
    assert difference.error == pytest.approx(0.1)  # rows do not differ, seeds do by 0.2
    assert not difference.is_tie


def test_two_standard_errors_part_a_tie_from_a_difference() -> None:
    assert Difference(0.019, 0.01).is_tie
    assert Difference(-0.019, 0.01).is_tie
    assert not Difference(-0.021, 0.01).is_tie
