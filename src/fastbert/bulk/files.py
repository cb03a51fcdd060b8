"""From a stream of rows to a stream of answers, in constant memory.

Each row gets one JSON object, in the order of the rows; one that cannot be read gets an `error`
instead of an answer. A file appears when it is whole, so a command that is interrupted leaves what
was there before.
"""

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shown
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from fastbert.classifier import FastBertClassifier, Prediction
from fastbert.data.checks import count_empty
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import read_rows, source_name
from fastbert.errors import DataError, FastBertError
from fastbert.exits.criteria import ExitCriterion
from fastbert.files.whole_file import whole_file

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
    rows = bad = empty = lost = 0
    lost_id: object = None
    damage: DataError | None = None
    with (
        _destination(output, source) as file,
        tqdm(unit=" rows", leave=False, disable=True if output == "-" else None) as bar,
    ):
        try:
            for chunk in _chunks(read_rows(source, columns, needs_label=False)):
                for answer in _answers(classifier, chunk, criterion, batch_size):
                    file.write(_json(answer) + b"\n")
                    bad += "error" in answer
                file.flush()
                bar.update(len(chunk))
                rows += len(chunk)
                lost_ids = [row.id for row in chunk if not _is_json(row.id)]
                lost, lost_id = lost + len(lost_ids), next(iter(lost_ids), lost_id)
                empty += count_empty(row for row in chunk if isinstance(row, Example))
        except DataError as error:
            if not rows:
                raise
            damage = error
    if empty:
        logger.warning("%s: %d of %d texts are empty", source_name(source), empty, rows)
    if lost:
        logger.warning(
            "%s: %d of %d ids are not given back, because JSON cannot hold them, such as %s",
            source_name(source), lost, rows, shown(lost_id),
        )  # fmt: skip
    if damage:
        raise DataError(f"{damage}; the {rows} rows before it are written") from damage
    if bad:
        raise FastBertError(
            f"{source_name(source)}: {bad} of {rows} rows have no answer; each says why in `error`"
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
        name = {} if row.id is None or not _is_json(row.id) else {"id": row.id}
        if isinstance(row, BadRow):
            yield name | {"error": f"{row.place}: {row.error}"}
        else:
            yield name | _answer(row, next(predictions))


def _answer(row: Example, prediction: Prediction) -> dict[str, Any]:
    """Return what is written about a text; an answer of a broken model is none."""
    if not math.isfinite(prediction.score):
        return {
            "error": f"{row.place}: the model's answer is not a number; its weights are broken, or "
            "too large for the precision it runs in"
        }
    return {
        "label": prediction.label,
        "score": prediction.score,
        "uncertainty": prediction.uncertainty,
        "exit_layer": prediction.exit_layer,
    }


def _is_json(value: object) -> bool:
    """Return whether JSON can say a value; NaN and infinity it cannot."""
    try:
        _json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


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
