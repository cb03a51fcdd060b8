"""One label out of several: what logits answer, and how wrong an answer is."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax

from fastbert.data.example import Example
from fastbert.errors import DataError
from fastbert.exits.criteria import uncertainty
from fastbert.tasks.single_label import LabelAnswers, SingleLabel

EXITS, ROWS = 4, 7
TASK = SingleLabel(("no", "perhaps", "yes"))


def logits(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(scale=2, size=(*shape, TASK.outputs)).astype(np.float32)


def test_examples_set_the_task_and_strangers_are_refused() -> None:
    train = [Example(f"t:{line}", "x", label=label) for line, label in enumerate("bab", 2)]
    task = SingleLabel.of(train)
    assert task == SingleLabel(("a", "b"))
    task.check(train)
    with pytest.raises(DataError, match=r"^dev:5: label 'c'"):
        task.check([Example("dev:5", "x", label="c")])


@pytest.mark.parametrize("several", [("b", "a"), ("a",), ()])
def test_a_row_with_a_list_of_labels_is_refused(several: tuple[str, ...]) -> None:
    rows = [Example("t:2", "x", label="a"), Example("t:3", "y", label="b")]
    rows.append(Example("t:4", "z", label=several))
    message = rf"^t:4: has a list of labels, {re.escape(str(list(several)))}, and one label is"
    for read in (SingleLabel.of, SingleLabel(("a", "b")).check):
        with pytest.raises(DataError, match=message):
            read(rows)


@pytest.mark.parametrize(("cell", "label"), [("a", "a"), (3, "3"), (2.0, "2"), (True, "true")])
def test_a_cell_is_read_as_a_label(cell: object, label: str) -> None:
    assert TASK.parse(cell) == label


@pytest.mark.parametrize("cell", [None, "", float("nan"), 0.5, ["a"]])
def test_a_cell_without_a_label_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r"is empty|must be a string or an integer"):
        TASK.parse(cell)


def test_targets_are_the_numbers_that_logits_decide_for() -> None:
    made = logits(EXITS, ROWS)
    names = [TASK.labels[best] for best in made[-1].argmax(axis=-1)]
    assert np.array_equal(TASK.array(names), TASK.decide(made)[-1])
    assert TASK.decide(made).shape == (EXITS, ROWS)
    assert TASK.decide(np.array([1.0, 2.0, 2.0])) == 1  # the first of equals


def test_a_wrong_answer_loses_one_and_a_right_one_nothing() -> None:
    answers, right = np.array([[0, 1, 2], [0, 0, 0]]), np.array([0, 2, 2])
    assert TASK.losses(answers, right).tolist() == [[0, 1, 0], [0, 1, 1]]


def test_what_is_expected_to_be_lost_is_what_the_teacher_gives_to_the_other_classes() -> None:
    made = logits(EXITS, ROWS)
    expected = TASK.expected_losses(made, made[-1])
    likely = softmax(made[-1], axis=-1)
    for exit_, row in np.ndindex(EXITS, ROWS):
        others = np.delete(likely[row], made[exit_, row].argmax())
        assert expected[exit_, row] == pytest.approx(others.sum(), abs=1e-6)


def test_the_default_measure_doubts_what_the_likeliest_class_lacks() -> None:
    made = logits(1, ROWS)
    lacking = (1 - softmax(made[0], axis=-1).max(axis=-1)) * 3 / 2
    np.testing.assert_allclose(TASK.default_measure.doubt(made, 1), lacking, atol=1e-6)


# Answers as columns.


def answers() -> LabelAnswers:
    return TASK.answers(logits(ROWS), np.arange(1, ROWS + 1))


def test_every_row_is_answered_by_its_likeliest_class() -> None:
    made, given = logits(ROWS), answers()
    likely = softmax(made, axis=-1)
    assert len(given) == ROWS
    for row, said in enumerate(given.predictions()):
        assert said.label == TASK.labels[int(likely[row].argmax())]
        assert said.score == pytest.approx(likely[row].max())
        assert list(said.probabilities) == list(TASK.labels)
        assert list(said.probabilities.values()) == pytest.approx(likely[row].tolist())
        assert said.uncertainty == pytest.approx(float(uncertainty(made)[row]))
        assert said.exit_layer == row + 1


COLUMNS: list[tuple[str, Callable[..., object]]] = [
    ("label", lambda said: said.label),
    ("score", lambda said: said.score),
    ("uncertainty", lambda said: said.uncertainty),
    ("exit_layer", lambda said: said.exit_layer),
]


@pytest.mark.parametrize(("name", "figure"), COLUMNS)
def test_a_column_is_what_the_predictions_say(name: str, figure: Callable[..., object]) -> None:
    given = answers()
    column = given.columns()[name]
    assert column == [figure(said) for said in given.predictions()]
    assert json.loads(json.dumps(column)) == column  # plain values, as a file takes them
    assert list(given.columns()) == [each for each, _ in COLUMNS]


def test_a_row_without_a_number_for_an_answer_is_not_usable() -> None:
    made = logits(ROWS)
    made[2] = np.nan
    assert TASK.answers(made, np.arange(ROWS)).usable() == [row != 2 for row in range(ROWS)]
