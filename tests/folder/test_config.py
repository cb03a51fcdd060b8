"""early_exit.json: what it may say, and that each defect is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastbert.errors import FolderError
from fastbert.folder.config import hash_of_settings
from fastbert.folder.read import open_folder
from tests.folder.folders import edit, reseal, settings


def test_labels_reordered_in_early_exit_json_are_refused(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["labels"].reverse())

    with pytest.raises(FolderError, match=r'early_exit\.json: key "labels"'):
        open_folder(model)


@pytest.mark.parametrize("schema", [0, 4, 10**30])
def test_an_unknown_schema_is_refused_with_what_to_do(model: Path, schema: int) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update(schema_version=schema, new=1))

    with pytest.raises(FolderError, match=r'"schema_version" is .*pip install -U fastbert-kit'):
        open_folder(model)


KEYS = list(json.loads(settings().to_json()))
PLACES: list[tuple[str | int, ...]] = [(key,) for key in KEYS]
PLACES += [("students", 0, key) for key in ("kind", "pooling", "width", "num_heads")]
PLACES += [("students", 1, key) for key in ("kind", "queries", "width", "source")]
PLACES += [("default", key) for key in ("measure", "thresholds", "goal")]


def named(place: tuple[str | int, ...]) -> str:
    """Return a place as messages name it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]


@pytest.mark.parametrize("place", PLACES, ids=named)
def test_a_missing_key_is_named(model: Path, place: tuple[str | int, ...]) -> None:
    def remove(entries: Any) -> None:
        *parents, key = place
        for parent in parents:
            entries = entries[parent]
        del entries[key]

    edit(model / "early_exit.json", remove)

    with pytest.raises(FolderError, match=re.escape(f'key "{named(place)}" is missing')):
        open_folder(model)


@pytest.mark.parametrize("place", PLACES, ids=named)
def test_a_value_of_the_wrong_type_is_named(model: Path, place: tuple[str | int, ...]) -> None:
    def spoil(entries: Any) -> None:
        *parents, key = place
        for parent in parents:
            entries = entries[parent]
        entries[key] = True  # neither a number nor anything else here

    edit(model / "early_exit.json", spoil)

    with pytest.raises(FolderError, match=re.escape(f'key "{named(place)}" must be')):
        open_folder(model)


@pytest.mark.parametrize("where", ["", "hashes"])
def test_an_unknown_key_is_named(model: Path, where: str) -> None:
    def add(entries: dict[str, Any]) -> None:
        (entries[where] if where else entries)["surprise"] = "x"

    edit(model / "early_exit.json", add)

    expected = f"{where}.surprise" if where else "surprise"
    with pytest.raises(FolderError, match=rf'early_exit\.json: key "{expected}" is unknown'):
        open_folder(model)


def test_a_missing_hash_is_named(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["hashes"].pop("model.safetensors"))

    with pytest.raises(FolderError, match=r'key "hashes\.model\.safetensors" is missing'):
        open_folder(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["a", 3, "b"]),
        ("evaluation", [[]]),
        ("versions", {"torch": 2}),
        ("hashes", {"model.safetensors": 3}),
    ],
)
def test_an_item_of_the_wrong_type_is_named(model: Path, key: str, value: Any) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update({key: value}))

    with pytest.raises(FolderError, match=rf'early_exit\.json: every item of "{key}"'):
        open_folder(model)


def test_a_threshold_that_is_no_number_is_named(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["default"].update(thresholds=["0.5"]))

    with pytest.raises(FolderError, match=r'every item of "default\.thresholds" must be a number'):
        open_folder(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher_head", "other"),
        ("num_layers", 0),
        ("max_length", -1),
        ("default", {"measure": {}, "thresholds": [0.5, 1.5, 0.0], "goal": None}),
        ("default", {"measure": {}, "thresholds": [0.5, 0.5], "goal": None}),
        ("labels", ["one"]),
        ("labels", ["twin", "twin"]),
        ("students", [{"kind": "mean"}] * 2),
        ("students", [{"kind": "oracle"}] * 3),
        ("students", [{"kind": "paper", "pooling": "last", "width": 12, "num_heads": 3}] * 3),
        ("students", [{"kind": "paper", "pooling": "mean", "width": 12, "num_heads": 5}] * 3),
        ("teacher_head", {"kind": "mean"}),
    ],
)
def test_a_value_outside_its_range_is_named(model: Path, key: str, value: Any) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update({key: value}))
    reseal(model)

    with pytest.raises(FolderError, match=rf"early_exit\.json: .*{key}"):
        open_folder(model)


def test_settings_edited_by_hand_are_noticed(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update(max_length=65))

    with pytest.raises(FolderError, match=r"early_exit\.json: was damaged or edited"):
        open_folder(model)


def test_a_task_that_is_not_known_is_refused(model: Path) -> None:
    def another(entries: dict[str, Any]) -> None:
        entries["task"]["name"] = "juggling"
        entries["hashes"]["settings"] = hash_of_settings(entries)

    edit(model / "early_exit.json", another)
    with pytest.raises(FolderError, match=r"unknown task 'juggling'; known are single_label"):
        open_folder(model)
