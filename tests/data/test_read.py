"""Every format gives the same rows, whole files are refused with the reason, nothing is held."""

import io
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert.data.example import Example
from fastbert.data.read import load_examples, read_examples, read_rows
from fastbert.errors import DataError
from fastbert.tasks.labels import label_names
from tests.data.files import (
    ANY_TEXT,
    COLUMNS,
    FORMATS,
    TABLE,
    Write,
    as_csv,
    as_json_lines,
    as_parquet,
    as_tsv,
    rows_of,
)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(write: Write, name: str) -> None:
    path = write(name, FORMATS[name](TABLE))

    first = 1 if "jsonl" in name or "parquet" in name else 2  # a table's first line is its header
    expected = [
        Example(f"{path}:{first + n}", row["text"], row["text_pair"], row["label"], row["id"])
        for n, row in enumerate(TABLE)
    ]
    assert load_examples(path, COLUMNS, needs_label=True) == expected


def test_the_case_of_a_file_name_does_not_matter(write: Write) -> None:
    assert len(rows_of(write("ROWS.CSV.gz", as_csv(TABLE)))) == 3
    assert len(rows_of(write("ROWS.Parquet", as_parquet(TABLE)))) == 3


@pytest.mark.parametrize("form", [as_csv, as_tsv, as_json_lines])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_standard_input_shows_its_format_in_its_first_line(
    monkeypatch: pytest.MonkeyPatch, form: Callable[[Any], str], mark: bytes
) -> None:
    raw = io.BytesIO(mark + form(TABLE).encode("utf-8"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="ascii"))

    rows = load_examples("-", COLUMNS, needs_label=True)
    assert [row.text for row in rows] == [row["text"] for row in TABLE]
    assert rows[0].place == ("standard input:1" if form is as_json_lines else "standard input:2")


def test_rows_of_standard_input_come_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            return b'{"text": "again"}\n'

    class Input:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Input)
    rows = read_rows("-", COLUMNS, needs_label=False)
    assert [next(rows) for _ in range(3)][2] == Example("standard input:3", "again")


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_json_lines_and_parquet_give_back_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [{"text": text} for text in texts]
    (folder / "any.jsonl").write_text(as_json_lines(rows), encoding="utf-8", newline="\n")
    (folder / "any.parquet").write_bytes(as_parquet(rows))

    for name in ("any.jsonl", "any.parquet"):
        expected = [Example(f"{folder / name}:{n}", text) for n, text in enumerate(texts, start=1)]
        assert rows_of(folder / name) == expected


def test_a_file_without_pairs_and_ids_gives_single_texts(write: Write) -> None:
    (row,) = rows_of(write("rows.csv", "text,label\na,b\n"))

    assert isinstance(row, Example)
    assert (row.text_pair, row.id, row.label) == (None, None, None)  # no label was asked for


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_of_a_million_characters_is_read(write: Write, name: str) -> None:
    long = "word " * 200_000
    (row,) = rows_of(write(name, FORMATS[name]([{"text": long, "label": "x"}])))

    assert isinstance(row, Example)
    assert row.text == long


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv.gz", "rows.jsonl"])
def test_memory_does_not_grow_with_the_rows(write: Write, name: str) -> None:
    def peak(rows: int) -> int:
        path = write(name, FORMATS[name]([{"text": f"text {n}" * 60} for n in range(rows)]))
        tracemalloc.start()
        count = sum(1 for _ in read_rows(path, COLUMNS, needs_label=False))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == rows
        return peak

    peak(10)  # what the first use of a library keeps
    assert peak(4_000) < peak(400) + 500_000  # the texts of 4,000 rows take 2 MB


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "", "r.csv: holds no rows"),
        ("r.csv", "\n\n", "r.csv: holds no rows"),
        ("r.csv", "text,label\n", "r.csv: holds no rows"),
        ("r.tsv", "text\tlabel\r\n", "r.tsv: holds no rows"),
        ("r.jsonl", "", "r.jsonl: holds no rows"),
        ("r.jsonl.gz", "", "r.jsonl.gz: holds no rows"),
        ("r.parquet", as_parquet(TABLE[:1])[:0], "r.parquet:1: damaged"),
        ("r.csv", "\nsentence,label\na,1\n", r"r.csv:2: no column 'text', only \['sentence', "),
        ("r.csv", "text,class\na,1\n", "r.csv:1: no column 'label', .*--label-column"),
        ("r.tsv", "text,label\na,1\n", "r.tsv:1: .* separated by commas"),
        ("r.parquet", as_parquet([{"a": "b"}]), r"r.parquet: no column 'text', only \['a'\]"),
        ("r.csv", "text,label,text\na,1,b\n", "r.csv:1: 2 columns are called 'text'"),
        ("r.csv", b"text,caf\xe9\na,1\n", "r.csv:1: is not UTF-8"),
        ("r.csv", "text,label\na,1\n".encode("utf-16"), "r.csv:1: holds a NUL .*-f utf-16"),
        ("r.csv", "text,label\ra,1\rb,0\r", "r.csv: its lines end in CR alone"),
        ("r.txt", "a", "r.txt: not a kind of file this reads; use .csv, .tsv or .jsonl"),
        ("rows", "a", "rows: not a kind of file this reads"),
        ("r.parquet.gz", b"", "r.parquet.gz: not a kind of file this reads"),
        ("r.parquet", b"PAR1, said the file", "r.parquet:1: damaged"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    write: Write, name: str, content: bytes | str, message: str
) -> None:
    path = write(name, content)

    with pytest.raises(DataError, match=message) as raised:
        rows_of(path, needs_label=True)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; name the file in it"):
        rows_of(tmp_path)
    with pytest.raises(DataError, match=r"nothing\.csv: does not exist"):
        rows_of(tmp_path / "nothing.csv")


def test_a_file_that_may_not_be_read_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    path = write("rows.csv", "text\na\n")
    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read all
    with pytest.raises(DataError, match=r"rows\.csv: cannot be read \(Permission denied\)"):
        rows_of(path)


def test_an_abandoned_reader_closes_its_file(write: Write) -> None:
    # A file left open would be a ResourceWarning, which is an error in these tests.
    for name in ("rows.csv", "rows.jsonl.gz", "rows.parquet"):
        rows: Iterator[object] = read_examples(
            write(name, FORMATS[name](TABLE)), COLUMNS, needs_label=False
        )
        next(rows)
        del rows


def test_the_shared_data_is_read(shared: Path) -> None:
    examples = load_examples(shared / "data" / "mrpc" / "dev.parquet", COLUMNS, needs_label=True)

    assert len(examples) == 408
    assert label_names(examples) == ("0", "1")
    assert all(example.text_pair for example in examples)
