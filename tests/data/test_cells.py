"""What the cells of a row become, whatever format they came in."""

import json
from typing import Any

import pytest

from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import load_examples, read_rows
from fastbert.errors import DataError
from tests.data.files import COLUMNS, Write, as_json_lines, as_parquet, one_bad, rows_of


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
