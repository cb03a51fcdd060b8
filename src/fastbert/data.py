"""From files to examples: CSV, TSV, JSON lines and Parquet, row by row.

A file is a stream of rows, and each row becomes an `Example` or a `BadRow` that says where and why,
so that prediction can go on and training can stop. Nothing is dropped in silence, and no more than
a few rows are held at a time. What ends a whole stream (a missing column, damaged gzip data) is a
`DataError`. Nothing here knows about tokens, models or torch.
"""

import csv
import gzip
import json
import logging
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as shown  # cuts what is long
from typing import Any

from fastbert import diagnosis
from fastbert.errors import DataError
from fastbert.extras import needs_extra

logger = logging.getLogger(__name__)

# A text may be long; an unclosed quote must not pull the rest of a large file into memory.
_LONGEST_CSV_FIELD = 16 * 2**20
_LONGEST_LINE = 64 * 2**20  # bytes: such a field, whatever its characters
_PARQUET_ROWS_AT_A_TIME = 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns.

    The pair and id columns are read where the file has them; a pair column with another than the
    default name was asked for, so it must be there. No id makes a row a bad one.
    """

    text: str = "text"
    pair: str = "text_pair"
    label: str = "label"
    id: str = "id"


@dataclass(frozen=True, slots=True)
class Example:
    """A row that can be used.

    Args:
        place: "file:line", or in Parquet "file:row".
        text: The text.
        text_pair: The second text of a pair.
        label: The label, where one was asked for.
        id: What the file has as the row's id, of whatever type.
    """

    place: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    id: object = None

    @property
    def content(self) -> str | tuple[str, str]:
        """The text, or the pair of texts, as tokenizers and classifiers take it."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used; `error` is one line that says what to do."""

    place: str
    error: str
    id: object = None


def read_rows(
    path: str | Path, columns: Columns, *, needs_label: bool
) -> Iterator[Example | BadRow]:
    """Yield the rows of a file in their order, good and bad, in constant memory.

    Args:
        path: A .csv, .tsv or .jsonl (also .ndjson, .json) file, each also with .gz behind it, or a
            .parquet file; "-" is standard input, whose first line shows its format.
        columns: What the columns are called.
        needs_label: Whether a row without a label is a bad one. If not, labels are not looked at.

    Raises:
        DataError: The file as a whole cannot be read: missing, of another kind than its name says,
            without a column, without rows, or damaged from some row on. The rows before the damage
            have been yielded.
        MissingExtraError: Parquet needs pyarrow.
    """
    empty = True
    for row in _rows(path, columns, needs_label):
        empty = False
        yield row if isinstance(row, BadRow) else _example(row, columns, needs_label)
    if empty:
        raise DataError(f"{source_name(path)}: holds no rows; is it the right file?")


def read_examples(path: str | Path, columns: Columns, *, needs_label: bool) -> Iterator[Example]:
    """Yield the rows like `read_rows`, but stop with a `DataError` at the first bad one."""
    for row in read_rows(path, columns, needs_label=needs_label):
        if isinstance(row, BadRow):
            raise DataError(f"{row.place}: {row.error}")
        yield row


def load_examples(path: str | Path, columns: Columns, *, needs_label: bool) -> list[Example]:
    """Return all rows of a file; the first bad one is a `DataError`."""
    return list(read_examples(path, columns, needs_label=needs_label))


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the distinct labels, in the order of their numbers if all are integers.

    Raises:
        DataError: There are fewer than two, so there is nothing to tell apart.
    """
    place = "the training data"
    names: set[str] = set()
    for example in examples:
        place = example.place
        if example.label is not None:
            names.add(example.label)
    if len(names) < 2:
        file = place.rpartition(":")[0] or place
        raise DataError(f"{file}: a classifier needs at least 2 labels, found {sorted(names)}")
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def check_labels(examples: Iterable[Example], labels: Collection[str]) -> None:
    """Raise a `DataError` that counts the labels that are not among `labels`, if there are any."""
    known = frozenset(labels)
    strangers = [example for example in examples if example.label not in known]
    if strangers:
        first = strangers[0]
        counts = Counter(example.label for example in strangers).most_common(5)
        listed = ", ".join(f"{shown(label)} ({rows} rows)" for label, rows in counts)
        raise DataError(
            f"{first.place}: label {shown(first.label)} is not among the labels of "
            f"training, {shown(sorted(known))}; in all {len(strangers)} rows have such labels: "
            f"{listed}{_spelling(first.label, known)}"
        )


def _spelling(stranger: str | None, known: Collection[str]) -> str:
    """Say so where a label of training differs in its spelling only."""
    for label in sorted(known):
        if stranger is not None and _value(stranger) == _value(label):
            return (
                f"; {shown(label)} is the same in another spelling, write both files alike: in "
                "Parquet and JSON the number 1.0 is read as 1, and true as 'true'"
            )
    return ""


def _value(label: str) -> float | str:
    try:
        return float(label)
    except ValueError:
        return label.strip().casefold()


def duplicates_between(train: Iterable[Example], dev: Iterable[Example]) -> int:
    """Return how many rows of `dev` have a text (or pair of texts) that `train` has as well."""
    seen = {(example.text, example.text_pair) for example in train}
    return sum((example.text, example.text_pair) in seen for example in dev)


def count_empty(examples: Iterable[Example]) -> int:
    """Return how many rows have a text, or second text, of nothing but white space."""
    return sum(
        not example.text.strip()
        or (example.text_pair is not None and not example.text_pair.strip())
        for example in examples
    )


# From a row's cells to an example.


@dataclass(frozen=True, slots=True)
class _Cells:
    """A row as its format gives it."""

    place: str
    cells: Mapping[str, object]


class _CellError(Exception):
    """What is wrong with a cell."""


def _example(row: _Cells, columns: Columns, needs_label: bool) -> Example | BadRow:
    cells = row.cells
    row_id = _whole(cells.get(columns.id))
    try:
        if problem := _missing(cells, columns, needs_label):
            raise _CellError(problem)
        text = _text(cells, columns.text)
        has_pair = _whole(cells.get(columns.pair)) is not None  # Parquet cannot leave it out
        text_pair = _text(cells, columns.pair) if has_pair else None
        label = _label(cells, columns.label) if needs_label else None
    except _CellError as error:
        return BadRow(row.place, str(error), row_id)
    return Example(row.place, text, text_pair, label, row_id)


def _missing(names: Collection[str], columns: Columns, needs_label: bool) -> str | None:
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


def _text(cells: Mapping[str, object], column: str) -> str:
    value = cells[column]
    if value is None:
        raise _CellError(f"column {column!r} is null; write an empty text as an empty string")
    return _checked(value, column, "a string")


def _label(cells: Mapping[str, object], column: str) -> str:
    value = _whole(cells[column])
    if isinstance(value, bool):
        return str(value).lower()  # as JSON spells it
    if isinstance(value, int):
        return str(value)
    if value is None or value == "":
        raise _CellError(f"column {column!r} is empty; give every row a label")
    return _checked(value, column, "a string or an integer")


def _whole(value: object) -> object:
    """Give back the integer that pandas made a float of, because another row has none."""
    if not isinstance(value, float):
        return value
    if value != value:  # NaN, pandas' way to write null
        return None
    return int(value) if value.is_integer() else value


def _checked(value: object, column: str, wanted: str) -> str:
    if isinstance(value, bytes) and (problem := diagnosis.encoding_advice(value)):
        raise _CellError(f"column {column!r} {problem.partition(';')[0]}; write the file anew")
    if not isinstance(value, str):
        raise _CellError(f"column {column!r} must be {wanted}, got {_kind(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _CellError(
            f"column {column!r} holds {value[error.start]!r}, half of a surrogate pair, which is "
            "no character; remove or replace it"
        ) from error
    return value


def _kind(value: object) -> str:
    return f"{shown(value)} ({type(value).__name__})"


# From a file to its rows' cells.


def _rows(path: str | Path, columns: Columns, needs_label: bool) -> Iterator[_Cells | BadRow]:
    if str(path) == "-":
        lines = _Lines(source_name(path), sys.stdin.buffer.readline)
        start = lines.peek()
        suffix = _format_of(start.decode("utf-8", errors="replace"))
        _refuse_other_kind(source_name(path), None, start, suffix, packed=False)
        yield from _text_rows(suffix, lines, columns, needs_label)
        return
    path = Path(path)
    suffix, packed = _suffix(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        _refuse_other_kind(str(path), path.name, file.peek(), suffix, packed=packed)
        if suffix == ".parquet":
            yield from _parquet_rows(path, columns, needs_label)
            return
        readline = gzip.GzipFile(fileobj=file).readline if packed else file.readline
        yield from _text_rows(suffix, _Lines(str(path), readline), columns, needs_label)


def _refuse_other_kind(
    source: str, name: str | None, start: bytes, suffix: str, *, packed: bool
) -> None:
    if kind := diagnosis.other_kind(start, name, suffix, packed=packed):
        raise DataError(f"{source}: {kind}")


def source_name(path: str | Path) -> str:
    """Return what messages call a source of rows."""
    return "standard input" if str(path) == "-" else str(path)


def _suffix(path: Path) -> tuple[str, bool]:
    """Return what kind of file it is, by its name, and whether it is packed by gzip."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the file in it")
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    name = path.name.lower()
    packed = name.endswith(".gz")
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in (".ndjson", ".json"):  # other names of the same; an array in it is named as one
        suffix = ".jsonl"
    if suffix in (".csv", ".tsv", ".jsonl") or (suffix == ".parquet" and not packed):
        return suffix, packed
    raise DataError(
        f"{path}: not a kind of file this reads; use .csv, .tsv or .jsonl (each may be packed: "
        ".csv.gz) or .parquet"
    )


def _format_of(first_line: str) -> str:
    if first_line.lstrip().startswith(("{", "[")):
        return ".jsonl"
    return ".tsv" if "\t" in first_line else ".csv"


class _Lines(Iterator[str]):
    """The lines of a text file, with what is wrong with those handed out since last asked.

    The lines are those between line feeds, as an editor counts them; a CSV row may take several.
    """

    def __init__(self, name: str, readline: Callable[[int], bytes]) -> None:
        self.name = name
        self.number = 0
        self.latest = ""  # line, as it was handed out
        self._readline = readline
        self._peeked: bytes | None = None
        self._problem: str | None = None

    def place(self, number: int) -> str:
        return f"{self.name}:{number}"

    def peek(self) -> bytes:
        if self._peeked is None:
            self._peeked = self._read()
        return self._peeked

    def take_problem(self) -> str | None:
        problem, self._problem = self._problem, None
        return problem

    def __next__(self) -> str:
        raw, self._peeked = self.peek(), None
        if not raw:
            raise StopIteration
        self.number += 1
        self.latest = raw.decode("utf-8", errors="replace")
        # The replacement character may stand in the file itself.
        if "\0" in self.latest or "\ufffd" in self.latest:
            self._problem = self._problem or diagnosis.encoding_advice(raw)
        return self.latest

    def _read(self) -> bytes:
        place = self.place(self.number + 1)
        try:
            raw = self._readline(_LONGEST_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{place}: {_damaged(str(error))}") from error
        if len(raw) > _LONGEST_LINE:  # gzip makes them of a few bytes
            raise DataError(
                f"{place}: goes on for more than {_LONGEST_LINE // 2**20} MiB without a line end, "
                "so it is no row; end each row's line, or leave it out"
            )
        return raw.removeprefix(_BYTE_ORDER_MARK) if self.number == 0 else raw


def _damaged(reason: str) -> str:
    return f"damaged, and unreadable from here on ({reason}); get the file anew"


def _text_rows(
    suffix: str, lines: _Lines, columns: Columns, needs_label: bool
) -> Iterator[_Cells | BadRow]:
    first = lines.peek()
    if problem := diagnosis.misshapen_lines(first, suffix):
        raise DataError(f"{lines.name}: {problem}")
    fits = partial(_fits, columns, needs_label)
    if suffix == ".jsonl":
        line = first.decode("utf-8", errors="replace")
        if problem := diagnosis.table_instead(line, Path(lines.name).name, fits=fits):
            raise DataError(f"{lines.name}: {problem}")
        return _json_rows(lines)
    rows = _csv_rows(lines) if suffix == ".csv" else _tsv_rows(lines)
    return _table_rows(suffix, lines, rows, columns, needs_label)


def _fits(columns: Columns, needs_label: bool, names: Sequence[str]) -> bool:
    return _missing(names, columns, needs_label) is None


def _json_rows(lines: _Lines) -> Iterator[_Cells | BadRow]:
    for line in lines:
        place = lines.place(lines.number)
        if problem := lines.take_problem():
            yield BadRow(place, problem)
        elif not line.isspace():
            yield _json_row(place, line)


def _json_row(place: str, line: str) -> _Cells | BadRow:
    try:
        cells = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        return BadRow(place, f"broken JSON at character {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 5,000 deep
        return BadRow(place, f"JSON that cannot be read: {error}")
    if not isinstance(cells, dict):
        return BadRow(place, f"expected one JSON object a line, got {_kind(cells)}")
    return _Cells(place, cells)


# The line where a row starts, and its fields or what is wrong with it.
_Row = tuple[int, list[str] | str]


def _table_rows(
    suffix: str, lines: _Lines, rows: Iterator[_Row], columns: Columns, needs_label: bool
) -> Iterator[_Cells | BadRow]:
    start, header = next(rows, (1, None))
    if header is None:
        return
    place = lines.place(start)
    fits = partial(_fits, columns, needs_label)
    if isinstance(header, str) or not fits(header):
        name = Path(lines.name).name
        if problem := diagnosis.misread_header(lines.latest, name, suffix, fits=fits):
            raise DataError(f"{place}: {problem}")
    if isinstance(header, str):
        raise DataError(f"{place}: {header}")
    ignored = _check_header(place, header, columns, needs_label)
    for start, fields in rows:
        place = lines.place(start)
        if isinstance(fields, str):
            yield BadRow(place, fields)
        elif len(fields) != len(header):
            yield BadRow(
                place,
                f"expected {len(header)} fields {shown(header)}, got {len(fields)}; in CSV quote a "
                "text that holds a comma, in TSV a text cannot hold a tab",
            )
        else:
            cells = zip(header, fields, strict=True)
            yield _Cells(place, {name: cell for name, cell in cells if name not in ignored})


def _check_header(
    place: str, names: Sequence[str], columns: Columns, needs_label: bool
) -> frozenset[str]:
    """Refuse a header without the needed columns, each once; return names to be ignored.

    A second column of ids says nothing about a row, and so do the labels where none are needed.
    """
    if problem := _missing(names, columns, needs_label):
        raise DataError(f"{place}: {problem}")
    needed = {columns.text, columns.pair, *([columns.label] if needs_label else [])}
    for name in (columns.text, columns.pair, columns.label):
        if name in needed and names.count(name) > 1:
            raise DataError(f"{place}: {names.count(name)} columns are called {name!r}; rename one")
    if columns.id in needed or names.count(columns.id) < 2:
        return frozenset()
    logger.warning(
        "%s: %d columns are called %r, so no id is read", place, names.count(columns.id), columns.id
    )
    return frozenset([columns.id])


def _csv_rows(lines: _Lines) -> Iterator[_Row]:
    # The module has one limit for the whole process. It is raised once and stays so: taking it back
    # would break a reader in another thread, and a higher limit breaks nobody.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CSV_FIELD))
    reader = csv.reader(lines, strict=True)
    while True:
        start = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = lines.take_problem()
            yield start, problem or _csv_problem(error, start, lines.number)
            continue
        if problem := lines.take_problem():
            yield start, problem
        elif fields:  # none: a blank line
            yield start, fields


def _csv_problem(error: csv.Error, start: int, end: int) -> str:
    if "new-line character" in str(error):
        return f"holds a CR outside quotes; quote that text, or if {diagnosis.CR_ALONE}"
    lost = f", which took lines {start} to {end}" if end > start else ""
    return f"broken CSV{lost} ({error}); quote a text that holds a quote, and double that quote"


def _tsv_rows(lines: _Lines) -> Iterator[_Row]:
    # No quoting: in the TSV files of text data a quote is a character like any other, and one alone
    # would swallow the rows up to the next.
    for line in lines:
        if problem := lines.take_problem():
            yield lines.number, problem
        elif fields := line.rstrip("\r\n"):
            yield lines.number, fields.split("\t")


def _parquet_rows(path: Path, columns: Columns, needs_label: bool) -> Iterator[_Cells | BadRow]:
    with needs_extra("train", f"{path}: reading Parquet"):
        import pyarrow
        from pyarrow import parquet
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            ignored = _check_header(str(path), names, columns, needs_label)
            wanted = {columns.text, columns.pair, columns.id} - ignored
            wanted |= {columns.label} if needs_label else set()
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
                    yield _Cells(f"{path}:{number}", cells)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}:{number + 1}: {_damaged(' '.join(str(error).split()))}") from error


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
