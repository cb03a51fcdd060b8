"""What a calibration is made with: the measure, named or made or fitted, and the right answers."""

from typing import Any

import numpy as np
import pytest

from fastbert.calibration.choose import complete_truth, measure_to_calibrate
from fastbert.calibration.learned import fit_learned_exit
from fastbert.errors import CalibrationError
from fastbert.exits.criteria import Measure
from fastbert.exits.measures import LearnedExit, Margin, Patience, TopEntropy
from fastbert.exits.recorded import RecordedExits
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel

TASK = SingleLabel(("awful", "plain", "lovely"))


@pytest.fixture(scope="module")
def recorded() -> RecordedExits:
    logits = (
        np.random.default_rng(2).normal(size=(4, 90, 3)) * np.array([1, 2, 3, 4])[:, None, None]
    )
    return RecordedExits(logits.astype(np.float32))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("margin", Margin()),
        ("top-entropy", TopEntropy()),
        (TopEntropy(2), TopEntropy(2)),
        (Patience(), Patience()),
    ],
)
def test_a_measure_is_named_or_made(
    recorded: RecordedExits, measure: Any, expected: Measure
) -> None:
    assert measure_to_calibrate(measure, TASK)(recorded) == (expected, None)


def test_a_mistyped_measure_is_refused_before_anything_is_recorded() -> None:
    with pytest.raises(
        ValueError,
        match=f"one of {', '.join(TASK.measures)} for single_label_classification, got 'mood'",
    ):
        measure_to_calibrate("mood", TASK)


def test_the_learned_exit_is_fitted_on_about_half_of_the_rows_always_the_same(
    recorded: RecordedExits,
) -> None:
    measure, fitted = measure_to_calibrate("learned", TASK)(recorded)
    assert fitted is not None
    assert 25 <= fitted.sum() <= 65
    assert isinstance(measure, LearnedExit)
    assert measure == fit_learned_exit(RecordedExits(recorded.recorded[:, fitted]), TASK)
    again, rows = measure_to_calibrate("learned", TASK)(recorded)
    assert again == measure
    assert rows is not None
    assert rows.tolist() == fitted.tolist()


def test_the_right_answers_are_numbers_of_the_labels() -> None:
    truth = complete_truth(TASK, ["lovely", "awful", "plain", "awful"], 4)
    assert truth.tolist() == [2, 0, 1, 0]


def test_a_label_too_few_or_too_many_is_refused() -> None:
    for rows in (2, 4):
        with pytest.raises(ValueError, match=f"got {rows} texts and 3 labels"):
            complete_truth(TASK, ["lovely", "awful", "plain"], rows)
    with pytest.raises(ValueError, match=r"labels\[1\]: 'good' is not one of awful"):
        complete_truth(TASK, ["lovely", "good"], 2)


def test_a_label_without_a_row_is_named() -> None:
    with pytest.raises(CalibrationError, match="1 of 3 classes have no row, such as plain; add"):
        complete_truth(TASK, ["lovely", "awful", "lovely"], 3)


def test_rows_without_a_label_tell_of_it_where_a_row_may_have_several() -> None:
    truth = complete_truth(MultiLabel(("awful", "plain", "lovely")), [("plain",), ()], 2)
    assert truth.tolist() == [[False, True, False], [False, False, False]]
