"""Heads in early_exit.json: an object each, of a kind and its fields, read strictly."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.strict_json import check_choice, check_items, check_keys
from fastbert.head_shapes import KINDS, HeadShape, PaperHead, head_from_dict
from fastbert.shape import TeacherHead


def read_students(path: Path | OpenFile, entries: Mapping[str, Any]) -> tuple[HeadShape, ...]:
    """Return the heads of the students.

    Raises:
        FolderError: One is none that this package knows.
    """
    check_items(path, "students", entries["students"], dict)
    return tuple(
        _read_head(path, f"students[{index}]", head)
        for index, head in enumerate(entries["students"])
    )


def read_teacher_head(path: Path | OpenFile, entries: Mapping[str, Any]) -> TeacherHead:
    """Return the teacher's head: `pretrained`, or the paper's.

    Raises:
        FolderError: It is neither.
    """
    said = entries["teacher_head"]
    if said == "pretrained":
        return "pretrained"
    head = _read_head(path, "teacher_head", said) if isinstance(said, dict) else said
    if not isinstance(head, PaperHead):
        raise FolderError(
            'key "teacher_head" must be "pretrained" or a head of the kind paper, '
            f"got {getattr(head, 'kind', head)!r}",
            path=path,
        )
    return head


def _read_head(path: Path | OpenFile, where: str, entries: dict[str, Any]) -> HeadShape:
    kind = entries.get("kind", "paper")  # where it is missing, that is what will be said
    if not isinstance(kind, str):
        raise FolderError(f'key "{where}.kind" must be a string, got {kind!r}', path=path)
    check_choice(path, f"{where}.kind", kind, tuple(KINDS))
    sizes = {field.name: (type(field.default),) for field in fields(KINDS[kind])}
    check_keys(path, f"{where}.", entries, {"kind": (str,), **sizes})
    try:
        return head_from_dict(entries)
    except ValueError as error:
        raise FolderError(f'key "{where}": {error}', path=path) from error
