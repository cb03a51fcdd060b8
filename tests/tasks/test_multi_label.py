"""Several labels at once: what logits answer, how wrong an answer is, and how it is told."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy

from fastbert.data.example import Example
from fastbert.errors import DataError
from fastbert.tasks.metrics import labels_micro_f1
from fastbert.tasks.multi_label import LabelSetAnswers, MultiLabel

EXITS, ROWS = 4, 7
TASK = MultiLabel(("anger", "fear", "joy"))


def logits(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(scale=2, size=(*shape, TASK.outputs)).astype(np.float32)


def test_examples_set_the_task_and_strangers_are_refused() -> None:
    sets = [("b",), (), ("a", "b")]
    train = [Example(f"t:{line}", "x", label=names) for line, names in enumerate(sets, 2)]
    task = MultiLabel.of(train)
    assert task == MultiLabel(("a", "b"))
    task.check(train)
    with pytest.raises(DataError, match=r"^dev:5: label 'c' .*in all 1 rows"):
        task.check([Example("dev:5", "x", label=("a", "c")), Example("dev:6", "x", label=("b",))])


@pytest.mark.parametrize(
    ("cell", "labels"), [([], ()), (["a", 3, "a"], ("a", "3")), (("b", True), ("b", "true"))]
)
def test_a_cell_is_read_as_labels(cell: object, labels: tuple[str, ...]) -> None:
    assert TASK.parse(cell) == labels


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "is null; where no label holds write an empty list"),
        ("a", "must be a list of labels, got 'a'"),
        (["a", None], "at place 2 of its list is empty"),
        ([["a"]], "at place 1 of its list must be a string or an integer"),
    ],
)
def test_a_cell_without_a_list_of_labels_is_refused(cell: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASK.parse(cell)


def test_targets_are_the_places_that_logits_decide_for() -> None:
    made = logits(EXITS, ROWS)
    names = [[TASK.labels[c] for c in range(3) if row[c] > 0] for row in made[-1]]
    assert np.array_equal(TASK.array(names), TASK.decide(made)[-1])
    assert TASK.decide(made).shape == (EXITS, ROWS, TASK.outputs)
    assert not TASK.decide(np.zeros(3)).any()  # a half is not likelier than not
    with pytest.raises(ValueError, match="'rage' is not one of anger, fear, joy"):
        TASK.array([["fear"], ["rage"]])
    assert TASK.array([]).shape == (0, TASK.outputs)


def test_an_answer_loses_what_its_set_lacks_of_f1() -> None:
    right = TASK.array([["anger", "joy"], ["anger", "joy"], [], [], ["fear"]])
    answers = TASK.array([["anger", "joy"], ["anger", "fear"], [], ["joy"], ["anger"]])
    assert TASK.losses(answers, right).tolist() == [0, 0.5, 0, 1, 1]


def test_what_is_expected_to_be_wrong_is_what_the_teacher_gives_to_the_other_side() -> None:
    made = logits(EXITS, ROWS)
    expected = TASK.expected_losses(made, made[-1])
    likely = expit(made[-1])
    for exit_, row in np.ndindex(EXITS, ROWS):
        wrong = sum(
            1 - p if said > 0 else p for said, p in zip(made[exit_, row], likely[row], strict=True)
        )
        named = max((made[-1, row] > 0).sum() + likely[row].sum(), 1)
        assert expected[exit_, row] == pytest.approx(min(wrong / named, 1), abs=1e-6)


def test_the_threshold_is_that_of_the_best_micro_f1_and_decides() -> None:
    random = np.random.default_rng(4)
    truth = random.random((300, TASK.outputs)) < 0.2
    made = random.normal(-3, 1, truth.shape) + 2 * truth
    fitted = TASK.fitted(made, truth)
    scores = [
        labels_micro_f1(expit(made) > threshold, truth) for threshold in np.linspace(0.01, 0.99, 99)
    ]
    assert fitted.threshold < 0.4
    assert labels_micro_f1(fitted.decide(made), truth) == pytest.approx(max(scores))
    assert np.array_equal(fitted.decide(made), expit(made) > fitted.threshold)
    said = fitted.answers(made, np.arange(300)).predictions()
    assert [answer.labels for answer in said] == [
        tuple(name for name, p in answer.probabilities.items() if p > fitted.threshold)
        for answer in said
    ]
    assert fitted.labels == TASK.labels


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_no_answer_is_expected_to_lose_less_than_the_teachers(threshold: float) -> None:
    task, made = MultiLabel(TASK.labels, threshold), logits(300, ROWS)
    expected = task.expected_losses(made, made[-1])
    assert (expected >= expected[-1] - 1e-6).all()
    assert expected.max() > expected[-1].max()


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1])
def test_a_threshold_that_lets_none_or_all_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        MultiLabel(TASK.labels, threshold)


def test_a_label_without_a_row_says_that_it_does_not_hold() -> None:
    assert TASK.unseen([("joy",), ()]) == ()


def test_an_answer_in_words_names_its_labels() -> None:
    assert TASK.told(np.array([True, False, True])) == "anger, joy"
    assert TASK.told(np.zeros(3, bool)) == "none"


# Answers as columns.


def answers() -> LabelSetAnswers:
    return TASK.answers(logits(ROWS), np.arange(1, ROWS + 1))


def test_every_row_is_answered_by_the_labels_that_are_likelier_than_not() -> None:
    likely, given = expit(logits(ROWS)), answers()
    assert len(given) == ROWS
    for row, said in enumerate(given.predictions()):
        assert list(said.labels) == [
            name for name, p in zip(TASK.labels, likely[row], strict=True) if p > 1 / 2
        ]
        assert list(said.probabilities) == list(TASK.labels)
        assert list(said.probabilities.values()) == pytest.approx(likely[row], abs=1e-7)
        bits = entropy(np.stack([likely[row], 1 - likely[row]]), base=2)
        assert said.uncertainty == pytest.approx(bits.mean(), abs=1e-6)
        assert said.exit_layer == row + 1


COLUMNS: list[tuple[str, Callable[..., object]]] = [
    ("labels", lambda said: list(said.labels)),
    ("scores", lambda said: [said.probabilities[name] for name in said.labels]),
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
    made[2, 1] = np.nan
    assert TASK.answers(made, np.arange(ROWS)).usable() == [row != 2 for row in range(ROWS)]
