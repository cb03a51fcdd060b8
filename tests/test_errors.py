"""Errors say in their message and in their attributes what cannot be used, in any process."""

import pickle
from pathlib import Path

import pytest

from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.errors import DataError, FolderError
from fastbert.folder.read import open_folder


@pytest.mark.parametrize(
    ("error", "message", "path", "line"),
    [
        (DataError("is empty"), "is empty", None, None),
        (DataError("is empty", path=Path("a.csv")), "a.csv: is empty", "a.csv", None),
        (DataError("is empty", path="a.csv", line=3), "a.csv:3: is empty", "a.csv", 3),
        (
            DataError.at_row("is empty", "C:/b:c.csv:12"),
            "C:/b:c.csv:12: is empty",
            "C:/b:c.csv",
            12,
        ),
        (DataError.at_row("is empty", "b:c.parquet"), "b:c.parquet: is empty", "b:c.parquet", None),
    ],
)
def test_a_data_error_knows_its_file_and_line_in_another_process_too(
    error: DataError, message: str, path: str | None, line: int | None
) -> None:
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert type(found) is DataError
        assert (str(found), found.path, found.line) == (message, path, line)


@pytest.mark.parametrize(
    ("error", "message", "path"),
    [
        (FolderError("is gone"), "is gone", None),
        (FolderError("is gone", path=Path("m/x")), "m/x: is gone", "m/x"),
    ],
)
def test_a_folder_error_knows_its_path_in_another_process_too(
    error: FolderError, message: str, path: str | None
) -> None:
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert type(found) is FolderError
        assert (str(found), found.path) == (message, path)


def test_a_bad_row_is_found_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\ngood,1\nbad,\n", encoding="utf-8")

    with pytest.raises(DataError) as caught:
        load_examples(file, Columns(), needs_label=True)
    assert (caught.value.path, caught.value.line) == (str(file), 3)


def test_a_folder_that_is_not_there_is_found_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(FolderError) as caught:
        open_folder(tmp_path / "nowhere")
    assert caught.value.path == str(tmp_path / "nowhere")
