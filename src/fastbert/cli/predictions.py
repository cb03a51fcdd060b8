"""From a stream of rows to a stream of answers, in constant memory.

Each row gets one JSON object, in the order of the rows; one that cannot be read gets an `error`
instead of an answer. A file appears when it is whole, so a command that is interrupted leaves what
was there before.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from fastbert.classifier import FastBertClassifier
from fastbert.criteria import ExitCriterion
from fastbert.data import BadRow, Columns, Example, count_empty, read_rows, source_name
from fastbert.errors import DataError, FastBertError
from fastbert.whole_file import whole_file

ROWS_AT_A_TIME = 1024  # enough to find texts of similar length among them

logger = logging.getLogger(__name__)

Row = Example | BadRow


def predict_file(
    classifier: FastBertClassifier,
    source: str,
    output: str,
    columns: Columns,
    *,
    criterion: ExitCriterion,
    batch_size: int,
) -> None:
    """Classify the rows of a file and write one JSON object for each.

    Args:
        classifier: What answers.
        source: A file as `read_rows` takes it; "-" is standard input.
        output: The file to write; "-" is standard output.
        columns: What the columns of `source` are called.
        criterion: Who may leave where.
        batch_size: Texts computed together.

    Raises:
        DataError: The source cannot be read, or not to its end. The rows before the damage have
            been answered and written; if there were none, no file is.
        FastBertError: All rows are written, some of them as an `error`.
        ValueError: `output` is no place for a file.
    """
    rows = bad = empty = 0
    damage: DataError | None = None
    with (
        _destination(output, source) as file,
        tqdm(unit=" rows", leave=False, disable=True if output == "-" else None) as bar,
    ):
        try:
            for chunk in _chunks(read_rows(source, columns, needs_label=False)):
                for answer in _answers(classifier, chunk, criterion, batch_size):
                    file.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
                file.flush()
                bar.update(len(chunk))
                rows += len(chunk)
                bad += sum(isinstance(row, BadRow) for row in chunk)
                empty += count_empty(row for row in chunk if isinstance(row, Example))
        except DataError as error:
            if not rows:
                raise
            damage = error
    if empty:
        logger.warning("%s: %d of %d texts are empty", source_name(source), empty, rows)
    if damage:
        raise DataError(f"{damage}; the {rows} rows before it are written") from damage
    if bad:
        raise FastBertError(
            f"{source_name(source)}: {bad} of {rows} rows could not be read; "
            "each says why in `error`"
        )


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists; what ends the stream is raised after the rows before it."""
    chunk: list[Row] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == ROWS_AT_A_TIME:
                yield chunk
                chunk = []
    except DataError:
        yield chunk
        raise
    yield chunk


def _answers(
    classifier: FastBertClassifier,
    rows: Sequence[Row],
    criterion: ExitCriterion,
    batch_size: int,
) -> Iterator[dict[str, Any]]:
    texts = [row.content for row in rows if isinstance(row, Example)]
    predictions = iter(classifier.predict(texts, criterion, batch_size))
    for row in rows:
        name = {} if row.id is None else {"id": row.id}
        if isinstance(row, BadRow):
            yield name | {"error": f"{row.place}: {row.error}"}
        else:
            answer = next(predictions)
            yield name | {
                "label": answer.label,
                "score": answer.score,
                "uncertainty": answer.uncertainty,
                "exit_layer": answer.exit_layer,
            }


@contextmanager
def _destination(output: str, source: str) -> Iterator[BinaryIO]:
    """Open what is written to; a usual file appears under its name when all went well."""
    if output == "-":
        yield sys.stdout.buffer
        return
    path = Path(output).expanduser()
    _refuse_bad_place(path, source)
    with whole_file(path) as file:
        yield file


def _refuse_bad_place(path: Path, source: str) -> None:
    if path.is_dir():
        raise ValueError(f"--output {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.parent}; make it first")
    if path.is_file() and Path(source).exists() and path.samefile(source):
        raise ValueError(f"--output {path}: is also what is read; name another file")
