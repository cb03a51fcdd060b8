"""Fitting the learned exit: a logistic regression for each student, on recorded answers."""

import numpy as np
from jaxtyping import Bool
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbert.exits.measures import NUM_FEATURES, LearnedExit, exit_features
from fastbert.exits.recorded import RecordedExits
from fastbert.tasks.task import Task

STRENGTH = 0.1  # scikit-learn's C: a few hundred rows have to suffice
NEVER_WRONG = -8.0  # the log-odds where no row was


def fit_learned_exit(recorded: RecordedExits, task: Task) -> LearnedExit:
    """Fit the probability that a student will not say what the teacher says.

    The teacher's answers serve in place of labels, as when thresholds are drawn: they are the same
    in all but a few rows, and always there.

    Args:
        recorded: The answers of all exits.
        task: What is answered.
    """
    logits = recorded.recorded
    answers = task.decide(logits)
    return LearnedExit(
        tuple(
            _weights(
                exit_features(logits[: student + 1]), task.losses(answers[student], answers[-1]) > 0
            )
            for student in range(len(logits) - 1)
        )
    )


def _weights(features: np.ndarray, wrong: Bool[np.ndarray, " rows"]) -> tuple[float, ...]:
    """Return a weight for each feature and the intercept."""
    if wrong.all() or not wrong.any():
        return (*[0.0] * NUM_FEATURES, -NEVER_WRONG if wrong.any() else NEVER_WRONG)
    scaler, regression = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH)).fit(
        features.astype(np.float64), wrong
    )[:]
    weights = regression.coef_[0] / scaler.scale_
    intercept = regression.intercept_[0] - weights @ scaler.mean_
    return (*weights.tolist(), float(intercept))
