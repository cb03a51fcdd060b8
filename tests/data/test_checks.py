"""Rows that stand in two sets, and rows without text, are counted."""

from fastbert.data.checks import count_empty, duplicates_between
from fastbert.data.example import Example
from fastbert.data.read import load_examples
from tests.data.files import COLUMNS, Write


def test_rows_of_dev_that_stand_in_train_are_counted() -> None:
    train = [Example(f"train.csv:{line}", text) for line, text in enumerate("aba", 2)]
    dev = [Example(f"dev.csv:{line}", text, label="1") for line, text in enumerate("aac", 2)]
    assert duplicates_between(train, dev) == 2

    pair = Example("dev.csv:9", "a", "second")
    assert duplicates_between(train, [pair]) == 0
    assert duplicates_between([pair], [pair]) == 1


def test_empty_texts_are_read_and_counted(write: Write) -> None:
    path = write("rows.csv", 'text,text_pair\n"",b\na," "\na,b\n')

    assert count_empty(load_examples(path, COLUMNS, needs_label=False)) == 2
    assert count_empty([Example("x:1", "\n")]) == 1
