"""JSON that is read strictly: every key known, every type right, and a hash of the whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.disk import readable
from fastbert.files.open_file import OpenFile

JSON_NAMES = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def check_keys(
    path: Path | OpenFile,
    where: str,
    entries: dict[str, Any],
    types: Mapping[str, tuple[type, ...]],
) -> None:
    """Refuse a key that is missing, unknown or of another type; `where` stands before its name."""
    for key in types:
        if key not in entries:
            raise FolderError(f'key "{where}{key}" is missing', path=path)
    for key in entries:
        if key not in types:
            raise FolderError(f'key "{where}{key}" is unknown', path=path)
    for key, allowed in types.items():
        found = type(entries[key])  # exactly, for True is an int as well
        if found not in allowed:
            wanted = " or ".join(JSON_NAMES[kind] for kind in allowed)
            raise FolderError(
                f'key "{where}{key}" must be {wanted}, got {JSON_NAMES[found]}', path=path
            )


def check_items(path: Path | OpenFile, key: str, items: Any, allowed: type) -> None:
    """Refuse an item of a list that is of another type."""
    for item in items:
        if type(item) is not allowed:
            raise FolderError(
                f'every item of "{key}" must be {JSON_NAMES[allowed]}, '
                f"got {JSON_NAMES[type(item)]}",
                path=path,
            )


def check_choice(path: Path | OpenFile, key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise FolderError(f'key "{key}" must be one of {choices}, got {value!r}', path=path)


def hash_of_json(value: Any) -> str:
    """Return the SHA-256 of a value as canonical JSON, in hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_json(path: Path | OpenFile, *, strict: bool = False) -> dict[str, Any]:
    """Read a JSON object; `strict` refuses a key given twice and numbers JSON does not have."""
    hooks: dict[str, Any] = {}
    if strict:
        hooks = {"object_pairs_hook": _without_twins, "parse_constant": _refuse_constant}
    with readable(path):
        content = path.read_bytes()
    try:
        entries = json.loads(content.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        raise FolderError(f"is not JSON: {error}", path=path) from error
    if not isinstance(entries, dict):
        raise FolderError("must hold a JSON object", path=path)
    return entries


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key is given twice")
    return entries


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
