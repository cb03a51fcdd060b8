"""Metrics: what a set of answers is worth."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

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


def agreement(task: Task, answers: Decisions, others: Decisions) -> float:
    """Return how far answers are the same as others, such as the teacher's: one less the loss."""
    return float((1 - task.losses(answers, others)).mean())
