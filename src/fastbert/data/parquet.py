"""The rows of Parquet, a few at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbert.data.cells import Cells
from fastbert.data.example import BadRow, Columns
from fastbert.data.lines import check_header, damaged
from fastbert.errors import DataError
from fastbert.extras import needs_extra

_PARQUET_ROWS_AT_A_TIME = 1024


def parquet_rows(path: Path, columns: Columns, needs_label: bool) -> Iterator[Cells | BadRow]:
    """Yield the rows of a Parquet file."""
    with needs_extra("train", f"{path}: reading Parquet"):
        from pyarrow import ArrowException, parquet
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            ignored = check_header(str(path), names, columns, needs_label)
            wanted = {columns.text, columns.pair, columns.id} - ignored
            wanted |= set(columns.targets) if needs_label else set()
            classes = _class_names(file.schema_arrow.metadata, columns.label)
            batches = file.iter_batches(
                _PARQUET_ROWS_AT_A_TIME, columns=[name for name in names if name in wanted]
            )
            for batch in batches:
                for row in range(batch.num_rows):
                    number += 1
                    cells = {name: _parquet_cell(batch[name][row]) for name in batch.schema.names}
                    if classes and columns.label in cells:
                        cells[columns.label] = _class_name(cells[columns.label], classes)
                    yield Cells(f"{path}:{number}", cells)
    except (OSError, ArrowException) as error:
        raise DataError(
            damaged(" ".join(str(error).split())), path=path, line=number + 1
        ) from error


def _parquet_cell(scalar: Any) -> object:
    """Return the Python value, or what holds the place of one that Python has not got.

    Text that is not UTF-8 stays bytes. A time in nanoseconds or a year 300,000 stays as it is.
    """
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error.object
    except (ValueError, OverflowError):
        return scalar


def _class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """Return the names of a column of class numbers, as Hugging Face datasets writes them."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if named else None


def _class_name(number: object, names: Sequence[str]) -> object:
    if not isinstance(number, int):
        return number
    if number == -1:  # datasets' way to write that there is none
        return None
    return names[number] if 0 <= number < len(names) else number
