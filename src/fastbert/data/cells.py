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
        parse: Reads the label's cell, or raises a `ValueError`; None to skip it.
    """
    cells = row.cells
    row_id = whole(cells.get(columns.id))
    try:
        if problem := missing_column(cells, columns, needs_label=parse is not None):
            raise CellError(problem)
        text = _read(cells, columns.text, text_in)
        has_pair = whole(cells.get(columns.pair)) is not None  # Parquet cannot leave it out
        text_pair = _read(cells, columns.pair, text_in) if has_pair else None
        label = None if parse is None else _read(cells, columns.label, parse)
    except CellError as error:
        return BadRow(row.place, str(error), row_id)
    return Example(row.place, text, text_pair, label, row_id)


def _read(cells: Mapping[str, object], column: str, parse: Parse) -> Any:
    try:
        return parse(cells[column])
    except ValueError as error:
        raise CellError(f"column {column!r} {error}") from error


def missing_column(names: Collection[str], columns: Columns, *, needs_label: bool) -> str | None:
    """Return what to say about the first column that is needed and not there."""
    needed = [(columns.text, "--text-column")]
    if columns.pair != Columns.pair:
        needed.append((columns.pair, "--pair-column"))
    if needs_label:
        needed.append((columns.label, "--label-column"))
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
