"""Options that say what the columns of a file are called, and groups of them."""

from dataclasses import dataclass
from typing import Annotated

import typer

from fastbert.data.example import Columns

PANEL = "Columns of the files"

TextColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the text.", rich_help_panel=PANEL)
]
PairColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column of the second text of a pair. The default is read where it is there.",
        rich_help_panel=PANEL,
    ),
]
LabelColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the label.", rich_help_panel=PANEL)
]
LabelColumns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Columns that each say by 1 or 0 whether their label holds, for texts of several "
        "labels; in place of --label-column.",
        rich_help_panel=PANEL,
    ),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(
        metavar="S",
        help="What separates labels in one cell, for texts of several labels; lists need none.",
        rich_help_panel=PANEL,
    ),
]
IdColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column of the row's id, repeated in the answer where it is there.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class TextColumns:
    """Columns of texts without labels."""

    text_column: TextColumn = Columns.text
    pair_column: PairColumn = Columns.pair

    def columns(self) -> Columns:
        """Return them as the library takes them."""
        return Columns(self.text_column, self.pair_column)


@dataclass(frozen=True)
class LabelledColumns(TextColumns):
    """Columns of labelled texts."""

    label_column: LabelColumn = Columns.label
    label_columns: LabelColumns = None
    label_separator: LabelSeparator = Columns.separator

    def __post_init__(self) -> None:
        """Refuse two ways to say where labels stand, or none.

        Raises:
            BadParameter: They were given.
        """
        if self.label_columns is None:
            return
        if not self._named:
            raise typer.BadParameter(f"--label-columns {self.label_columns!r} names no column")
        if self.label_column != Columns.label:
            raise typer.BadParameter("--label-columns stands in place of --label-column: give one")
        if self.label_separator is not None:
            raise typer.BadParameter(
                "--label-separator goes with --label-column; those of --label-columns hold 1 or 0"
            )

    def columns(self) -> Columns:
        """Return them as the library takes them."""
        return Columns(
            self.text_column,
            self.pair_column,
            self.label_column,
            separator=self.label_separator,
            labels=self._named,
        )

    @property
    def _named(self) -> tuple[str, ...]:
        """The columns of labels, between whose names there are commas."""
        names = [name.strip() for name in (self.label_columns or "").split(",")]
        return tuple(name for name in names if name)


@dataclass(frozen=True)
class NamedColumns(TextColumns):
    """Columns of texts with ids."""

    id_column: IdColumn = Columns.id

    def columns(self) -> Columns:
        """Return them as the library takes them."""
        return Columns(self.text_column, self.pair_column, id=self.id_column)
