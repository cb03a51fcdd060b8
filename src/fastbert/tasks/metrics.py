"""Metrics: what a set of answers is worth."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.tasks.task import Decisions, Metric, Task


def accuracy(answers: Int[np.ndarray, " rows"], truth: Int[np.ndarray, " rows"]) -> float:
    """Return the share of rows answered right."""
    return float((answers == truth).mean())


def macro_f1(answers: Int[np.ndarray, " rows"], truth: Int[np.ndarray, " rows"]) -> float:
    """Return what scikit-learn's macro F1 is; serving without torch does without it too."""
    classes = int(max(answers.max(), truth.max())) + 1
    right = np.bincount(truth[answers == truth], minlength=classes)
    both = np.bincount(truth, minlength=classes) + np.bincount(answers, minlength=classes)
    return float((2 * right[both > 0] / both[both > 0]).mean())


def labels_micro_f1(
    answers: Bool[np.ndarray, "rows labels"], truth: Bool[np.ndarray, "rows labels"]
) -> float:
    """Return F1 over all yes of all labels together; 1 where there is none."""
    named = int(answers.sum()) + int(truth.sum())
    return 2 * int((answers & truth).sum()) / named if named else 1.0


def labels_macro_f1(
    answers: Bool[np.ndarray, "rows labels"], truth: Bool[np.ndarray, "rows labels"]
) -> float:
    """Return the mean F1 of the labels; one that never holds nor is answered is left out."""
    named = answers.sum(axis=0) + truth.sum(axis=0)
    both = (answers & truth).sum(axis=0)
    return float((2 * both[named > 0] / named[named > 0]).mean()) if named.any() else 1.0


def rows_f1(
    answers: Bool[np.ndarray, "rows labels"], truth: Bool[np.ndarray, "rows labels"]
) -> float:
    """Return the mean F1 of the rows' sets of labels; 1 where a row has none and is told so."""
    return float((1 - lacking_f1(answers, truth)).mean())


def lacking_f1(
    answers: Bool[np.ndarray, "*rows labels"], truth: Bool[np.ndarray, "*#rows labels"]
) -> Float[np.ndarray, "*rows"]:
    """Return 1 - F1 of each row's set of labels: 0 where both sets are empty."""
    wrong = (answers != truth).sum(axis=-1)
    named = answers.sum(axis=-1) + truth.sum(axis=-1)
    return np.asarray(wrong / np.maximum(named, 1))


LABELS_MICRO_F1 = Metric("micro_f1", labels_micro_f1, is_mean=False)
LABELS_MACRO_F1 = Metric("macro_f1", labels_macro_f1, is_mean=False)
ROWS_F1 = Metric("row_f1", rows_f1, is_mean=True)
ACCURACY = Metric("accuracy", accuracy, is_mean=True)
MACRO_F1 = Metric("macro_f1", macro_f1, is_mean=False)


class Scored:
    """What has figures by the names of a task's metrics; the usual ones can be asked by name."""

    metrics: Mapping[str, float]

    @property
    def accuracy(self) -> float | None:
        """Share of rows answered right; None where it is no metric, or without labels."""
        return self.metrics.get("accuracy")

    @property
    def macro_f1(self) -> float | None:
        """F1 averaged over the classes; one that never occurs nor is answered is left out."""
        return self.metrics.get("macro_f1")


def scores(task: Task, answers: Decisions, truth: Decisions) -> dict[str, float]:
    """Return what answers are worth by each of the task's metrics, as tables name them."""
    return {metric.column: metric.score(answers, truth) for metric in task.metrics.values()}


def meant(task: Task) -> Metric:
    """Return the metric that is meant where nobody names one."""
    return next(iter(task.metrics.values()))


def mean_metric(task: Task) -> Metric:
    """Return the metric that is a mean over rows, so that it can be told of any share of them.

    Against another model's answers it is what `agreement` is.
    """
    return next(metric for metric in task.metrics.values() if metric.is_mean)


def judged_by(task: Task, *, labelled: bool) -> Metric:
    """Return by what answers are judged; where a model knows the truth, it is agreement with it."""
    return meant(task) if labelled else mean_metric(task)


def spelled(column: str) -> str:
    """Return a column's name for reading, such as macro F1."""
    return column.replace("_f1", " F1").replace("_", " ")


def headings(task: Task, *, labelled: bool) -> dict[str, str]:
    """Return the heading of each metric's column; where a model knows the truth, its agreement."""
    judged = judged_by(task, labelled=labelled)
    return {
        metric.column: "agreement" if metric is judged and not labelled else spelled(metric.column)
        for metric in task.metrics.values()
    }


def agreement(task: Task, answers: Decisions, others: Decisions) -> float:
    """Return how far answers are the same as others, such as the teacher's: one less the loss."""
    return float((1 - task.losses(answers, others)).mean())
