"""What the columns of a file are called on the command line."""

import pytest
import typer

from fastbert.cli.columns import LabelledColumns, NamedColumns, TextColumns
from fastbert.cli.run import run
from fastbert.data.example import Columns
from tests.cli.commands import Capture, only_line


def test_columns_are_those_that_were_named_and_else_the_librarys() -> None:
    assert LabelledColumns().columns() == NamedColumns().columns() == Columns()
    assert TextColumns("a", "b").columns() == Columns("a", "b")
    assert LabelledColumns("a", "b", "c").columns() == Columns("a", "b", "c")
    assert NamedColumns("a", "b", "d").columns() == Columns("a", "b", id="d")


def test_several_labels_stand_in_one_cell_or_in_columns_of_their_own() -> None:
    one_cell = LabelledColumns("a", "b", "c", label_separator=" | ")
    assert one_cell.columns() == Columns("a", "b", "c", separator=" | ")
    own = LabelledColumns("a", "b", label_columns=" joy,dry wit , anger,")
    assert own.columns() == Columns("a", "b", labels=("joy", "dry wit", "anger"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "c", "label_columns": "x,y"}, "in place of --label-column: give one"),
        ({"label_columns": "x,y", "label_separator": ";"}, "--label-separator goes with --label-"),
        ({"label_columns": " ,"}, "--label-columns ' ,' names no column"),
    ],
)
def test_labels_that_stand_in_two_places_or_none_are_wrong_usage(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        LabelledColumns(**options)


def test_labels_in_two_places_are_refused_before_any_file_is_read(capsys: Capture) -> None:
    command = "evaluate absent-folder absent.csv --label-columns joy,anger --label-separator ;"
    assert run(command.split()) == 2
    line = only_line(capsys.readouterr().err)
    assert "--label-separator goes with --label-column;" in line
    assert "absent" not in line
