"""Promises are kept: p-values are valid, and walking stops at the first setting that fails."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fastbert.calibration.promise import (
    PValue,
    betting,
    binomial,
    rows_needed,
    safe_steps,
)

REPETITIONS = 2000

difference = partial(betting, low=-1.0)


def ones_and_zeros(ones: int, rows: int) -> np.ndarray:
    return np.arange(rows) < ones


@pytest.mark.parametrize(("ones", "rows"), [(0, 1), (0, 59), (3, 70), (17, 200), (200, 200)])
@pytest.mark.parametrize("bound", [0.01, 0.05, 0.3])
def test_binomial_is_the_exact_tail(ones: int, rows: int, bound: float) -> None:
    losses = ones_and_zeros(ones, rows).astype(np.float64)
    p_value = binomial(losses, bound)
    assert p_value == pytest.approx(binomtest(ones, rows, bound, alternative="less").pvalue)
    assert p_value == pytest.approx(binom.cdf(ones, rows, bound))


def betting_by_hand(losses: list[float], bound: float, low: float, confidence: float) -> float:
    """The bettor of Waudby-Smith and Ramdas, row by row; each stake is set before its row."""
    bound = (bound - low) / (1 - low)
    wealth = best = 1.0
    total, squares, variance = 0.5, 0.25, 0.25
    for row, loss in enumerate(losses, start=1):
        scaled = (loss - low) / (1 - low)
        stake = min(1.0, math.sqrt(2 * math.log(1 / (1 - confidence)) / (len(losses) * variance)))
        wealth *= 1 + stake * (bound - scaled)
        best = max(best, wealth)
        total += scaled
        squares += (scaled - total / (row + 1)) ** 2
        variance = squares / (row + 1)
    return 1 / best


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize(("bound", "confidence"), [(0.02, 0.95), (0.1, 0.8), (0.5, 0.99)])
def test_betting_is_one_over_the_best_wealth_of_a_bettor(
    low: float, bound: float, confidence: float
) -> None:
    random = np.random.default_rng(0)
    for losses in (
        random.choice([low, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=150),
        random.uniform(low, 1, size=31),
        np.zeros(80),
        np.ones(12),
    ):
        expected = betting_by_hand(losses.tolist(), bound, low, confidence)
        assert betting(losses, bound, low, confidence) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [40, 150])
@pytest.mark.parametrize(
    ("values", "shares", "low"),
    [
        ([0.0, 1.0], [0.9, 0.1], 0.0),
        ([0.0, 1.0], [0.6, 0.4], 0.0),
        ([-1.0, 0.0, 1.0], [0.1, 0.75, 0.15], -1.0),
        ([-1.0, 0.0, 1.0], [0.3, 0.2, 0.5], -1.0),
        ([-1.0, 0.0, 1.0], [0.0, 0.98, 0.02], -1.0),
    ],
)
def test_a_mean_at_the_bound_is_refuted_no_more_often_than_allowed(
    values: list[float], shares: list[float], low: float, rows: int
) -> None:
    random = np.random.default_rng(1)
    bound = float(np.dot(values, shares))
    drawn = random.choice(values, p=shares, size=(REPETITIONS, rows))
    p_values = np.array([betting(losses, bound, low) for losses in drawn])
    for delta in (0.05, 0.2):
        allowed = delta + 3 * math.sqrt(delta * (1 - delta) / REPETITIONS)
        assert (p_values <= delta).mean() <= allowed


def test_the_exact_tail_is_valid_and_nearly_used_up() -> None:
    random = np.random.default_rng(2)
    drawn = (random.uniform(size=(REPETITIONS, 300)) < 0.1).astype(np.float64)
    refuted = np.mean([binomial(losses, 0.1) <= 0.1 for losses in drawn])
    assert 0.05 < refuted <= 0.1 + 3 * math.sqrt(0.09 / REPETITIONS)


@pytest.mark.parametrize("p_value", [binomial, betting, difference])
def test_a_clearly_smaller_mean_is_refuted_and_a_larger_one_never_looks_small(
    p_value: PValue,
) -> None:
    random = np.random.default_rng(3)
    few = (random.uniform(size=1500) < 0.01).astype(np.float64)
    many = (random.uniform(size=1500) < 0.2).astype(np.float64)
    assert p_value(few, 0.1) < 1e-4
    assert p_value(many, 0.1) > 0.3
    assert 0 < p_value(many, 0.1) <= 1


def test_answers_that_got_better_weigh_against_those_that_got_worse() -> None:
    # 6% got worse and 6% better: no loss on average, which betting sees and counting harm cannot.
    random = np.random.default_rng(4)
    losses = random.choice([-1.0, 0.0, 1.0], p=[0.06, 0.88, 0.06], size=2000)
    assert difference(losses, 0.05) < 0.05
    assert binomial(np.maximum(losses, 0), 0.05) > 0.5


def losses_with(rates: list[float], rows: int = 200) -> Iterator[np.ndarray]:
    for rate in rates:
        yield ones_and_zeros(round(rate * rows), rows).astype(np.float64)


def test_walking_stops_at_the_first_setting_that_fails_and_looks_at_no_other() -> None:
    def settings() -> Iterator[np.ndarray]:
        yield from losses_with([0.0, 0.01, 0.02, 0.2])
        pytest.fail("a setting behind the first failure was looked at")

    assert safe_steps(settings(), 0.1, 0.05, binomial) == 3


def test_a_safe_setting_behind_an_unsafe_one_does_not_count() -> None:
    assert safe_steps(losses_with([0.0, 0.2, 0.0, 0.0]), 0.1, 0.05, binomial) == 1
    assert safe_steps(losses_with([0.2, 0.0]), 0.1, 0.05, binomial) == 0
    assert safe_steps(losses_with([]), 0.1, 0.05, binomial) == 0


def test_all_settings_may_be_safe() -> None:
    assert safe_steps(losses_with([0.0] * 7), 0.1, 0.05, binomial) == 7


def test_a_setting_passes_at_the_error_probability_itself() -> None:
    losses = ones_and_zeros(3, 70).astype(np.float64)
    at = float(binom.cdf(3, 70, 0.1))
    assert safe_steps([losses], 0.1, at * 1.000001, binomial) == 1
    assert safe_steps([losses], 0.1, at * 0.999999, binomial) == 0


@pytest.mark.parametrize("p_value", [binomial, betting, difference])
@pytest.mark.parametrize(("bound", "delta"), [(0.005, 0.05), (0.01, 0.1), (0.03, 0.01), (0.4, 0.2)])
def test_the_rows_needed_are_enough_and_one_fewer_is_not(
    p_value: PValue, bound: float, delta: float
) -> None:
    rows = rows_needed(bound, delta, p_value)
    assert p_value(np.zeros(rows), bound) <= delta
    assert p_value(np.zeros(rows - 1), bound) > delta


def test_rows_needed_for_counting_follow_from_the_rule_of_three() -> None:
    # (1 - bound)^rows <= delta; 3 / bound is its well-known estimate at 95%.
    assert rows_needed(0.01, 0.05, binomial) == math.ceil(math.log(0.05) / math.log(0.99)) == 299
    assert rows_needed(0.9, 0.2, binomial) == 1
