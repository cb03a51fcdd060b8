"""What is read of files, what is held out of them, and which are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbert.data.example import Example
from fastbert.errors import DataError
from fastbert.recipes.contents import Content, holding_out, marked, warn_about
from tests.recipes.runs import run
from tests.tiny_data import examples


def test_content_is_the_texts_and_labels_wherever_they_lie() -> None:
    rows = examples(5)
    content = Content.of(rows)
    assert content.rows == 5
    assert Content.of(replace(row, place="elsewhere:1") for row in rows) == content
    assert Content.of(reversed(rows)) != content
    for other in ({"label": "odd"}, {"text_pair": "word1"}, {"text": "word1"}):
        changed: Any = other
        assert Content.of([replace(rows[0], **changed), *rows[1:]]) != content


@pytest.mark.parametrize(("rows", "held_out"), [(9, 0), (10, 1), (25, 2), (20_030, 2_000)])
def test_one_row_in_ten_is_held_out_up_to_a_limit(rows: int, held_out: int) -> None:
    [row] = examples(1)
    kept: list[Example] = []
    assert sum(1 for _ in holding_out([row] * rows, kept)) == rows
    assert len(kept) == held_out
    assert [place for place, (_, out) in enumerate(marked([row] * 25)) if out] == [9, 19]


def test_empty_texts_and_those_of_two_files_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = examples(60, seed=1)
    dev = [*rows[:7], *examples(20, seed=2), replace(rows[0], text="")]
    warn_about("train.csv", rows, {"dev.csv": dev, "test.csv": examples(9, seed=3)})
    assert [record.getMessage() for record in caplog.records] == [
        "dev.csv: 1 of 28 texts are empty",
        "dev.csv: 7 of 28 texts also stand in train.csv, so its figures flatter",
    ]


@pytest.mark.parametrize("place", ["output.training", "output"])
def test_texts_that_the_run_would_remove_are_refused(place: str, files: dict[str, Path]) -> None:
    folder = files["output"].with_name(place)
    folder.mkdir()
    (folder / "early_exit.json").touch()  # as in an earlier model folder
    inside = files["train"].rename(folder / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv: lies in .*, which this run writes anew"):
        run(files, train=inside)
    assert inside.exists()
