"""Metrics: what a set of answers is worth."""

import numpy as np
from jaxtyping import Int

from fastbert.tasks.task import Metric


def accuracy(answers: Int[np.ndarray, " rows"], truth: Int[np.ndarray, " rows"]) -> float:
    """Return the share of rows answered right."""
    return float((answers == truth).mean())


def macro_f1(answers: Int[np.ndarray, " rows"], truth: Int[np.ndarray, " rows"]) -> float:
    """Return what scikit-learn's macro F1 is; serving without torch does without it too."""
    classes = int(max(answers.max(), truth.max())) + 1
    right = np.bincount(truth[answers == truth], minlength=classes)
    both = np.bincount(truth, minlength=classes) + np.bincount(answers, minlength=classes)
    return float((2 * right[both > 0] / both[both > 0]).mean())


ACCURACY = Metric(accuracy, is_mean=True)
MACRO_F1 = Metric(macro_f1, is_mean=False)
