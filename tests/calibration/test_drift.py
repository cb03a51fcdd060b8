"""Drift: silent where nothing has changed, and the right figures where something has."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, hypergeom

from fastbert.calibration.drift import ALARM, Drift, compare
from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion
from fastbert.exits.measures import Patience
from fastbert.exits.recorded import RecordedExits
from fastbert.tasks.single_label import SingleLabel

EXITS, CLASSES = 4, 3
TASK = SingleLabel(tuple("abcdefgh"[:CLASSES]))
SPEED = EntropyCriterion(0.5)


def leaving(layers: Any, disagreeing: Any = ()) -> RecordedExits:
    """Return rows that are certain from a given layer on; the named ones of another answer."""
    layers = np.asarray(layers)
    logits = np.zeros((EXITS, len(layers), CLASSES), np.float32)
    certain = np.arange(1, EXITS + 1)[:, None] >= layers
    logits[..., 2] = 9 * certain
    for row in disagreeing:
        logits[:-1, row] = logits[:-1, row][:, ::-1]  # class 0 in place of class 2
    return RecordedExits(logits)


def of_counts(*counts: int) -> RecordedExits:
    """Return so many rows leaving after layer 1, 2, …"""
    return leaving(np.repeat(np.arange(1, EXITS + 1), counts))


def by_hand(table: list[list[int]]) -> float:
    """Return Pearson's p-value without scipy's contingency tables."""
    counts = np.array(table, float)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    assert expected.min() >= 5
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.shape[1] - 1))


# The figures.


def test_the_figures_are_those_of_the_rows() -> None:
    before = leaving([1, 1, 2, 4, 4], disagreeing=[0])
    now = leaving([1, 3, 3], disagreeing=[0, 1])
    drift = compare(before, now, SPEED, TASK)
    assert drift.mean_exit_layer == pytest.approx((12 / 5, 7 / 3))
    assert drift.agreement == pytest.approx((4 / 5, 1 / 3))


@pytest.mark.parametrize(
    ("before", "now", "merged"),
    [
        ((90, 60, 30, 20), (30, 30, 20, 20), [[90, 60, 30, 20], [30, 30, 20, 20]]),
        # A rare exit goes with the next one, rare last ones with the one before them.
        ((120, 2, 40, 38), (30, 1, 40, 29), [[120, 42, 38], [30, 41, 29]]),
        ((120, 40, 38, 2), (30, 40, 29, 1), [[120, 40, 40], [30, 40, 30]]),
        ((0, 100, 0, 100), (0, 25, 1, 24), [[0 + 100, 100], [25, 25]]),
    ],
)
def test_p_of_the_exits_is_pearsons_over_exits_that_are_not_rare(
    before: tuple[int, ...], now: tuple[int, ...], merged: list[list[int]]
) -> None:
    p = compare(of_counts(*before), of_counts(*now), SPEED, TASK).p_exits
    if len(merged[0]) > 2:
        assert p == pytest.approx(by_hand(merged), rel=1e-9)
    else:  # of two columns Yates' correction is taken off, which can only make p larger
        assert by_hand(merged) <= p <= 1


def test_p_of_the_agreement_is_fishers() -> None:
    before = leaving([1] * 40, disagreeing=range(4))
    now = leaving([1] * 25, disagreeing=range(9))
    # All tables of these margins that are no likelier than this one.
    likely = hypergeom(65, 13, 25).pmf(np.arange(14))
    expected = likely[likely <= likely[9] * (1 + 1e-9)].sum()
    assert compare(before, now, SPEED, TASK).p_agreement == pytest.approx(expected, rel=1e-6)


def test_identical_rows_are_no_drift() -> None:
    rows = leaving([1, 2, 3, 4] * 30, disagreeing=range(0, 120, 7))
    drift = compare(rows, rows, SPEED, TASK)
    assert [drift.p_exits, drift.p_agreement] == pytest.approx([1.0, 1.0])
    assert drift.warnings() == []


def test_rows_that_all_leave_at_one_exit_are_no_drift() -> None:
    for layer in (1, EXITS):
        drift = compare(leaving([layer] * 300), leaving([layer] * 200), SPEED, TASK)
        assert (drift.p_exits, drift.p_agreement) == (1.0, 1.0)


def test_a_criterion_that_looks_back_is_replayed_as_it_is_served() -> None:
    rows = leaving([1] * 60 + [2] * 60)
    patience = ThresholdCriterion(Patience(), (0.6, 0.6, 0.6))
    drift = compare(rows, leaving([2] * 60), patience, TASK)
    assert drift.mean_exit_layer == pytest.approx((2.5, 3.0))  # patience 2 waits for two answers


# Warnings.


def test_a_few_rows_cannot_say_anything() -> None:
    drift = compare(of_counts(50, 50, 50, 50), leaving([4, 4]), SPEED, TASK)
    assert drift.warnings() == []
    assert compare(of_counts(50, 50, 50, 50), leaving([4]), SPEED, TASK).p_exits == 1.0


def test_other_exits_are_a_warning_with_both_means() -> None:
    drift = compare(of_counts(100, 100, 0, 0), of_counts(0, 0, 60, 20), SPEED, TASK)
    line = only(drift)
    assert line.startswith("the texts leave at other layers than the calibration's: 3.25 on avera")
    assert "3.25 on average, 1.50 there (p = " in line
    assert f"p = {drift.p_exits:.1g}" in line


def test_other_answers_are_a_warning_with_both_shares() -> None:
    before = leaving([1, 2] * 100, disagreeing=range(3))
    now = leaving([1, 2] * 40, disagreeing=range(20))
    drift = compare(before, now, SPEED, TASK)
    assert only(drift).startswith(
        "answers agree with the full model's in 75.0% of the texts, in 98.5% of the calibration's "
    )


def test_both_signs_are_two_warnings() -> None:
    drift = compare(of_counts(300, 0, 0, 0), leaving([3] * 200, disagreeing=range(60)), SPEED, TASK)
    assert len(drift.warnings()) == 2


def test_the_alarm_is_at_its_level() -> None:
    assert Drift((1.0, 2.0), (1.0, 1.0), ALARM, 1.0).warnings() == []
    assert len(Drift((1.0, 2.0), (1.0, 1.0), ALARM / 2, 1.0).warnings()) == 1
    assert len(Drift((1.0, 2.0), (1.0, 0.5), 1.0, ALARM / 2).warnings()) == 1


def only(drift: Drift) -> str:
    [line] = drift.warnings()
    return line


def test_without_a_change_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(5)
    trials = 300

    def sample(rows: int) -> RecordedExits:
        layers = random.choice(np.arange(1, EXITS + 1), size=rows, p=[0.55, 0.3, 0.1, 0.05])
        return leaving(layers, disagreeing=np.flatnonzero(random.random(rows) < 0.06))

    drifts = [compare(sample(400), sample(250), SPEED, TASK) for _ in range(trials)]
    exits = np.array([drift.p_exits for drift in drifts])
    agreement = np.array([drift.p_agreement for drift in drifts])
    for p_values in (exits, agreement):
        assert (p_values < ALARM).sum() <= 2  # 0.3 are expected
        for level in (0.05, 0.2, 0.5):
            noise = 3 * np.sqrt(level * (1 - level) / trials)
            assert (p_values <= level).mean() <= level + noise
    assert (exits < 0.2).mean() > 0.1  # and the test is not deaf: these p-values are uniform
