"""Rows of CSV, TSV and JSON lines: one bad line is named, and the others are read."""

import csv
import io
import re
import tracemalloc

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fastbert.data import lines
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import load_examples, read_rows
from fastbert.errors import DataError
from tests.data.files import (
    ANY_TEXT,
    COLUMNS,
    FORMATS,
    Write,
    as_csv,
    one_bad,
    rows_of,
)


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_csv_gives_back_any_text_with_the_line_it_starts_in(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_bytes(as_csv([{"label": "x", "text": text} for text in texts]).encode("utf-8"))

    line, expected = 2, []
    for text in texts:
        expected.append(Example(f"{path}:{line}", text))
        line += 1 + text.count("\n")
    assert rows_of(path) == expected


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

    (row,) = rows_of(path)
    assert isinstance(row, Example)
    assert (row.text, row.id) == ("a", None)
    [warning] = caplog.messages
    assert "2 columns are called 'id', so no id is read" in warning


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.csv.gz"])
def test_a_line_without_an_end_is_named_and_never_held(
    write: Write, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_LONGEST_LINE", 2**20)
    start = '{"text": "' if "jsonl" in name else "text\n"
    path = write(name, start + "a" * 2**24)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"rows\.\S+:[12]: goes on for more than 1 MiB without"):
        rows_of(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_the_longest_csv_field_fits_into_a_line_of_any_characters() -> None:
    assert lines._LONGEST_CSV_FIELD * len("😀".encode()) <= lines._LONGEST_LINE


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(write: Write, name: str) -> None:
    lines = '{"text": "a"}\r\n{"text": "b"}\r\n' if "json" in name else "text\r\na\r\nb\r\n"
    rows = rows_of(write(name, b"\xef\xbb\xbf" + lines.encode()))

    assert [row.text for row in rows if isinstance(row, Example)] == ["a", "b"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_blank_lines_are_no_rows_but_count_as_lines(write: Write, name: str) -> None:
    lines = '{"text": "a"}\n\n{"text": "b"}\n\n' if "json" in name else "text\n\nb\n\n"
    path = write(name, lines)

    assert rows_of(path)[-1] == Example(f"{path}:3", "b")


def test_a_text_in_tsv_keeps_its_quotes(write: Write) -> None:
    path = write("rows.tsv", 'text\tlabel\n"open\t1\n"closed"\t0\n')

    assert [row.text for row in load_examples(path, COLUMNS, needs_label=True)] == [
        '"open',
        '"closed"',
    ]


def test_a_limit_on_csv_fields_that_another_set_higher_stays(write: Write) -> None:
    before = csv.field_size_limit(10**9)
    try:
        rows_of(write("rows.csv", "text\na\n"))
        assert csv.field_size_limit() == 10**9
    finally:
        csv.field_size_limit(before)


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
    rows = rows_of(path, needs_label=True)

    assert isinstance(rows[0], Example)
    bad = one_bad(path)
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

    bad = one_bad(path)
    assert bad.place == f"{path}:2"
    assert re.search(error, bad.error)
    assert "\n" not in bad.error
    assert len(rows_of(path, needs_label=True)) == 3


def test_a_replacement_character_in_the_file_itself_is_a_character(write: Write) -> None:
    (row,) = rows_of(write("rows.csv", "text\n\ufffd\n"))

    assert isinstance(row, Example)
    assert row.text == "\ufffd"


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


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_two_columns_of_one_label_are_refused_where_labels_are_read(
    write: Write, name: str
) -> None:
    if name == "rows.parquet":
        out = io.BytesIO()
        twice = pyarrow.table([["a"], [1], [0], [1]], names=["text", "joy", "anger", "joy"])
        parquet.write_table(twice, out)
        path = write(name, out.getvalue())
    else:
        header = "text,joy,anger,joy\na,1,0,1\n"
        path = write(name, header if "csv" in name else header.replace(",", "\t"))
    columns = Columns(labels=("anger", "joy"))

    with pytest.raises(DataError, match="2 columns are called 'joy'; rename one"):
        load_examples(path, columns, needs_label=True)
    assert [row.text for row in load_examples(path, columns, needs_label=False)] == ["a"]


def test_a_table_with_columns_of_labels_under_a_wrong_name_is_called_so(write: Write) -> None:
    path = write("rows.csv", "text;joy;anger\na;1;0\n")
    with pytest.raises(DataError, match="its columns are separated by ';', not by commas"):
        load_examples(path, Columns(labels=("joy", "anger")), needs_label=True)
