"""Metrics are scikit-learn's, and those that call themselves means are means of losses."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fastbert.tasks.metrics import (
    accuracy,
    agreement,
    labels_macro_f1,
    labels_micro_f1,
    macro_f1,
    rows_f1,
    scores,
)
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel

TASK = SingleLabel(("a", "b", "c", "d"))
random = np.random.default_rng(5)
TRUTH, ANSWERS = random.integers(4, size=60), random.integers(4, size=60)


def test_accuracy_and_macro_f1_are_scikit_learns() -> None:
    assert accuracy(ANSWERS, TRUTH) == pytest.approx(accuracy_score(TRUTH, ANSWERS))
    assert macro_f1(ANSWERS, TRUTH) == pytest.approx(f1_score(TRUTH, ANSWERS, average="macro"))


def test_a_class_that_occurs_on_one_side_only_counts_and_one_on_neither_does_not() -> None:
    truth, answers = np.array([0, 0, 1, 3]), np.array([0, 5, 1, 1])
    expected = f1_score(truth, answers, average="macro")
    assert macro_f1(answers, truth) == pytest.approx(expected)
    assert macro_f1(truth, truth) == 1


def test_scores_go_by_the_names_of_tables() -> None:
    assert scores(TASK, ANSWERS, TRUTH) == {
        "accuracy": accuracy(ANSWERS, TRUTH),
        "macro_f1": macro_f1(ANSWERS, TRUTH),
    }


def test_agreement_is_the_share_of_answers_that_are_the_same() -> None:
    assert agreement(TASK, ANSWERS, TRUTH) == pytest.approx((ANSWERS == TRUTH).mean())
    assert agreement(TASK, ANSWERS, ANSWERS) == 1


@pytest.mark.parametrize("name", TASK.metrics)
def test_only_a_metric_that_is_one_less_the_mean_loss_calls_itself_a_mean(name: str) -> None:
    metric = TASK.metrics[name]
    mean = 1 - TASK.losses(ANSWERS, TRUTH).mean()
    assert (metric.score(ANSWERS, TRUTH) == pytest.approx(mean)) == metric.is_mean


# Several labels.

SEVERAL = MultiLabel(("a", "b", "c"))
HELD, NAMED = random.random((2, 40, 3)) < 0.4


def test_f1_of_several_labels_is_scikit_learns() -> None:
    assert labels_micro_f1(NAMED, HELD) == pytest.approx(f1_score(HELD, NAMED, average="micro"))
    assert labels_macro_f1(NAMED, HELD) == pytest.approx(f1_score(HELD, NAMED, average="macro"))
    by_rows = f1_score(HELD, NAMED, average="samples", zero_division=1)
    assert rows_f1(NAMED, HELD) == pytest.approx(by_rows)


def test_a_label_that_never_holds_nor_is_named_is_left_out() -> None:
    held, named = HELD.copy(), NAMED.copy()
    held[:, 1] = named[:, 1] = False
    rest = f1_score(held[:, [0, 2]], named[:, [0, 2]], average="macro")
    assert labels_macro_f1(named, held) == pytest.approx(rest)
    nothing = np.zeros((5, 3), bool)
    for metric in SEVERAL.metrics.values():
        assert metric.score(nothing, nothing) == 1


@pytest.mark.parametrize("name", SEVERAL.metrics)
def test_of_several_labels_too_a_mean_is_one_less_the_mean_loss(name: str) -> None:
    metric = SEVERAL.metrics[name]
    mean = 1 - SEVERAL.losses(NAMED, HELD).mean()
    assert (metric.score(NAMED, HELD) == pytest.approx(mean)) == metric.is_mean
