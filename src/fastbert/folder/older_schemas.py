"""early_exit.json as earlier versions wrote it, and the same in the words of today.

Schema 1 (version 0.1) had one speed, and a criterion that could only be entropy. Schema 2 had one
shape for all students, and for the teacher's head where it was the paper's; at first it named no
task.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.strict_json import check_choice, check_keys
from fastbert.head_shapes import POOLINGS, head_from_dict
from fastbert.tasks.known import DEFAULT_TASK

OLDEST_SCHEMA = 1  # that is still read
TEACHER_HEADS = ("pretrained", "paper")
STUDENT_TYPES: dict[str, tuple[type, ...]] = {
    "pooling": (str,),
    "width": (int,),
    "num_heads": (int,),
}


def older_types(
    entries: Mapping[str, Any], today: Mapping[str, tuple[type, ...]]
) -> dict[str, tuple[type, ...]]:
    """Return what each key of an older schema may hold, from what those of today may."""
    types = dict(today) | {"students": (dict,), "teacher_head": (str,)}
    if entries["schema_version"] == 1:
        types |= {"layout": (str,), "criterion": (dict,), "speed": (float, int)}
        del types["default"], types["teacher_head"]
    if entries["schema_version"] == 1 or "task" not in entries:
        del types["task"]
    return types


def upgraded(path: Path | OpenFile, entries: dict[str, Any], schema: int) -> dict[str, Any]:
    """Return what an older early_exit.json says, in the words of today.

    Args:
        path: Of the file, for messages.
        entries: What it holds; every key is there.
        schema: That of today.

    Raises:
        FolderError: A key of its students is missing, unknown or of the wrong type.
        ValueError: A value of it is none.
    """
    check_keys(path, "students.", entries["students"], STUDENT_TYPES)
    check_choice(path, "students.pooling", entries["students"]["pooling"], POOLINGS)
    head = "layout" if entries["schema_version"] == 1 else "teacher_head"
    check_choice(path, head, entries[head], TEACHER_HEADS)
    if entries["schema_version"] == 1:
        entries = _from_schema_1(entries)
    return _from_schema_2(path, entries) | {"schema_version": schema}


def _from_schema_1(entries: dict[str, Any]) -> dict[str, Any]:
    criterion, speed = entries["criterion"], entries["speed"]
    if criterion != {"name": "entropy"}:
        raise ValueError(f'criterion must be {{"name": "entropy"}}, got {criterion}')
    if not 0 <= speed <= 1:
        raise ValueError(f"speed must be between 0 and 1, got {speed}")
    thresholds = [float(speed)] * (entries["num_layers"] - 1)
    default = {"measure": criterion, "thresholds": thresholds, "goal": None}
    gone = ("criterion", "speed", "layout")
    kept = {key: value for key, value in entries.items() if key not in gone}
    calibration = entries["calibration"]
    if calibration is not None:
        said = {"answered_by": "hashes", "criterion": "measure"}
        calibration = {said.get(key, key): value for key, value in calibration.items()}
        calibration = {"answered_by": None, "processor": None} | calibration  # nobody noted them
    return kept | {
        "teacher_head": entries["layout"],
        "default": default,
        "training": _training_from_schema_1(entries["training"]),
        "calibration": calibration,
    }


def _training_from_schema_1(training: dict[str, Any]) -> dict[str, Any]:
    said = {"layout": "teacher_head"}
    training = {said.get(key, key): value for key, value in training.items()}
    if isinstance(students := training.get("students"), dict):
        said = {"layout": "shape"}
        training["students"] = {said.get(key, key): value for key, value in students.items()}
    return training


def _from_schema_2(path: Path | OpenFile, entries: dict[str, Any]) -> dict[str, Any]:
    head = {"kind": "paper", **entries["students"]}
    try:
        spelling = head_from_dict(head).spelling
    except ValueError as error:
        raise FolderError(f'key "students": {error}', path=path) from error
    training = dict(entries["training"])
    students = training.get("students")
    if isinstance(students, dict) and students.get("shape") == entries["students"]:
        kept = {key: value for key, value in students.items() if key != "shape"}
        training["students"] = {"heads": spelling} | kept
    return (
        {"task": {"name": DEFAULT_TASK}}
        | entries
        | {
            "teacher_head": head if entries["teacher_head"] == "paper" else "pretrained",
            "students": [head] * (entries["num_layers"] - 1),
            "training": training,
        }
    )
