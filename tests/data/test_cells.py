"""What the cells of a row become, whatever format they came in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastbert.data.cells import name_in, names_in
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import load_examples, read_rows
from fastbert.errors import DataError
from tests.data.files import (
    COLUMNS,
    FORMATS,
    Write,
    as_csv,
    as_json_lines,
    as_parquet,
    one_bad,
    rows_of,
)


def test_other_column_names_are_read(write: Write) -> None:
    path = write("rows.csv", "sentence,second,class,id\na,b,c,d\n")
    columns = Columns(text="sentence", pair="second", label="class")

    (row,) = load_examples(path, columns, needs_label=True)
    assert (row.text, row.text_pair, row.label, row.id) == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (True, "true"), ("0", "0"), (" a", " a"), (2.0, "2")]
)
def test_labels_are_strings_whatever_the_file_holds(write: Write, value: Any, label: str) -> None:
    path = write("rows.jsonl", as_json_lines([{"text": "a", "label": value}]))

    assert load_examples(path, COLUMNS, needs_label=True)[0].label == label


@pytest.mark.parametrize(("value", "found"), [(7, 7), ("7", "7"), (7.0, 7), (None, None)])
def test_ids_stay_what_they_are(write: Write, value: Any, found: Any) -> None:
    path = write("rows.jsonl", as_json_lines([{"text": "a", "id": value}]))

    assert rows_of(path) == [Example(f"{path}:1", "a", id=found)]


@pytest.mark.parametrize("value", [{"$oid": "0a"}, [1, 2], 0.5, True, "a\ud83d"])
def test_an_id_of_any_type_is_read_and_makes_no_row_a_bad_one(write: Write, value: Any) -> None:
    path = write("rows.jsonl", json.dumps({"text": "a", "label": "x", "id": value}))

    for needs_label in (True, False):
        (row,) = load_examples(path, COLUMNS, needs_label=needs_label)
        assert row.id == value


@pytest.mark.parametrize("null", [None, float("nan")])
def test_a_pair_that_is_null_is_a_single_text(write: Write, null: float | None) -> None:
    table: list[dict[str, Any]] = [
        {"text": "a", "text_pair": ""}, {"text": "a", "text_pair": null}
    ]  # fmt: skip
    lines = write("rows.jsonl", as_json_lines([*table, {"text": "a"}]))
    assert [row.text_pair for row in load_examples(lines, COLUMNS, needs_label=False)] == [
        "", None, None
    ]  # fmt: skip

    table[1]["text_pair"] = None  # a column of Parquet has one type
    path = write("rows.parquet", as_parquet(table))
    assert [row.text_pair for row in load_examples(path, COLUMNS, needs_label=False)] == ["", None]
    asked_for = Columns(pair="text_pair ")
    (row,) = load_examples(write("a.jsonl", '{"text": "a", "text_pair ": null}'), asked_for,
                           needs_label=False)  # fmt: skip
    assert row.content == "a"


def test_whole_numbers_that_pandas_made_floats_are_whole_again(write: Write) -> None:
    # A column of integers with one missing: pandas writes floats, and NaN for the missing one.
    table = [
        {"text": "a", "label": 1.0, "id": 5.0},
        {"text": "b", "label": float("nan"), "id": 6.0},
    ]
    path = write("rows.parquet", as_parquet(table))

    good, bad = rows_of(path, needs_label=True)
    assert good == Example(f"{path}:1", "a", label="1", id=5)
    assert bad == BadRow(f"{path}:2", "column 'label' is empty; give every row a label", id=6)


def test_a_bad_row_keeps_its_id(write: Write) -> None:
    path = write("rows.jsonl", '{"text": null, "id": 17}\n')

    assert one_bad(path).id == 17


def test_bad_labels_do_not_matter_where_none_are_needed(write: Write) -> None:
    path = write("rows.jsonl", '{"text": "a", "label": null}\n{"text": "b", "label": [1]}\n')

    assert [type(row) for row in rows_of(path)] == [Example, Example]


def test_a_column_of_pairs_that_was_asked_for_must_be_there(write: Write) -> None:
    columns = Columns(pair="second")
    table, lines = write("r.csv", "text\na\n"), write("r.jsonl", '{"text": "a"}\n')

    with pytest.raises(DataError, match=r"no column 'second', only \['text'\]; .*--pair-column"):
        load_examples(table, columns, needs_label=False)
    (bad,) = read_rows(lines, columns, needs_label=False)
    assert isinstance(bad, BadRow)
    assert "--pair-column" in bad.error


# Several labels to a row, in three shapes.

LABELS = ("joy", "dry wit", "anger", "fear")
SETS = [("joy",), (), ("dry wit", "fear"), ("joy", "dry wit", "anger")]
TEXTS = [{"text": f"text {number}"} for number in range(len(SETS))]


def _labels_of(path: Path, columns: Columns) -> list[Any]:
    return [row.label for row in load_examples(path, columns, needs_label=True)]


@pytest.mark.parametrize("name", [name for name in FORMATS if "sv" not in name])
def test_a_list_of_labels_is_read_as_a_tuple(write: Write, name: str) -> None:
    table = [text | {"label": list(held)} for text, held in zip(TEXTS, SETS, strict=True)]

    assert _labels_of(write(name, FORMATS[name](table)), COLUMNS) == SETS


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("separator", ["|", ", ", "->"])
def test_a_cell_is_split_into_its_labels(write: Write, name: str, separator: str) -> None:
    cells = [separator.join(held) for held in SETS]  # of no label an empty one
    table = [text | {"label": cell} for text, cell in zip(TEXTS, cells, strict=True)]

    assert _labels_of(write(name, FORMATS[name](table)), Columns(separator=separator)) == SETS


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("yes", "no"), [(1, 0), (True, False), ("1", "0"), ("TRUE", "false"), (1.0, 0.0)]
)
def test_columns_of_ones_are_read_as_the_names_of_those_that_hold(
    write: Write, name: str, yes: object, no: object
) -> None:
    if "tsv" in name:  # which writes strings alone
        yes, no = str(yes), str(no)
    table = [
        text | {label: yes if label in held else no for label in LABELS}
        for text, held in zip(TEXTS, SETS, strict=True)
    ]
    path = write(name, FORMATS[name](table))

    assert _labels_of(path, Columns(labels=LABELS)) == SETS
    turned = Columns(labels=LABELS[::-1], label="not there")
    assert _labels_of(path, turned) == [held[::-1] for held in SETS]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("a|", ("a",)),
        ("|| b c |a|", ("b c", "a")),
        ("a|b|a", ("a", "b")),
        ("  ", ()),
        (7, ("7",)),
        (2.0, ("2",)),
        (True, ("true",)),
        (["a|b", "c"], ("a|b", "c")),  # one that is a list already
        ([], ()),
    ],
)
def test_what_is_empty_between_separators_is_no_label(
    write: Write, cell: object, labels: tuple[str, ...]
) -> None:
    path = write("rows.jsonl", as_json_lines([{"text": "a", "label": cell}]))

    assert _labels_of(path, Columns(separator="|")) == [labels]


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        (None, "column 'label' is null; where no label holds write an empty string"),
        (0.5, "column 'label' must be a string or an integer, got 0.5 (float)"),
    ],
)
def test_what_cannot_be_split_is_a_bad_row(write: Write, cell: object, error: str) -> None:
    path = write("rows.jsonl", as_json_lines([{"text": "a", "label": cell}]))

    assert list(read_rows(path, Columns(separator="|"), needs_label=True)) == [
        BadRow(f"{path}:1", error)
    ]


@pytest.mark.parametrize("cell", [None, "", "yes", 2, -1, 0.5, [1], " 1"])
def test_a_column_that_says_neither_one_nor_nought_makes_a_bad_row(
    write: Write, cell: object
) -> None:
    rows = [{"text": "a", "joy": 1, "anger": 0}, {"text": "b", "joy": 0, "anger": cell}]
    path = write("rows.jsonl", as_json_lines(rows))
    columns = Columns(labels=("joy", "anger"))

    good, bad = read_rows(path, columns, needs_label=True)
    assert good == Example(f"{path}:1", "a", label=("joy",))
    told = f"column 'anger' must be 1 where its label holds and else 0, got {cell!r}"
    assert bad == BadRow(f"{path}:2", f"{told} ({type(cell).__name__})")
    assert [row.label for row in load_examples(path, columns, needs_label=False)] == [None, None]


def test_a_column_of_a_label_that_is_not_there_is_named(write: Write) -> None:
    columns = Columns(labels=("joy", "anger"))
    row = {"text": "a", "joy": 1, "label": "anger"}
    message = r"no column 'anger', only \['text', 'joy', 'label'\]; name .* by --label-columns$"
    for name in ("rows.csv", "rows.parquet"):
        path = write(name, FORMATS[name]([row]))
        with pytest.raises(DataError, match=message):
            load_examples(path, columns, needs_label=True)
        assert len(load_examples(path, columns, needs_label=False)) == 1
    (bad,) = read_rows(write("rows.jsonl", as_json_lines([row])), columns, needs_label=True)
    assert isinstance(bad, BadRow)
    assert re.search(message, bad.error)


def test_who_reads_one_label_says_what_is_wrong_with_several(write: Write) -> None:
    path = write("rows.csv", as_csv([{"text": "a", "label": "x;y", "joy": "1", "anger": "0"}]))
    for columns, called in (
        (Columns(separator=";"), "column 'label' must be a string or an integer, got ['x', 'y']"),
        (Columns(labels=("joy", "anger")), "labels by columns ['joy', 'anger'] must be a string"),
    ):
        (bad,) = read_rows(path, columns, needs_label=True, parse=name_in)
        assert isinstance(bad, BadRow)
        assert bad.error.startswith(called)


def test_a_list_that_is_null_is_told_from_an_empty_one(write: Write) -> None:
    lists = {"a": [3, 1], "b": None, "c": []}
    table = [{"text": text, "label": held} for text, held in lists.items()]
    path = write("rows.parquet", as_parquet(table))

    rows = list(read_rows(path, COLUMNS, needs_label=True, parse=names_in))
    assert rows == [
        Example(f"{path}:1", "a", label=("3", "1")),
        BadRow(f"{path}:2", "column 'label' is null; where no label holds write an empty list"),
        Example(f"{path}:3", "c", label=()),
    ]
