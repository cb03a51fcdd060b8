"""JSON that is not as strict as it must be is refused by name."""

from pathlib import Path

import pytest

from fastbert.errors import FolderError
from fastbert.folder.read import open_folder
from tests.folder.folders import edit


@pytest.mark.parametrize("name", ["early_exit.json", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"null", b"[" * 100_000, b"9" * 9_999],
    ids=["empty", "open", "a list", "UTF-16", "BOM", "null", "deep", "long"],
)
def test_broken_json_is_named(model: Path, name: str, broken: bytes) -> None:
    (model / name).write_bytes(broken)

    with pytest.raises(FolderError, match=f"{name}: (is not JSON|must hold a JSON object)"):
        open_folder(model)


def test_a_key_given_twice_is_refused(model: Path) -> None:
    path = model / "early_exit.json"
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"num_layers": 4,', 1), "utf-8")

    with pytest.raises(FolderError, match=r"early_exit\.json: is not JSON: a key is given twice"):
        open_folder(model)


def test_a_number_that_json_does_not_have_is_refused(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["training"].update(loss=float("nan")))

    with pytest.raises(FolderError, match=r"early_exit\.json: is not JSON: NaN"):
        open_folder(model)


def test_settings_nested_too_deep_to_check_are_refused(model: Path) -> None:
    path = model / "early_exit.json"
    deep = '"training": {"a": ' + "[" * 980 + "]" * 980 + ", "
    path.write_text(path.read_text(encoding="utf-8").replace('"training": {', deep), "utf-8")

    with pytest.raises(FolderError, match=r"early_exit\.json: "):
        open_folder(model)
