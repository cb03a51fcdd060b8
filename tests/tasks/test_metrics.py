"""Metrics are scikit-learn's, and those that call themselves means are means of losses."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fastbert.tasks.metrics import accuracy, agreement, macro_f1, scores
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
