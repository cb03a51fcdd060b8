"""From a row's cells to an example."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any  # cuts what is long

from fastbert.data import diagnosis
from fastbert.data.example import BadRow, Columns, Example

# From a row's cells to an example.


@dataclass(frozen=True, slots=True)
class Cells:
    """A row as its format gives it."""

    place: str
    cells: Mapping[str, object]


Parse = Callable[[object], Any]
"""From a cell to what it means, or a `ValueError` that says what is wrong with it."""


class CellError(Exception):
    """What is wrong with a cell."""


def example_of(row: Cells, columns: Columns, parse: Parse | None) -> Example | BadRow:
    """Return what a row becomes, or why it is no example.

    Args:
        row: Its cells.
        columns: What the columns are called.
        parse: Reads the label's cell, or the list that is made of several labels, or raises a
            `ValueError`; None to look at no label.
    """
    cells = row.cells
    row_id = whole(cells.get(columns.id))
    try:
        if problem := missing_column(cells, columns, needs_label=parse is not None):
            raise CellError(problem)
        text = _read(cells, columns.text, text_in)
        has_pair = whole(cells.get(columns.pair)) is not None  # Parquet cannot leave it out
        text_pair = _read(cells, columns.pair, text_in) if has_pair else None
        label = None if parse is None else _label(cells, columns, parse)
    except CellError as error:
        return BadRow(row.place, str(error), row_id)
    return Example(row.place, text, text_pair, label, row_id)


def _label(cells: Mapping[str, object], columns: Columns, parse: Parse) -> Any:
    """Return what `parse` makes of a row's label or labels, whichever shape these have."""
    if columns.labels:
        held = [name for name in columns.labels if _read(cells, name, holds_in)]
        return _parsed(held, f"labels by columns {shown(list(columns.labels))}", parse)
    return _read(cells, columns.label, lambda cell: parse(parts_in(cell, columns.separator)))


def _read(cells: Mapping[str, object], column: str, parse: Parse) -> Any:
    return _parsed(cells[column], f"column {column!r}", parse)


def _parsed(cell: object, called: str, parse: Parse) -> Any:
    try:
        return parse(cell)
    except ValueError as error:
        raise CellError(f"{called} {error}") from error


def missing_column(names: Collection[str], columns: Columns, *, needs_label: bool) -> str | None:
    """Return what to say about the first column that is needed and not there."""
    needed = [(columns.text, "--text-column")]
    if columns.pair != Columns.pair:
        needed.append((columns.pair, "--pair-column"))
    if needs_label:
        option = "--label-columns" if columns.labels else "--label-column"
        needed += [(name, option) for name in columns.targets]
    for name, option in needed:
        if name not in names:
            return f"no column {name!r}, only {shown(list(names))}; name the right one by {option}"
    return None


def text_in(cell: object) -> str:
    """Return the text that a cell holds.

    Raises:
        ValueError: It holds none.
    """
    if cell is None:
        raise ValueError("is null; write an empty text as an empty string")
    return _string(cell, "a string")


def name_in(cell: object) -> str:
    """Return the label that a cell holds: a string, an integer, or a truth value as JSON spells it.

    Raises:
        ValueError: It is empty or holds something else.
    """
    cell = whole(cell)
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int):
        return str(cell)
    if cell is None or cell == "":
        raise ValueError("is empty; give every row a label")
    return _string(cell, "a string or an integer")


def names_in(cell: object) -> tuple[str, ...]:
    """Return the labels that a cell holds: a list of names, which may be empty.

    Raises:
        ValueError: It is no list, or holds something that is no name.
    """
    if whole(cell) is None:
        raise ValueError("is null; where no label holds write an empty list")
    if not isinstance(cell, list | tuple):
        raise ValueError(
            f"must be a list of labels, got {kind_of(cell)}; if they stand in one cell, say what "
            "separates them by --label-separator"
        )
    names = []
    for place, entry in enumerate(cell):
        try:
            names.append(name_in(entry))
        except ValueError as error:
            raise ValueError(f"at place {place + 1} of its list {error}") from error
    return tuple(dict.fromkeys(names))


def target_in(cell: object) -> str | tuple[str, ...]:
    """Return the label that a cell holds or, of a list, the labels.

    Raises:
        ValueError: It holds neither.
    """
    return names_in(cell) if isinstance(cell, list | tuple) else name_in(cell)


def parts_in(cell: object, separator: str | None) -> object:
    """Return the list of labels that a cell holds with separators between; a list as it is.

    White space around a label is no part of it, and what is empty is no label.

    Raises:
        ValueError: It is null, or holds something that cannot be split.
    """
    if separator is None or isinstance(cell, list | tuple):
        return cell
    if whole(cell) is None:
        raise ValueError("is null; where no label holds write an empty string")
    parts = [] if cell == "" else name_in(cell).split(separator)
    return [part.strip() for part in parts if part.strip()]


_SAID = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def holds_in(cell: object) -> bool:
    """Return whether a cell says that the label of its column holds.

    Raises:
        ValueError: It says neither that nor the contrary.
    """
    said = _SAID.get(str(cell).lower())
    if said is None:
        raise ValueError(f"must be 1 where its label holds and else 0, got {kind_of(cell)}")
    return said


def whole(cell: object) -> object:
    """Give back the integer that pandas made a float of, because another row has none."""
    if not isinstance(cell, float):
        return cell
    if cell != cell:  # NaN, pandas' way to write null
        return None
    return int(cell) if cell.is_integer() else cell


def _string(cell: object, wanted: str) -> str:
    if isinstance(cell, bytes) and (problem := diagnosis.encoding_advice(cell)):
        raise ValueError(f"{problem.partition(';')[0]}; write the file anew")
    if not isinstance(cell, str):
        raise ValueError(f"must be {wanted}, got {kind_of(cell)}")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"holds {cell[error.start]!r}, half of a surrogate pair, which is no character; remove "
            "or replace it"
        ) from error
    return cell


def kind_of(value: object) -> str:
    """Return a value with its type, for a message."""
    return f"{shown(value)} ({type(value).__name__})"
