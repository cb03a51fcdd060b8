"""The tasks by name, as early_exit.json knows them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task

DEFAULT_TASK = SingleLabel.name  # of checkpoints and folders that name none
TASKS: dict[str, Callable[..., Task]] = {SingleLabel.name: SingleLabel}


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task's name and settings; its labels stand by themselves."""
    return {"name": task.name}


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
