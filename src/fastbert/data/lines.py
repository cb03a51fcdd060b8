"""The rows of CSV, TSV and JSON lines, line by line."""

import csv
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from reprlib import repr as shown  # cuts what is long

from fastbert.data import diagnosis
from fastbert.data.cells import Cells, kind_of, missing_column
from fastbert.data.example import BadRow, Columns
from fastbert.errors import DataError

logger = logging.getLogger(__name__)

# A text may be long; an unclosed quote must not pull the rest of a large file into memory.
_LONGEST_CSV_FIELD = 16 * 2**20
_LONGEST_LINE = 64 * 2**20  # bytes: such a field, whatever its characters
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(Iterator[str]):
    """The lines of a text file, with what is wrong with those handed out since last asked.

    The lines are those between line feeds, as an editor counts them; a CSV row may take several.
    """

    def __init__(self, name: str, readline: Callable[[int], bytes]) -> None:
        """Take what reads a line of at most so many bytes."""
        self.name = name
        self.number = 0
        self.latest = ""  # line, as it was handed out
        self._readline = readline
        self._peeked: bytes | None = None
        self._problem: str | None = None

    def place(self, number: int) -> str:
        """Return how messages call a line."""
        return f"{self.name}:{number}"

    def peek(self) -> bytes:
        """Return the bytes of the next line, which stays the next."""
        if self._peeked is None:
            self._peeked = self._read()
        return self._peeked

    def take_problem(self) -> str | None:
        """Return what is wrong with the lines since this was last asked, if anything is."""
        problem, self._problem = self._problem, None
        return problem

    def __next__(self) -> str:
        """Return the next line as text."""
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
            raise DataError.at_row(damaged(str(error)), place) from error
        if len(raw) > _LONGEST_LINE:  # gzip makes them of a few bytes
            raise DataError.at_row(
                f"goes on for more than {_LONGEST_LINE // 2**20} MiB without a line end, "
                "so it is no row; end each row's line, or leave it out",
                place,
            )
        return raw.removeprefix(_BYTE_ORDER_MARK) if self.number == 0 else raw


def damaged(reason: str) -> str:
    """Return what to say of a file that cannot be read on."""
    return f"damaged, and unreadable from here on ({reason}); get the file anew"


def text_rows(
    suffix: str, lines: Lines, columns: Columns, needs_label: bool
) -> Iterator[Cells | BadRow]:
    """Return the rows of a text file, once its first line shows that it is what its name says."""
    first = lines.peek()
    if problem := diagnosis.misshapen_lines(first, suffix):
        raise DataError(problem, path=lines.name)
    fits = partial(_fits, columns, needs_label)
    if suffix == ".jsonl":
        line = first.decode("utf-8", errors="replace")
        if problem := diagnosis.table_instead(line, Path(lines.name).name, fits=fits):
            raise DataError(problem, path=lines.name)
        return _json_rows(lines)
    rows = _csv_rows(lines) if suffix == ".csv" else _tsv_rows(lines)
    return _table_rows(suffix, lines, rows, columns, needs_label)


def _fits(columns: Columns, needs_label: bool, names: Sequence[str]) -> bool:
    return missing_column(names, columns, needs_label=needs_label) is None


def _json_rows(lines: Lines) -> Iterator[Cells | BadRow]:
    for line in lines:
        place = lines.place(lines.number)
        if problem := lines.take_problem():
            yield BadRow(place, problem)
        elif not line.isspace():
            yield _json_row(place, line)


def _json_row(place: str, line: str) -> Cells | BadRow:
    try:
        cells = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        return BadRow(place, f"broken JSON at character {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 5,000 deep
        return BadRow(place, f"JSON that cannot be read: {error}")
    if not isinstance(cells, dict):
        return BadRow(place, f"expected one JSON object a line, got {kind_of(cells)}")
    return Cells(place, cells)


# The line where a row starts, and its fields or what is wrong with it.
_Row = tuple[int, list[str] | str]


def _table_rows(
    suffix: str, lines: Lines, rows: Iterator[_Row], columns: Columns, needs_label: bool
) -> Iterator[Cells | BadRow]:
    start, header = next(rows, (1, None))
    if header is None:
        return
    place = lines.place(start)
    fits = partial(_fits, columns, needs_label)
    if isinstance(header, str) or not fits(header):
        name = Path(lines.name).name
        if problem := diagnosis.misread_header(lines.latest, name, suffix, fits=fits):
            raise DataError.at_row(problem, place)
    if isinstance(header, str):
        raise DataError.at_row(header, place)
    ignored = check_header(place, header, columns, needs_label)
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
            yield Cells(place, {name: cell for name, cell in cells if name not in ignored})


def check_header(
    place: str, names: Sequence[str], columns: Columns, needs_label: bool
) -> frozenset[str]:
    """Refuse a header without the needed columns, each once; return names to be ignored.

    A second column of ids says nothing about a row, and so do the labels where none are needed.
    """
    if problem := missing_column(names, columns, needs_label=needs_label):
        raise DataError.at_row(problem, place)
    needed = (columns.text, columns.pair, *(columns.targets if needs_label else ()))
    for name in needed:
        if names.count(name) > 1:
            raise DataError.at_row(
                f"{names.count(name)} columns are called {name!r}; rename one", place
            )
    if columns.id in needed or names.count(columns.id) < 2:
        return frozenset()
    logger.warning(
        "%s: %d columns are called %r, so no id is read", place, names.count(columns.id), columns.id
    )
    return frozenset([columns.id])


def _csv_rows(lines: Lines) -> Iterator[_Row]:
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


def _tsv_rows(lines: Lines) -> Iterator[_Row]:
    # No quoting: in the TSV files of text data a quote is a character like any other, and one alone
    # would swallow the rows up to the next.
    for line in lines:
        if problem := lines.take_problem():
            yield lines.number, problem
        elif fields := line.rstrip("\r\n"):
            yield lines.number, fields.split("\t")
