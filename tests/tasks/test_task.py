"""What every task promises, whatever its answers are: losses and metrics lie between 0 and 1."""

from typing import Any

import numpy as np
import pytest

from fastbert.tasks.known import TASKS
from fastbert.tasks.task import Answers, Task

EXITS, ROWS = 4, 9


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param](("x", "y", "z"))


def logits(task: Task) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(EXITS, ROWS, task.outputs)).astype(np.float32)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "a")])
def test_labels_that_leave_nothing_to_tell_apart_are_refused(
    name: str, labels: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="at least 2 different names, got"):
        TASKS[name](labels)


def test_each_is_a_task_and_its_answers_are_answers(task: Task) -> None:
    assert isinstance(task, Task)
    assert isinstance(task.answers(logits(task)[0], np.arange(ROWS)), Answers)


def test_no_answer_is_wrong_against_itself(task: Task) -> None:
    answers = task.decide(logits(task))
    assert task.losses(answers, answers).max() == 0
    assert all(metric.score(answers[0], answers[0]) == 1 for metric in task.metrics.values())


def test_losses_are_shares_and_so_is_what_is_expected_of_them(task: Task) -> None:
    made = logits(task)
    answers = task.decide(made)
    for losses in (task.losses(answers, answers[-1]), task.expected_losses(made, made[-1])):
        assert losses.shape == (EXITS, ROWS)
        assert losses.min() >= 0
        assert losses.max() <= 1
        assert losses.max() > losses.min()


def test_the_answer_of_the_teacher_is_expected_to_lose_least(task: Task) -> None:
    made = logits(task)
    expected = task.expected_losses(made, made[-1])
    assert (expected >= expected[-1] - 1e-6).all()


def test_doubts_of_the_default_measure_are_shares(task: Task) -> None:
    doubts = task.default_measure.doubt(logits(task), EXITS)
    assert doubts.shape == (ROWS,)
    assert 0 <= doubts.min() <= doubts.max() <= 1


def test_an_answer_has_a_row_in_every_form(task: Task) -> None:
    answers = task.answers(logits(task)[0], np.arange(1, ROWS + 1))
    columns = answers.columns()
    assert len(answers) == len(answers.predictions()) == len(answers.usable()) == ROWS
    assert {len(column) for column in columns.values()} == {ROWS}
    assert list(columns["exit_layer"]) == list(range(1, ROWS + 1))


def test_metrics_have_a_first_and_tell_their_columns_apart(task: Task) -> None:
    columns = [metric.column for metric in task.metrics.values()]
    assert columns
    assert len(set(columns)) == len(columns)


def test_the_rows_of_a_label_are_those_for_which_it_is_right(task: Task) -> None:
    right = task.decide(logits(task)[0])
    rows = task.rows_of(right)
    assert rows.shape == (ROWS, task.outputs)
    told = [task.told(answer).split(", ") for answer in right]
    assert rows.tolist() == [[label in names for label in task.labels] for names in told]


def test_answers_of_the_pipeline_are_read_as_its_logits_decide(task: Task) -> None:
    made = logits(task)[0]
    found: list[Any] = [
        sorted(
            (
                {"label": label, "score": float(score)}
                for label, score in zip(task.labels, row, strict=True)
            ),
            key=lambda each: -each["score"],  # as the pipeline has them
        )
        for row in task.probabilities(made)
    ]
    if not task.pipeline_options:  # then it gives the best alone
        found = [best for best, *_ in found]
    assert np.array_equal(task.piped(found), task.decide(made))
