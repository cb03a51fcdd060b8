"""The figures of an epoch, against brute force over thresholds."""

import numpy as np
import pytest

from fastbert.exits.criteria import ThresholdCriterion
from fastbert.exits.measures import MaxProbability
from fastbert.exits.recorded import RecordedExits
from fastbert.tasks.single_label import SingleLabel
from fastbert.training.judging import area, judged

EXITS, ROWS, CLASSES = 6, 50, 3
TASK = SingleLabel(("a", "b", "c"))
RANDOM = np.random.default_rng(4)
TRUTH = RANDOM.integers(CLASSES, size=ROWS)


def recorded(skill: float = 0.6) -> RecordedExits:
    """Return exits that know more, the deeper they are."""
    right = np.eye(CLASSES)[TRUTH] * skill * np.arange(1, EXITS + 1)[:, None, None]
    noise = np.random.default_rng(7).normal(size=(EXITS, ROWS, CLASSES))
    return RecordedExits(right + noise)


def test_the_area_is_the_mean_of_the_curve_that_one_threshold_draws() -> None:
    exits, curve = recorded(), {}
    for threshold in np.linspace(0, 1, 4_001):
        criterion = ThresholdCriterion(MaxProbability(), (float(threshold),) * (EXITS - 1))
        answered = exits.replay(criterion)
        accuracy = (answered.logits.argmax(-1) == TRUTH).mean()
        curve[answered.exit_layer.mean()] = accuracy
    layers = np.array(sorted(curve))
    wanted = EXITS / np.geomspace(1.5, 6, 16)
    expected = np.interp(wanted, layers, [curve[mean] for mean in layers]).mean()
    assert area(TASK, exits, TRUTH) == pytest.approx(expected, abs=0.01)


def test_the_area_grows_with_what_the_exits_know() -> None:
    areas = [area(TASK, recorded(skill), TRUTH) for skill in (0.0, 0.3, 0.6, 9.0)]
    assert areas == sorted(areas)
    assert areas[-1] == 1.0


def test_the_teacher_alone_has_its_metric() -> None:
    one = RecordedExits(recorded().recorded[-1:])
    accuracy = (one.recorded[0].argmax(-1) == TRUTH).mean()
    assert judged(TASK, one, TRUTH) == {"accuracy": pytest.approx(accuracy)}


def test_full_is_the_metric_of_the_last_exit() -> None:
    exits = recorded()
    figures = judged(TASK, exits, TRUTH)
    assert figures.keys() == {"accuracy", "full", "agreement", "mean_exit_layer", "area"}
    assert figures["full"] == pytest.approx((exits.recorded[-1].argmax(-1) == TRUTH).mean())
    assert figures["area"] == area(TASK, exits, TRUTH)


def test_without_labels_a_fixed_teacher_is_right_and_without_one_the_last_exit() -> None:
    exits = recorded()
    taught = judged(TASK, exits, None, TRUTH)
    assert taught.keys() == {"full", "agreement", "mean_exit_layer", "area"}
    assert taught["full"] == judged(TASK, exits, TRUTH)["full"]
    alone = judged(TASK, exits, None)
    assert alone.keys() == {"agreement", "mean_exit_layer", "area"}
    assert alone["area"] == area(TASK, exits, exits.recorded[-1].argmax(-1))
