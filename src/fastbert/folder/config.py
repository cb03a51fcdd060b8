"""What early_exit.json says about a model, read strictly and in every version."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.heads import read_students, read_teacher_head
from fastbert.folder.names import HASHED_FILES
from fastbert.folder.older_schemas import OLDEST_SCHEMA, older_types, upgraded
from fastbert.folder.strict_json import check_items, check_keys, hash_of_json, read_json
from fastbert.head_shapes import HeadShape
from fastbert.shape import ModelShape, TeacherHead
from fastbert.tasks.known import task_from_json, task_to_json
from fastbert.tasks.task import Task

SCHEMA_VERSION = 3
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
        teacher_head: The teacher's head: `pretrained`, the family's own, or the paper's; then the
            teacher's file holds a plain encoder, and its head lies with the students.
        task: What the model answers, with the labels in the order of the logits.
        num_layers: Encoder layers.
        max_length: Tokens that a text may have, special tokens included.
        students: The head of each student, the first layer's first.
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
    students: tuple[HeadShape, ...]
    default: DefaultPoint | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        if self.num_layers < 1 or self.max_length < 1:
            raise ValueError(
                "num_layers and max_length must be positive, "
                f"got {self.num_layers} and {self.max_length}"
            )
        if len(self.students) != self.num_layers - 1:
            raise ValueError(
                f"students must be {self.num_layers - 1} heads, one for each layer but the last, "
                f"got {len(self.students)}"
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
        head = self.teacher_head
        return {
            "labels": list(self.labels),
            **asdict(self),
            "teacher_head": head if head == "pretrained" else head.as_dict(),
            "students": [head.as_dict() for head in self.students],
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
        is_older = type(schema) is int and schema < SCHEMA_VERSION
        types = older_types(entries, EARLY_EXIT_TYPES) if is_older else EARLY_EXIT_TYPES
        check_keys(path, "", entries, types)
        if entries.get("default") is not None:
            check_keys(path, "default.", entries["default"], DEFAULT_TYPES)
            check_items(path, "default.thresholds", entries["default"]["thresholds"], float)
        check_items(path, "labels", entries["labels"], str)
        check_items(path, "evaluation", entries["evaluation"], dict)
        check_items(path, "versions", entries["versions"].values(), str)
        try:
            said = upgraded(path, entries, SCHEMA_VERSION) if is_older else entries
            changed: dict[str, Any] = {
                "teacher_head": read_teacher_head(path, said),
                "students": read_students(path, said),
            }
            _check_hashes(path, entries)
            changed |= {
                "task": task_from_json(said["task"], said["labels"]),
                "default": _default_point(said["default"]),
            }
            kept = {key: value for key, value in said.items() if key != "labels"}
            return EarlyExitConfig(**(kept | changed))
        except (ValueError, OverflowError, RecursionError) as error:
            raise FolderError(str(error), path=path) from error


EARLY_EXIT_TYPES: dict[str, tuple[type, ...]] = {
    "teacher_head": (str, dict),
    "task": (dict,),
    "labels": (list,),
    "num_layers": (int,),
    "max_length": (int,),
    "students": (list,),
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
