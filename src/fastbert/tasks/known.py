"""The tasks by name, as early_exit.json knows them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastbert.data.example import Example
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task

DEFAULT_TASK = SingleLabel.name  # of checkpoints and folders that name none
_KINDS = (SingleLabel, MultiLabel)
TASKS: dict[str, Callable[..., Task]] = {kind.name: kind for kind in _KINDS}
METRIC_COLUMNS = tuple(
    dict.fromkeys(metric.column for kind in _KINDS for metric in kind.metrics.values())
)
"""What files may call a metric."""


def task_of(examples: Sequence[Example]) -> Task:
    """Return the task that labelled examples set: a list of labels in each row is one of several.

    Raises:
        DataError: Some rows have a list and others do not, or there are fewer than two labels.
    """
    if not any(isinstance(example.label, tuple) for example in examples):
        return SingleLabel.of(examples)
    return MultiLabel.of(examples)


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task's name and settings; its labels stand by themselves."""
    return {"name": task.name, **task.settings}


def task_from_json(entries: Mapping[str, Any], labels: Sequence[str]) -> Task:
    """Return the task that `task_to_json` described.

    Raises:
        ValueError: The name or a setting is unknown, or the labels do not go with it.
    """
    settings = dict(entries)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known are {', '.join(TASKS)}")
    try:
        return TASKS[name](tuple(labels), **settings)
    except TypeError as error:
        raise ValueError(f"task {name}: {error}") from error
