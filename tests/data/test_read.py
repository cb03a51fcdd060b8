import csv
import gzip
import io
import json
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fastbert.data import lines
from fastbert.data.checks import count_empty, duplicates_between
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import load_examples, read_examples, read_rows
from fastbert.errors import DataError, MissingExtraError
from fastbert.tasks.labels import check_labels, label_names

COLUMNS = Columns()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    def write(name: str, content: bytes | str) -> Path:
        raw = content.encode("utf-8") if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


Write = Callable[[str, bytes | str], Path]


def _rows(path: str | Path, needs_label: bool = False) -> list[Example | BadRow]:
    return list(read_rows(path, COLUMNS, needs_label=needs_label))


def _one_bad(path: Path, needs_label: bool = True) -> BadRow:
    (bad,) = [row for row in _rows(path, needs_label) if isinstance(row, BadRow)]
    return bad


# Reading.

TABLE = [
    {"id": "a", "text": "good film", "text_pair": "", "label": "pos"},
    {"id": "b", "text": "", "text_pair": "电影 😀", "label": "neg"},
    {"id": "c", "text": 'he said "no", twice', "text_pair": "é", "label": "neg"},
]


def _as_csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _as_tsv(rows: list[dict[str, Any]]) -> str:
    return "".join("\t".join(row) + "\n" for row in [list(rows[0]), *(r.values() for r in rows)])


def _as_json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out, row_group_size=2)
    return out.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
    "rows.csv": _as_csv,
    "rows.tsv": _as_tsv,
    "rows.jsonl": _as_json_lines,
    "rows.csv.gz": _as_csv,
    "rows.tsv.gz": _as_tsv,
    "rows.jsonl.gz": _as_json_lines,
    "rows.parquet": _as_parquet,
}


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
    assert len(_rows(write("ROWS.CSV.gz", _as_csv(TABLE)))) == 3
    assert len(_rows(write("ROWS.Parquet", _as_parquet(TABLE)))) == 3


@pytest.mark.parametrize("form", [_as_csv, _as_tsv, _as_json_lines])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_standard_input_shows_its_format_in_its_first_line(
    monkeypatch: pytest.MonkeyPatch, form: Callable[[Any], str], mark: bytes
) -> None:
    raw = io.BytesIO(mark + form(TABLE).encode("utf-8"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="ascii"))

    rows = load_examples("-", COLUMNS, needs_label=True)
    assert [row.text for row in rows] == [row["text"] for row in TABLE]
    assert rows[0].place == ("standard input:1" if form is _as_json_lines else "standard input:2")


def test_rows_of_standard_input_come_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            return b'{"text": "again"}\n'

    class Input:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Input)
    rows = read_rows("-", COLUMNS, needs_label=False)
    assert [next(rows) for _ in range(3)][2] == Example("standard input:3", "again")


# Characters that no format here can hold in a text as they are: surrogates and NUL.
any_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(texts=st.lists(any_text, min_size=1, max_size=6))
def test_csv_gives_back_any_text_with_the_line_it_starts_in(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_bytes(_as_csv([{"label": "x", "text": text} for text in texts]).encode("utf-8"))

    line, expected = 2, []
    for text in texts:
        expected.append(Example(f"{path}:{line}", text))
        line += 1 + text.count("\n")
    assert _rows(path) == expected


@given(texts=st.lists(any_text, min_size=1, max_size=6))
def test_json_lines_and_parquet_give_back_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [{"text": text} for text in texts]
    (folder / "any.jsonl").write_text(_as_json_lines(rows), encoding="utf-8", newline="\n")
    (folder / "any.parquet").write_bytes(_as_parquet(rows))

    for name in ("any.jsonl", "any.parquet"):
        expected = [Example(f"{folder / name}:{n}", text) for n, text in enumerate(texts, start=1)]
        assert _rows(folder / name) == expected


def test_other_column_names_are_read(write: Write) -> None:
    path = write("rows.csv", "sentence,second,class,id\na,b,c,d\n")
    columns = Columns(text="sentence", pair="second", label="class")

    (row,) = load_examples(path, columns, needs_label=True)
    assert (row.text, row.text_pair, row.label, row.id) == ("a", "b", "c", "d")


def test_the_content_of_an_example_is_its_text_or_its_pair() -> None:
    assert Example("x:1", "a").content == "a"
    assert Example("x:1", "a", "").content == ("a", "")


def test_a_file_without_pairs_and_ids_gives_single_texts(write: Write) -> None:
    (row,) = _rows(write("rows.csv", "text,label\na,b\n"))

    assert isinstance(row, Example)
    assert (row.text_pair, row.id, row.label) == (None, None, None)  # no label was asked for


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (True, "true"), ("0", "0"), (" a", " a"), (2.0, "2")]
)
def test_labels_are_strings_whatever_the_file_holds(write: Write, value: Any, label: str) -> None:
    path = write("rows.jsonl", _as_json_lines([{"text": "a", "label": value}]))

    assert load_examples(path, COLUMNS, needs_label=True)[0].label == label


@pytest.mark.parametrize(("value", "found"), [(7, 7), ("7", "7"), (7.0, 7), (None, None)])
def test_ids_stay_what_they_are(write: Write, value: Any, found: Any) -> None:
    path = write("rows.jsonl", _as_json_lines([{"text": "a", "id": value}]))

    assert _rows(path) == [Example(f"{path}:1", "a", id=found)]


@pytest.mark.parametrize("value", [{"$oid": "0a"}, [1, 2], 0.5, True, "a\ud83d"])
def test_an_id_of_any_type_is_read_and_makes_no_row_a_bad_one(write: Write, value: Any) -> None:
    path = write("rows.jsonl", json.dumps({"text": "a", "label": "x", "id": value}))

    for needs_label in (True, False):
        (row,) = load_examples(path, COLUMNS, needs_label=needs_label)
        assert row.id == value


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


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_two_columns_of_ids_are_a_warning_and_no_ids(
    write: Write, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "rows.parquet":
        twice = pyarrow.table([["a"], ["1"], ["2"]], names=["text", "id", "id"])
        out = io.BytesIO()
        parquet.write_table(twice, out)
        path = write(name, out.getvalue())
    else:
        table = {"rows.csv": "text,id,id\na,1,2\n", "rows.tsv": "text\tid\tid\na\t1\t2\n"}
        path = write(name, table[name])

    (row,) = _rows(path)
    assert isinstance(row, Example)
    assert (row.text, row.id) == ("a", None)
    [warning] = caplog.messages
    assert "2 columns are called 'id', so no id is read" in warning


def test_labels_that_are_not_needed_are_not_even_decoded(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    label = pyarrow.array([b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": ["a"], "label": label}), path)

    assert [type(row) for row in _rows(path)] == [Example]
    assert _one_bad(path).error == "column 'label' is not UTF-8 (byte 0xe9); write the file anew"
    twice = path.with_name("rows.csv")
    twice.write_text("text,label,label\na,1,2\n")
    assert [type(row) for row in _rows(twice)] == [Example]


@pytest.mark.parametrize("null", [None, float("nan")])
def test_a_pair_that_is_null_is_a_single_text(write: Write, null: float | None) -> None:
    table: list[dict[str, Any]] = [
        {"text": "a", "text_pair": ""}, {"text": "a", "text_pair": null}
    ]  # fmt: skip
    lines = write("rows.jsonl", _as_json_lines([*table, {"text": "a"}]))
    assert [row.text_pair for row in load_examples(lines, COLUMNS, needs_label=False)] == [
        "", None, None
    ]  # fmt: skip

    table[1]["text_pair"] = None  # a column of Parquet has one type
    path = write("rows.parquet", _as_parquet(table))
    assert [row.text_pair for row in load_examples(path, COLUMNS, needs_label=False)] == ["", None]
    asked_for = Columns(pair="text_pair ")
    (row,) = load_examples(write("a.jsonl", '{"text": "a", "text_pair ": null}'), asked_for,
                           needs_label=False)  # fmt: skip
    assert row.content == "a"


def _with_class_names(labels: list[int | None], feature: object) -> bytes:
    out = io.BytesIO()
    table = pyarrow.table({"text": [f"text {n}" for n in range(len(labels))], "label": labels})
    metadata = json.dumps({"info": {"features": {"label": feature}}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), out)
    return out.getvalue()


def test_class_numbers_of_hugging_face_parquet_are_read_as_their_names(write: Write) -> None:
    feature = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    path = write("rows.parquet", _with_class_names([1, 0, -1, None, 2], feature))

    rows = _rows(path, needs_label=True)
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


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.csv.gz"])
def test_a_line_without_an_end_is_named_and_never_held(
    write: Write, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_LONGEST_LINE", 2**20)
    start = '{"text": "' if "jsonl" in name else "text\n"
    path = write(name, start + "a" * 2**24)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"rows\.\S+:[12]: goes on for more than 1 MiB without"):
        _rows(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_the_longest_csv_field_fits_into_a_line_of_any_characters() -> None:
    assert lines._LONGEST_CSV_FIELD * len("😀".encode()) <= lines._LONGEST_LINE


def test_whole_numbers_that_pandas_made_floats_are_whole_again(write: Write) -> None:
    # A column of integers with one missing: pandas writes floats, and NaN for the missing one.
    table = [
        {"text": "a", "label": 1.0, "id": 5.0},
        {"text": "b", "label": float("nan"), "id": 6.0},
    ]
    path = write("rows.parquet", _as_parquet(table))

    good, bad = _rows(path, needs_label=True)
    assert good == Example(f"{path}:1", "a", label="1", id=5)
    assert bad == BadRow(f"{path}:2", "column 'label' is empty; give every row a label", id=6)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(write: Write, name: str) -> None:
    lines = '{"text": "a"}\r\n{"text": "b"}\r\n' if "json" in name else "text\r\na\r\nb\r\n"
    rows = _rows(write(name, b"\xef\xbb\xbf" + lines.encode()))

    assert [row.text for row in rows if isinstance(row, Example)] == ["a", "b"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_blank_lines_are_no_rows_but_count_as_lines(write: Write, name: str) -> None:
    lines = '{"text": "a"}\n\n{"text": "b"}\n\n' if "json" in name else "text\n\nb\n\n"
    path = write(name, lines)

    assert _rows(path)[-1] == Example(f"{path}:3", "b")


def test_a_text_in_tsv_keeps_its_quotes(write: Write) -> None:
    path = write("rows.tsv", 'text\tlabel\n"open\t1\n"closed"\t0\n')

    assert [row.text for row in load_examples(path, COLUMNS, needs_label=True)] == [
        '"open',
        '"closed"',
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_of_a_million_characters_is_read(write: Write, name: str) -> None:
    long = "word " * 200_000
    (row,) = _rows(write(name, FORMATS[name]([{"text": long, "label": "x"}])))

    assert isinstance(row, Example)
    assert row.text == long


def test_a_limit_on_csv_fields_that_another_set_higher_stays(write: Write) -> None:
    before = csv.field_size_limit(10**9)
    try:
        _rows(write("rows.csv", "text\na\n"))
        assert csv.field_size_limit() == 10**9
    finally:
        csv.field_size_limit(before)


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


def test_memory_does_not_grow_with_the_row_groups_of_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"text {n}" * 300 for n in range(8_000)]})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=500)
    size = table.nbytes
    del table
    before = pyarrow.total_allocated_bytes()

    rows = read_rows(tmp_path / "rows.parquet", COLUMNS, needs_label=False)
    assert max(pyarrow.total_allocated_bytes() for _ in rows) - before < size / 3


# Rows that cannot be read: named, and nothing stops.


@pytest.mark.parametrize(
    ("name", "content", "line", "error"),
    [
        ("r.csv", "text,label\na,1\nb\nc,0\n", 3, r"expected 2 fields \['text', 'label'\], got 1"),
        ("r.csv", "text,label\na,1\nb, c,1\nd,0\n", 3, "got 3; in CSV quote a text that holds a"),
        ("r.tsv", "text\tlabel\na\t1\nb\tc\t1\nd\t0\n", 3, "got 3; .*in TSV a text cannot hold"),
        ("r.csv", 'text,label\na,1\n"b"c,1\nd,0\n', 3, "broken CSV .*double that quote"),
        ("r.csv", 'text,label\na,1\nd,0\n"b,1\ne,1\n', 4, "broken CSV, which took lines 4 to 5"),
        ("r.csv", "text,label\na,1\nd,\ne,0\n", 3, "column 'label' is empty"),
        ("r.csv", b"text,label\na,1\ncaf\xe9,1\nd,0\n", 3, r"not UTF-8 \(byte 0xe9\); .*cp1252"),
        ("r.csv", b'text,label\na,1\n"b\ncaf\xe9",1\nd,0\n', 3, "not UTF-8"),
        ("r.csv", b'text,label\na,1\n"caf\xe9" b,1\nd,0\n', 3, "not UTF-8"),
        ("r.tsv", b"text\tlabel\na\t1\ncaf\xe9\t1\nd\t0\n", 3, "iconv -f cp1252 -t utf-8"),
        ("r.csv", b"text,label\na,1\nb\0,1\nd,0\n", 3, "holds a NUL byte.*iconv -f utf-16"),
        ("r.tsv", b"text\tlabel\na\t1\nb\0\t1\nd\t0\n", 3, "holds a NUL byte"),
    ],
)
def test_a_bad_row_of_a_table_is_named_and_the_others_are_read(
    write: Write, name: str, content: bytes | str, line: int, error: str
) -> None:
    path = write(name, content)
    rows = _rows(path, needs_label=True)

    assert isinstance(rows[0], Example)
    bad = _one_bad(path)
    assert bad.place == f"{path}:{line}"
    assert re.search(error, bad.error)
    assert "\n" not in bad.error
    assert len(rows) == 3

    with pytest.raises(DataError, match=f"^{re.escape(bad.place)}: {re.escape(bad.error)}$"):
        load_examples(path, COLUMNS, needs_label=True)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "a", "label": 1', "broken JSON at character 25: Expecting ',' delimiter"),
        (b"plain text", "broken JSON at character 1"),
        (b'["a", 1]', r"expected one JSON object a line, got \['a', 1\] \(list\)"),
        (b"[" * 100_000, "JSON that cannot be read: maximum recursion depth"),
        (b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "JSON that cannot be read: .*4300"),
        (b'{"label": 1}', r"no column 'text', only \['label'\]; .*--text-column"),
        (b'{"text": "a"}', r"no column 'label', only \['text'\]; .*--label-column"),
        (b'{"text": null, "label": 1}', "column 'text' is null"),
        (b'{"text": 5, "label": 1}', r"column 'text' must be a string, got 5 \(int\)"),
        (b'{"text": ["a"], "label": 1}', r"must be a string, got \['a'\] \(list\)"),
        (b'{"text": "a", "label": null}', "column 'label' is empty"),
        (b'{"text": "a", "label": ""}', "column 'label' is empty"),
        (b'{"text": "a", "label": 0.5}', r"string or an integer, got 0.5 \(float\)"),
        (b'{"text": "a", "label": {}}', r"string or an integer, got \{\} \(dict\)"),
        (b'{"text": "a", "label": "\\ud83d"}', "column 'label' holds .* surrogate pair"),
        (b'{"text": "a\\ud83d", "label": 1}', r"column 'text' holds '\\ud83d', half of a"),
        (
            b'{"text": "a", "text_pair": 2, "label": 1}',
            "column 'text_pair' must be a string, got 2",
        ),
        (b'{"text": "caf\xe9", "label": 1}', r"not UTF-8 \(byte 0xe9\); .*cp1252"),
        (b'{"text": "a\0", "label": 1}', "holds a NUL byte"),
    ],
)
def test_a_bad_json_line_is_named_and_the_others_are_read(
    write: Write, line: bytes, error: str
) -> None:
    good = b'{"text": "fine", "label": "1"}\n'
    path = write("rows.jsonl", good + line + b"\n" + good)

    bad = _one_bad(path)
    assert bad.place == f"{path}:2"
    assert re.search(error, bad.error)
    assert "\n" not in bad.error
    assert len(_rows(path, needs_label=True)) == 3


def test_a_bad_row_keeps_its_id(write: Write) -> None:
    path = write("rows.jsonl", '{"text": null, "id": 17}\n')

    assert _one_bad(path).id == 17


def test_bad_labels_do_not_matter_where_none_are_needed(write: Write) -> None:
    path = write("rows.jsonl", '{"text": "a", "label": null}\n{"text": "b", "label": [1]}\n')

    assert [type(row) for row in _rows(path)] == [Example, Example]


def test_a_column_of_pairs_that_was_asked_for_must_be_there(write: Write) -> None:
    columns = Columns(pair="second")
    table, lines = write("r.csv", "text\na\n"), write("r.jsonl", '{"text": "a"}\n')

    with pytest.raises(DataError, match=r"no column 'second', only \['text'\]; .*--pair-column"):
        load_examples(table, columns, needs_label=False)
    (bad,) = read_rows(lines, columns, needs_label=False)
    assert isinstance(bad, BadRow)
    assert "--pair-column" in bad.error


def test_a_replacement_character_in_the_file_itself_is_a_character(write: Write) -> None:
    (row,) = _rows(write("rows.csv", "text\n\ufffd\n"))

    assert isinstance(row, Example)
    assert row.text == "\ufffd"


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    text = pyarrow.array([b"fine", b"caf\xe9", None, b"good"]).view(pyarrow.string())
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": text}), path)

    rows = _rows(path)
    assert [row.place for row in rows] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
    assert [type(row) for row in rows] == [Example, BadRow, BadRow, Example]
    errors = [row.error for row in rows if isinstance(row, BadRow)]
    assert errors[0] == "column 'text' is not UTF-8 (byte 0xe9); write the file anew"
    assert errors[1].startswith("column 'text' is null")


# Files that cannot be read as a whole.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "", "r.csv: holds no rows"),
        ("r.csv", "\n\n", "r.csv: holds no rows"),
        ("r.csv", "text,label\n", "r.csv: holds no rows"),
        ("r.tsv", "text\tlabel\r\n", "r.tsv: holds no rows"),
        ("r.jsonl", "", "r.jsonl: holds no rows"),
        ("r.jsonl.gz", "", "r.jsonl.gz: holds no rows"),
        ("r.parquet", _as_parquet(TABLE[:1])[:0], "r.parquet:1: damaged"),
        ("r.csv", "\nsentence,label\na,1\n", r"r.csv:2: no column 'text', only \['sentence', "),
        ("r.csv", "text,class\na,1\n", "r.csv:1: no column 'label', .*--label-column"),
        ("r.tsv", "text,label\na,1\n", "r.tsv:1: .* separated by commas"),
        ("r.parquet", _as_parquet([{"a": "b"}]), r"r.parquet: no column 'text', only \['a'\]"),
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
        _rows(path, needs_label=True)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; name the file in it"):
        _rows(tmp_path)
    with pytest.raises(DataError, match=r"nothing\.csv: does not exist"):
        _rows(tmp_path / "nothing.csv")


def test_a_file_that_may_not_be_read_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    path = write("rows.csv", "text\na\n")
    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read all
    with pytest.raises(DataError, match=r"rows\.csv: cannot be read \(Permission denied\)"):
        _rows(path)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.tsv.gz", "rows.jsonl.gz"])
@pytest.mark.parametrize("fault", ["cut", "changed"])
def test_damaged_gzip_gives_the_rows_before_the_damage_and_its_place(
    write: Write, name: str, fault: str
) -> None:
    table = [{"text": f"{n * 7919 % 65537} text {n}"} for n in range(9_000)]
    path = write(name, FORMATS[name](table))
    raw = bytearray(path.read_bytes())
    if fault == "cut":
        del raw[-1000:]
    else:
        raw[len(raw) // 2 : len(raw) // 2 + 50] = b"\xff" * 50
    path.write_bytes(raw)

    good: list[Example | BadRow] = []
    rows = read_rows(path, COLUMNS, needs_label=False)
    with pytest.raises(DataError, match=r"gz:\d+: damaged, and unreadable from here on") as raised:
        good.extend(rows)
    line = int(re.findall(r"gz:(\d+): ", str(raised.value))[0])
    if fault == "cut":
        assert line > 4_000
        assert [row.text for row in good if isinstance(row, Example)] == [
            row["text"] for row in table[: len(good)]
        ]
        assert len(good) == line - (1 if "json" in name else 2)


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
    path = write("rows.parquet", _as_parquet(TABLE))
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'fastbert-kit\[train\]'"):
        _rows(path)


def test_an_abandoned_reader_closes_its_file(write: Write) -> None:
    # A file left open would be a ResourceWarning, which is an error in these tests.
    for name in ("rows.csv", "rows.jsonl.gz", "rows.parquet"):
        rows: Iterator[object] = read_examples(
            write(name, FORMATS[name](TABLE)), COLUMNS, needs_label=False
        )
        next(rows)
        del rows


# Checks before training.


def _examples(*rows: tuple[str, str], file: str = "train.csv") -> list[Example]:
    return [
        Example(f"{file}:{line}", text, label=label) for line, (text, label) in enumerate(rows, 2)
    ]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "2", "-1"], ("-1", "2", "9", "10")),
        (["1", "01", "0"], ("0", "01", "1")),
        (["10", "9", "b"], ("10", "9", "b")),
    ],
)
def test_labels_are_sorted_by_number_if_all_are_numbers(
    labels: list[str], names: tuple[str, ...]
) -> None:
    assert label_names(_examples(*(("t", label) for label in labels))) == names


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match=r"^train\.csv: .* at least 2 labels, found \['a'\]$"):
        label_names(_examples(("x", "a"), ("y", "a")))
    with pytest.raises(DataError, match=r"at least 2 labels, found \[\]"):
        label_names([])


def test_labels_unknown_to_training_are_counted_and_located() -> None:
    dev = _examples(("a", "x"), ("b", "z"), ("c", "w"), ("d", "z"), file="dev.csv")
    check_labels(dev, ["w", "x", "z"])

    message = (
        r"^dev\.csv:3: label 'z' is not among the labels of training, \['x', 'y'\]; in all 3 rows "
        r"have such labels: 'z' \(2 rows\), 'w' \(1 rows\)$"
    )
    with pytest.raises(DataError, match=message):
        check_labels(dev, ["y", "x"])


@pytest.mark.parametrize(
    ("training", "other"), [("0", "0.0"), ("1.0", "1"), ("true", "True"), ("good", " Good ")]
)
def test_a_label_in_another_spelling_is_called_so(training: str, other: str) -> None:
    message = rf"; '{training}' is the same in another spelling, write both files alike"
    with pytest.raises(DataError, match=message):
        check_labels(_examples(("a", other)), [training, "x"])
    with pytest.raises(DataError, match=r"label None is not .* \(1 rows\)$"):
        check_labels([Example("a:1", "a")], [training, "x"])


def test_rows_of_dev_that_stand_in_train_are_counted() -> None:
    train = _examples(("a", "0"), ("b", "1"), ("a", "1"))
    dev = _examples(("a", "1"), ("a", "0"), ("c", "0"))
    assert duplicates_between(train, dev) == 2

    pair = Example("dev.csv:9", "a", "second")
    assert duplicates_between(train, [pair]) == 0
    assert duplicates_between([pair], [pair]) == 1


def test_empty_texts_are_read_and_counted(write: Write) -> None:
    path = write("rows.csv", 'text,text_pair\n"",b\na," "\na,b\n')

    assert count_empty(load_examples(path, COLUMNS, needs_label=False)) == 2
    assert count_empty([Example("x:1", "\n")]) == 1


def test_the_shared_data_is_read(shared: Path) -> None:
    examples = load_examples(shared / "data" / "mrpc" / "dev.parquet", COLUMNS, needs_label=True)

    assert len(examples) == 408
    assert label_names(examples) == ("0", "1")
    assert all(example.text_pair for example in examples)
