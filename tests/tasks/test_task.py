"""What every task promises, whatever its answers are: losses and metrics lie between 0 and 1."""

import numpy as np
import pytest

from fastbert.tasks.known import TASKS
from fastbert.tasks.task import Task

EXITS, ROWS = 4, 9


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param](("x", "y", "z"))


def logits(task: Task) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(EXITS, ROWS, task.outputs)).astype(np.float32)


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
