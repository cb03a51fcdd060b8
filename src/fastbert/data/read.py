"""From files to examples: CSV, TSV, JSON lines and Parquet, row by row.

A file is a stream of rows, and each row becomes an `Example` or a `BadRow` that says where and why,
so that prediction can go on and training can stop. Nothing is dropped in silence, and no more than
a few rows are held at a time. What ends a whole stream (a missing column, damaged gzip data) is a
`DataError`. Nothing here knows about tokens, models or torch.
"""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from fastbert.data import diagnosis
from fastbert.data.cells import Cells, Parse, example_of, target_in
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.lines import Lines, text_rows
from fastbert.data.parquet import parquet_rows
from fastbert.errors import DataError


def read_rows(
    path: str | Path, columns: Columns, *, needs_label: bool, parse: Parse = target_in
) -> Iterator[Example | BadRow]:
    """Yield the rows of a file in their order, good and bad, in constant memory.

    Args:
        path: A .csv, .tsv or .jsonl (also .ndjson, .json) file, each also with .gz behind it, or a
            .parquet file; "-" is standard input, whose first line shows its format.
        columns: What the columns are called.
        needs_label: Whether a row without a label is a bad one. If not, labels are not looked at.
        parse: What reads the cell of a label; by default a name, or a list as a tuple of names.

    Raises:
        DataError: The file as a whole cannot be read: missing, of another kind than its name says,
            without a column, without rows, or damaged from some row on. The rows before the damage
            have been yielded.
        MissingExtraError: Parquet needs pyarrow.
    """
    empty = True
    read_label = parse if needs_label else None
    for row in _rows(path, columns, needs_label):
        empty = False
        yield (row if isinstance(row, BadRow) else example_of(row, columns, read_label))
    if empty:
        raise DataError("holds no rows; is it the right file?", path=source_name(path))


def read_examples(
    path: str | Path, columns: Columns, *, needs_label: bool, parse: Parse = target_in
) -> Iterator[Example]:
    """Yield the rows like `read_rows`, but stop with a `DataError` at the first bad one."""
    for row in read_rows(path, columns, needs_label=needs_label, parse=parse):
        if isinstance(row, BadRow):
            raise DataError.at_row(row.error, row.place)
        yield row


def load_examples(
    path: str | Path, columns: Columns, *, needs_label: bool, parse: Parse = target_in
) -> list[Example]:
    """Return all rows of a file; the first bad one is a `DataError`."""
    return list(read_examples(path, columns, needs_label=needs_label, parse=parse))


# From a file to its rows' cells.


def _rows(path: str | Path, columns: Columns, needs_label: bool) -> Iterator[Cells | BadRow]:
    if str(path) == "-":
        lines = Lines(source_name(path), sys.stdin.buffer.readline)
        start = lines.peek()
        suffix = _format_of(start.decode("utf-8", errors="replace"))
        _refuse_other_kind(source_name(path), None, start, suffix, packed=False)
        yield from text_rows(suffix, lines, columns, needs_label)
        return
    path = Path(path)
    suffix, packed = _suffix(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from error
    with file:
        _refuse_other_kind(str(path), path.name, file.peek(), suffix, packed=packed)
        if suffix == ".parquet":
            yield from parquet_rows(path, columns, needs_label)
            return
        readline = gzip.GzipFile(fileobj=file).readline if packed else file.readline
        yield from text_rows(suffix, Lines(str(path), readline), columns, needs_label)


def _refuse_other_kind(
    source: str, name: str | None, start: bytes, suffix: str, *, packed: bool
) -> None:
    if kind := diagnosis.other_kind(start, name, suffix, packed=packed):
        raise DataError(kind, path=source)


def source_name(path: str | Path) -> str:
    """Return what messages call a source of rows."""
    return "standard input" if str(path) == "-" else str(path)


def _suffix(path: Path) -> tuple[str, bool]:
    """Return what kind of file it is, by its name, and whether it is packed by gzip."""
    if path.is_dir():
        raise DataError("is a folder; name the file in it", path=path)
    if not path.exists():
        raise DataError("does not exist", path=path)
    name = path.name.lower()
    packed = name.endswith(".gz")
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in (".ndjson", ".json"):  # other names of the same; an array in it is named as one
        suffix = ".jsonl"
    if suffix in (".csv", ".tsv", ".jsonl") or (suffix == ".parquet" and not packed):
        return suffix, packed
    raise DataError(
        "not a kind of file this reads; use .csv, .tsv or .jsonl (each may be packed: "
        ".csv.gz) or .parquet",
        path=path,
    )


def _format_of(first_line: str) -> str:
    if first_line.lstrip().startswith(("{", "[")):
        return ".jsonl"
    return ".tsv" if "\t" in first_line else ".csv"
