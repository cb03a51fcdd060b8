"""A goal is exactly one thing that is asked for, with values that can be meant."""

from typing import Any, get_args

import pytest

from fastbert.calibration.goal import AGREEMENT, NO_MEANS, Goal, Metric
from fastbert.tasks.known import TASKS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of max_drop, .*; got none"),
        ({"metric": "f1"}, "got none"),
        ({"max_drop": 0.01, "saving": 0.5}, "got max_drop and saving"),
        ({"min_speedup": 2.0, "latency_ms": 3.0}, "got min_speedup and latency_ms"),
        ({"saving": 0.5, "metric": "accuracy"}, "metric goes with max_drop, not with saving"),
        ({"min_speedup": 2.0, "confidence": 0.9}, "confidence goes with max_drop"),
        ({"max_drop": 0.01, "metric": "f1", "confidence": 0.9}, "f1 is no mean"),
        ({"max_drop": -0.01}, "max_drop must lie between 0 and 1"),
        ({"max_drop": 1.5}, "max_drop must lie between 0 and 1.*1.5"),
        ({"max_drop": float("nan")}, "max_drop must lie"),
        ({"saving": 1.01}, "saving must lie between 0 and 1"),
        ({"min_speedup": -1.0}, "min_speedup must lie"),
        ({"max_mean_layers": -2.0}, "max_mean_layers must lie"),
        ({"max_flops": float("nan")}, "max_flops must lie"),
        ({"latency_ms": -0.1}, "latency_ms must lie"),
        ({"max_drop": 0.01, "confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"max_drop": 0.01, "confidence": 0.0}, "confidence must lie between 0 and 1"),
        ({"max_drop": 0.01, "confidence": 1.1}, "confidence must lie between 0 and 1"),
        ({"max_drop": 0.0, "confidence": 0.9}, "max_drop be more than 0"),
    ],
)
def test_what_is_no_goal_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Goal(**options)


def test_a_goal_says_what_it_asks_for() -> None:
    assert Goal(max_drop=0.0).aim == ("max_drop", 0.0)
    assert Goal(max_drop=0.01, metric="agreement", confidence=0.9).aim == ("max_drop", 0.01)
    assert Goal(latency_ms=2.5).aim == ("latency_ms", 2.5)


def test_goals_know_the_metrics_of_all_tasks_and_which_are_no_means() -> None:
    metrics = {
        name: metric.is_mean
        for task in TASKS.values()
        for name, metric in task(("x", "y")).metrics.items()
    }
    assert {*metrics, AGREEMENT} == set(get_args(Metric))
    assert {name for name, is_mean in metrics.items() if not is_mean} == set(NO_MEANS)
