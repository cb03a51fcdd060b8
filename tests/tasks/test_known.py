"""Every task goes into JSON and comes back the same; what is unknown is refused."""

import json
from typing import Any

import pytest

from fastbert.tasks.known import DEFAULT_TASK, TASKS, task_from_json, task_to_json

LABELS = ("x", "y", "z")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_comes_back_from_json(name: str) -> None:
    task = TASKS[name](LABELS)
    assert task.name == name
    assert task_from_json(json.loads(json.dumps(task_to_json(task))), LABELS) == task


def test_the_default_is_a_known_task() -> None:
    assert DEFAULT_TASK in TASKS


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "unknown task None; known are .*single_label_classification"),
        ({"name": "chess"}, "unknown task 'chess'"),
        ({"name": ["single_label_classification"]}, "unknown task"),
        ({"name": "single_label_classification", "board": 8}, "task single_label_.*'board'"),
    ],
)
def test_what_is_unknown_is_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_from_json(entries, LABELS)


def test_labels_that_do_not_go_with_the_task_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 different names"):
        task_from_json({"name": DEFAULT_TASK}, ["x"])
