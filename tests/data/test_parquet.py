"""Rows of Parquet: classes by name, what Python cannot hold, damage, memory."""

import io
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import load_examples, read_rows
from fastbert.errors import DataError, MissingExtraError
from tests.data.files import COLUMNS, TABLE, Write, as_parquet, one_bad, rows_of


def test_ids_of_parquet_that_python_cannot_hold_are_no_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    columns = {
        "nanoseconds": pyarrow.array([1], pyarrow.timestamp("ns")),
        "year 300,000": pyarrow.array([9_400_000_000_000], pyarrow.timestamp("s")),
        "not UTF-8": pyarrow.array([b"caf\xe9"]).view(pyarrow.string()),
        "bytes": pyarrow.array([b"\0"]),
    }
    for ids in columns.values():
        parquet.write_table(pyarrow.table({"text": ["a"], "id": ids}), path)
        assert [row.text for row in load_examples(path, COLUMNS, needs_label=False)] == ["a"]


def test_labels_that_are_not_needed_are_not_even_decoded(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    label = pyarrow.array([b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": ["a"], "label": label}), path)

    assert [type(row) for row in rows_of(path)] == [Example]
    assert one_bad(path).error == "column 'label' is not UTF-8 (byte 0xe9); write the file anew"
    twice = path.with_name("rows.csv")
    twice.write_text("text,label,label\na,1,2\n")
    assert [type(row) for row in rows_of(twice)] == [Example]


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.int64()),
        pyarrow.large_list(pyarrow.int8()),
        pyarrow.list_(pyarrow.float64()),  # as pandas makes them
        pyarrow.list_(pyarrow.string()),
        pyarrow.large_list(pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
    ],
)
def test_lists_of_parquet_are_plain_names_of_any_type_of_list(
    tmp_path: Path, kind: pyarrow.DataType
) -> None:
    path = tmp_path / "rows.parquet"
    is_text = "string" in str(kind)
    lists = [[3, 1], [], [20]]
    label = pyarrow.array([[str(n) for n in row] if is_text else row for row in lists], kind)
    parquet.write_table(pyarrow.table({"text": ["a", "b", "c"], "label": label}), path)

    labels = [row.label for row in load_examples(path, COLUMNS, needs_label=True)]
    assert labels == [("3", "1"), (), ("20",)]
    assert {type(name) for names in labels for name in names} == {str}


def test_columns_of_labels_that_are_not_needed_are_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    columns = {"text": ["a", "b", "c"], "joy": [1, 0, 1], "anger": [0, 1, 1], "label": [7, 8, 9]}
    parquet.write_table(pyarrow.table(columns), path)
    raw = bytearray(path.read_bytes())
    for place in (2, 3):  # anger and label cannot be read any more
        chunk = parquet.read_metadata(path).row_group(0).column(place)
        start = chunk.dictionary_page_offset
        raw[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(raw)

    joy, both = Columns(labels=("joy",)), Columns(labels=("joy", "anger"))
    read = load_examples(path, joy, needs_label=True)
    assert [row.label for row in read] == [("joy",), (), ("joy",)]
    assert len(load_examples(path, both, needs_label=False)) == 3
    for broken in (both, COLUMNS):
        with pytest.raises(DataError, match="damaged, and unreadable from here on"):
            load_examples(path, broken, needs_label=True)


def _with_class_names(labels: list[int | None], feature: object) -> bytes:
    out = io.BytesIO()
    table = pyarrow.table({"text": [f"text {n}" for n in range(len(labels))], "label": labels})
    metadata = json.dumps({"info": {"features": {"label": feature}}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), out)
    return out.getvalue()


def test_class_numbers_of_hugging_face_parquet_are_read_as_their_names(write: Write) -> None:
    feature = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    path = write("rows.parquet", _with_class_names([1, 0, -1, None, 2], feature))

    rows = rows_of(path, needs_label=True)
    assert [row.label if isinstance(row, Example) else row.error for row in rows] == [
        "positive",
        "negative",
        "column 'label' is empty; give every row a label",  # how datasets writes it
        "column 'label' is empty; give every row a label",
        "2",
    ]


@pytest.mark.parametrize(
    "feature",
    [
        {"dtype": "int64", "_type": "Value"},
        {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "Sequence"},
        {"names": [1, 2], "_type": "ClassLabel"},
        {"names": None, "_type": "ClassLabel"},
        None,
        "int64",
    ],
)
def test_class_numbers_without_names_stay_numbers(write: Write, feature: object) -> None:
    path = write("rows.parquet", _with_class_names([1, 0], feature))

    assert [row.label for row in load_examples(path, COLUMNS, needs_label=True)] == ["1", "0"]


def test_memory_does_not_grow_with_the_row_groups_of_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"text {n}" * 300 for n in range(8_000)]})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=500)
    size = table.nbytes
    del table
    before = pyarrow.total_allocated_bytes()

    rows = read_rows(tmp_path / "rows.parquet", COLUMNS, needs_label=False)
    assert max(pyarrow.total_allocated_bytes() for _ in rows) - before < size / 3


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    text = pyarrow.array([b"fine", b"caf\xe9", None, b"good"]).view(pyarrow.string())
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": text}), path)

    rows = rows_of(path)
    assert [row.place for row in rows] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
    assert [type(row) for row in rows] == [Example, BadRow, BadRow, Example]
    errors = [row.error for row in rows if isinstance(row, BadRow)]
    assert errors[0] == "column 'text' is not UTF-8 (byte 0xe9); write the file anew"
    assert errors[1].startswith("column 'text' is null")


def test_damaged_parquet_is_named_with_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": [f"{n * 7919 % 65537} text {n}" for n in range(40_000)]})
    parquet.write_table(table, path, row_group_size=10_000)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 5000] = bytes(5000)
    path.write_bytes(raw)

    rows = read_rows(path, COLUMNS, needs_label=False)
    with pytest.raises(DataError, match=r"rows\.parquet:\d+: damaged, and unreadable from here on"):
        list(rows)


def test_parquet_without_pyarrow_says_what_to_install(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("rows.parquet", as_parquet(TABLE))
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'fastbert-kit\[train\]'"):
        rows_of(path)
