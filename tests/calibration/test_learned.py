"""The learned exit knows better than chance where a student will not say what the teacher says."""

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbert.calibration.learned import NEVER_WRONG, STRENGTH, fit_learned_exit
from fastbert.exits.criteria import ThresholdCriterion
from fastbert.exits.measures import (
    NUM_FEATURES,
    LearnedExit,
    exit_features,
    measure_from_json,
    measure_to_json,
)
from fastbert.exits.recorded import RecordedExits, doubts_of
from fastbert.tasks.single_label import SingleLabel

EXITS, CLASSES = 4, 3
TASK = SingleLabel(("no", "perhaps", "yes"))


def simulated(seed: int, rows: int) -> RecordedExits:
    """Return exits that know more the deeper they are; some rows are harder than others."""
    random = np.random.default_rng(seed)
    truth = random.integers(CLASSES, size=rows)
    hard = random.exponential(size=(rows, 1))
    skill = np.linspace(0.7, 2.2, EXITS)[:, None, None] * np.eye(CLASSES)[truth]
    noise = 0.6 * hard * random.normal(size=(EXITS, rows, CLASSES))
    return RecordedExits((3 * (skill + noise)).astype(np.float32))


def disagreeing(recorded: RecordedExits) -> np.ndarray:
    answers = recorded.recorded.argmax(axis=-1)
    return np.asarray(answers[:-1] != answers[-1])  # [students, rows]


def test_doubt_rises_with_the_rate_of_disagreement_on_rows_it_has_not_seen() -> None:
    fitted = fit_learned_exit(simulated(seed=0, rows=600), TASK)
    unseen = simulated(seed=1, rows=3_000)
    for doubt, wrong in zip(doubts_of(fitted, unseen), disagreeing(unseen), strict=True):
        assert roc_auc_score(wrong, doubt) > 0.75
        few, some, many = (wrong[rows].mean() for rows in np.array_split(np.argsort(doubt), 3))
        assert few < some < many
        assert doubt.mean() == pytest.approx(wrong.mean(), abs=0.06)  # and it is a probability


def test_each_student_has_the_regression_that_scikit_learn_would_fit() -> None:
    rows = simulated(seed=2, rows=300)
    fitted = fit_learned_exit(rows, TASK)
    assert len(fitted.weights) == EXITS - 1
    for student, wrong in enumerate(disagreeing(rows)):
        features = exit_features(rows.recorded[: student + 1]).astype(np.float64)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH))
        expected = pipeline.fit(features, wrong).predict_proba(features)[:, 1]
        doubt = fitted.doubt(rows.recorded[: student + 1], student + 1)
        assert doubt == pytest.approx(expected, abs=1e-4)


def test_the_first_exit_does_not_read_meaning_into_rounding() -> None:
    # Computed, its divergence from itself would be 0 but for rounding, about 1e-8; the scaler would
    # blow that up to unit variance, and its weight became 1e7.
    weights = np.array(fit_learned_exit(simulated(seed=0, rows=600), TASK).weights)
    assert np.abs(weights).max() < 100


def test_an_exit_that_is_always_right_or_always_wrong_says_so() -> None:
    rows = simulated(seed=3, rows=90).recorded.copy()
    rows[0] = rows[-1]  # always the teacher's answer
    rows[1] = np.roll(rows[-1], 1, axis=-1)  # never
    recorded = RecordedExits(rows)
    fitted = fit_learned_exit(recorded, TASK)
    right, wrong, mixed = doubts_of(fitted, recorded)
    assert right == pytest.approx(np.full(90, expit(NEVER_WRONG)), rel=1e-4)
    assert wrong == pytest.approx(np.full(90, expit(-NEVER_WRONG)), rel=1e-4)
    assert len(set(mixed.tolist())) > 1
    assert recorded.replay(ThresholdCriterion(fitted, (0.01,) * 3)).exit_layer.tolist() == [1] * 90


def test_no_rows_are_an_exit_that_was_never_wrong() -> None:
    # Half of the rows of a calibration are drawn for fitting; of a few it can be none.
    fitted = fit_learned_exit(RecordedExits(np.empty((EXITS, 0, CLASSES), np.float32)), TASK)
    assert fitted.weights == ((0.0,) * NUM_FEATURES + (NEVER_WRONG,),) * (EXITS - 1)


def test_fitting_twice_gives_the_same() -> None:
    assert fit_learned_exit(simulated(4, 200), TASK) == fit_learned_exit(simulated(4, 200), TASK)


def test_a_fitted_measure_goes_through_json_bit_equal() -> None:
    rows = simulated(seed=5, rows=200)
    fitted = fit_learned_exit(rows, TASK)
    found = measure_from_json(json.loads(json.dumps(measure_to_json(fitted))))
    assert isinstance(found, LearnedExit)
    assert found == fitted
    assert np.array_equal(doubts_of(found, rows), doubts_of(fitted, rows))
