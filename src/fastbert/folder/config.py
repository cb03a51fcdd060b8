"""What early_exit.json says about a model, read strictly and in every version."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.names import HASHED_FILES
from fastbert.folder.strict_json import (
    check_choice,
    check_items,
    check_keys,
    hash_of_json,
    read_json,
)
from fastbert.shape import POOLINGS, TEACHER_HEADS, ModelShape, StudentShape, TeacherHead
from fastbert.tasks.known import DEFAULT_TASK, task_from_json, task_to_json
from fastbert.tasks.task import Task

SCHEMA_VERSION = 2
OLDEST_SCHEMA = 1  # that is still read
LABELS_HASH = "labels"  # of the label order
SETTINGS_HASH = "settings"  # of early_exit.json itself, without its hashes


@dataclass(frozen=True)
class DefaultPoint:
    """How a model answers where nobody asks for a speed or a goal.

    Args:
        measure: Name and settings of the measure of doubt.
        thresholds: One for each student, from 0 (nobody leaves there) to 1.
        goal: What the thresholds were chosen for, by name; None if they are a speed of the paper's.

    Raises:
        ValueError: A threshold lies outside 0 to 1.
    """

    measure: dict[str, Any]
    thresholds: tuple[float, ...]
    goal: dict[str, float | str] | None = None

    def __post_init__(self) -> None:
        """Refuse thresholds that no doubt can reach."""
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(
                f"default.thresholds must lie between 0 and 1, got {list(self.thresholds)}"
            )


@dataclass(frozen=True)
class EarlyExitConfig:
    """What early_exit.json says about a model.

    Args:
        teacher_head: Whose head the teacher has: `pretrained`, the family's own, or `paper`, where
            the teacher's file holds a plain encoder and its head lies with the students.
        task: What the model answers, with the labels in the order of the logits.
        num_layers: Encoder layers.
        max_length: Tokens that a text may have, special tokens included.
        students: The shape of the students.
        default: How it answers where nobody asks for a speed or a goal; None runs every layer.
        hashes: SHA-256 of files by name, of the label order and of these settings.
        versions: The packages that wrote the folder.
        training: What produced the weights, free in form.
        evaluation: The measured table, one mapping a row.
        calibration: The record behind thresholds chosen for a goal, if there is one.
        schema_version: Version of this format.

    Raises:
        ValueError: A value is outside its range.
    """

    teacher_head: TeacherHead
    task: Task
    num_layers: int
    max_length: int
    students: StudentShape = field(default_factory=StudentShape)
    default: DefaultPoint | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        if self.teacher_head not in TEACHER_HEADS:
            raise ValueError(
                f"teacher_head must be one of {TEACHER_HEADS}, got {self.teacher_head!r}"
            )
        if self.num_layers < 1 or self.max_length < 1:
            raise ValueError(
                "num_layers and max_length must be positive, "
                f"got {self.num_layers} and {self.max_length}"
            )
        if self.default is not None and len(self.default.thresholds) != self.num_layers - 1:
            raise ValueError(
                f"default.thresholds must be one for each of {self.num_layers - 1} students, "
                f"got {len(self.default.thresholds)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's outputs, in the order of the logits."""
        return self.task.labels

    def shape(self, model_config: Mapping[str, Any]) -> ModelShape:
        """Return the widths that decide what the model costs.

        Args:
            model_config: What its config.json says.

        Raises:
            ValueError: A width is missing or is no positive whole number.
        """
        return ModelShape.from_config(
            model_config,
            self.task.outputs,
            teacher_head=self.teacher_head,
            students=self.students,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what early_exit.json holds; labels stand beside the task, whatever it is."""
        return {
            "labels": list(self.labels),
            **asdict(self),
            "task": task_to_json(self.task),
        }

    def to_json(self) -> str:
        """Return the text of early_exit.json."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @staticmethod
    def read(path: Path | OpenFile) -> "EarlyExitConfig":
        """Read early_exit.json strictly, its own hash included.

        Raises:
            FolderError: A key is missing, unknown or of the wrong type, a value is outside its
                range, the schema is newer than this package, or the file was changed.
        """
        entries = read_json(path, strict=True)
        schema = entries.get("schema_version")
        if type(schema) is int and not OLDEST_SCHEMA <= schema <= SCHEMA_VERSION:
            raise FolderError(
                f'key "schema_version" is {schema}, this package reads {OLDEST_SCHEMA} to '
                f"{SCHEMA_VERSION}; upgrade it with `pip install -U fastbert-kit`",
                path=path,
            )
        is_first = type(schema) is int and schema == 1
        check_keys(path, "", entries, SCHEMA_1_TYPES if is_first else _types_of(entries))
        check_keys(path, "students.", entries["students"], STUDENT_TYPES)
        if entries.get("default") is not None:
            check_keys(path, "default.", entries["default"], DEFAULT_TYPES)
            check_items(path, "default.thresholds", entries["default"]["thresholds"], float)
        head = "layout" if is_first else "teacher_head"
        check_choice(path, head, entries[head], TEACHER_HEADS)
        check_choice(path, "students.pooling", entries["students"]["pooling"], POOLINGS)
        check_items(path, "labels", entries["labels"], str)
        check_items(path, "evaluation", entries["evaluation"], dict)
        check_items(path, "versions", entries["versions"].values(), str)
        try:
            _check_hashes(path, entries)
            entries = {"task": {"name": DEFAULT_TASK}} | (
                _from_schema_1(entries) if is_first else entries
            )
            changed = {
                "students": StudentShape(**entries["students"]),
                "task": task_from_json(entries.pop("task"), entries.pop("labels")),
                "default": _default_point(entries["default"]),
            }
            return EarlyExitConfig(**(entries | changed))
        except (ValueError, OverflowError, RecursionError) as error:
            raise FolderError(str(error), path=path) from error


EARLY_EXIT_TYPES: dict[str, tuple[type, ...]] = {
    "teacher_head": (str,),
    "task": (dict,),
    "labels": (list,),
    "num_layers": (int,),
    "max_length": (int,),
    "students": (dict,),
    "default": (dict, type(None)),
    "hashes": (dict,),
    "versions": (dict,),
    "training": (dict,),
    "evaluation": (list,),
    "calibration": (dict, type(None)),
    "schema_version": (int,),
}
DEFAULT_TYPES: dict[str, tuple[type, ...]] = {
    "measure": (dict,),
    "thresholds": (list,),
    "goal": (dict, type(None)),
}
# Version 0.1 had one speed, and a criterion that could only be entropy.
SCHEMA_1_TYPES = {
    key: kinds
    for key, kinds in EARLY_EXIT_TYPES.items()
    if key not in ("default", "teacher_head", "task")
} | {
    "layout": (str,),
    "criterion": (dict,),
    "speed": (float, int),
}
STUDENT_TYPES: dict[str, tuple[type, ...]] = {
    "pooling": (str,),
    "width": (int,),
    "num_heads": (int,),
}


def _types_of(entries: Mapping[str, Any]) -> Mapping[str, tuple[type, ...]]:
    """Return what schema 2 holds; before there was a second task it named none."""
    return {
        key: kinds for key, kinds in EARLY_EXIT_TYPES.items() if key != "task" or key in entries
    }


def _from_schema_1(entries: dict[str, Any]) -> dict[str, Any]:
    """Return what a folder of version 0.1 says, in the words of today.

    Raises:
        ValueError: Its speed or its criterion is none.
    """
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
        "schema_version": SCHEMA_VERSION,
    }


def _training_from_schema_1(training: dict[str, Any]) -> dict[str, Any]:
    said = {"layout": "teacher_head"}
    training = {said.get(key, key): value for key, value in training.items()}
    if isinstance(students := training.get("students"), dict):
        said = {"layout": "shape"}
        training["students"] = {said.get(key, key): value for key, value in students.items()}
    return training


def _default_point(entries: dict[str, Any] | None) -> DefaultPoint | None:
    if entries is None:
        return None
    return DefaultPoint(entries["measure"], tuple(entries["thresholds"]), entries["goal"])


def _check_hashes(path: Path | OpenFile, entries: dict[str, Any]) -> None:
    hashes = entries["hashes"]
    check_items(path, "hashes", hashes.values(), str)
    needed = {*HASHED_FILES, LABELS_HASH, SETTINGS_HASH}
    for key in sorted(needed - hashes.keys()):
        raise FolderError(f'key "hashes.{key}" is missing', path=path)
    for key in sorted(hashes.keys() - needed):
        raise FolderError(f'key "hashes.{key}" is unknown', path=path)
    if hashes[LABELS_HASH] != hash_of_json(entries["labels"]):
        raise FolderError('key "labels" does not match its hash; the order was changed', path=path)
    if hashes[SETTINGS_HASH] != hash_of_settings(entries):
        raise FolderError(
            "was damaged or edited since it was saved, it does not match its own hash; "
            "undo the edit, or load the classifier from a copy and save it with other settings",
            path=path,
        )


def hash_of_settings(entries: Mapping[str, Any]) -> str:
    """Return the hash of early_exit.json itself, without its hashes."""
    return hash_of_json({key: value for key, value in entries.items() if key != "hashes"})
