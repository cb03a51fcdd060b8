"""What commands print, and what they say of a file that was classified."""

import json
import logging
from pathlib import Path

import pytest

from fastbert.bulk.files import FilePredictions
from fastbert.classifier import FastBertClassifier
from fastbert.cli.show import say_what_became_of, show_json, show_trained
from fastbert.errors import DataError, FastBertError
from tests.cli.commands import Capture, Trained


def test_json_is_written_as_it_is_read(capsys: Capture) -> None:
    show_json([{"label": "schön"}])
    shown = capsys.readouterr().out
    assert json.loads(shown) == [{"label": "schön"}]
    assert "schön" in shown


def test_the_next_command_can_be_typed_as_it_is_shown(trained: Trained, capsys: Capture) -> None:
    show_trained(FastBertClassifier.from_pretrained(trained.folder), Path("it's a model"))
    *table, last = capsys.readouterr().out.splitlines()
    assert any("* the default" in line for line in table)
    assert last == """Next: fastbert predict 'it'"'"'s a model' TEXTS.csv"""


def test_of_a_file_that_was_answered_as_a_whole_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say_what_became_of(FilePredictions(rows=7), "t.csv")
    assert caplog.messages == []


def test_what_is_answered_all_the_same_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = FilePredictions(rows=7, empty=2, lost_ids=3, lost_id=float("inf"))
    with caplog.at_level(logging.WARNING):
        say_what_became_of(found, "t.csv")
    assert caplog.messages == [
        "t.csv: 2 of 7 texts are empty",
        "t.csv: 3 of 7 ids are not given back, because JSON cannot hold them, such as inf",
    ]


def test_rows_without_an_answer_are_a_failure() -> None:
    with pytest.raises(FastBertError, match=r"^t\.csv: 2 of 7 rows have no answer; each says why"):
        say_what_became_of(FilePredictions(rows=7, bad=2), "t.csv")


def test_a_damage_is_what_is_said_of_a_file_that_has_bad_rows_too() -> None:
    found = FilePredictions(rows=7, bad=2, damage=DataError("t.csv:9: damaged"))
    with pytest.raises(DataError, match=r"^t\.csv:9: damaged; the 7 rows before it are written$"):
        say_what_became_of(found, "t.csv")
