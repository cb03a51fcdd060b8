"""From a stream of rows to a stream of answers, in constant memory.

Each row gets one JSON object, in the order of the rows; one that cannot be read gets an `error`
instead of an answer. A file appears when it is whole, so a program that is interrupted leaves what
was there before.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Unpack

from fastbert.calibration.goal import GoalOptions
from fastbert.classifier import FastBertClassifier, Speed
from fastbert.data.checks import count_empty
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import read_rows
from fastbert.errors import DataError
from fastbert.exits.criteria import ExitCriterion
from fastbert.files.whole_file import whole_file
from fastbert.tasks.task import Answers

ROWS_AT_A_TIME = 1024  # enough to find texts of similar length among them

Row = Example | BadRow


@dataclass(frozen=True)
class FilePredictions:
    """What became of a file's rows.

    Args:
        rows: How many were read, and as many were written.
        bad: How many of them have an `error` and no answer.
        empty: How many texts are empty; they are answered all the same.
        lost_ids: How many ids are not given back, because JSON cannot hold them.
        lost_id: One of those.
        damage: What ended the reading early, after those rows; None if all were read.
    """

    rows: int = 0
    bad: int = 0
    empty: int = 0
    lost_ids: int = 0
    lost_id: object = None
    damage: DataError | None = None


def predict_file(
    classifier: FastBertClassifier,
    source: str | Path,
    output: str | Path,
    speed: Speed | None = None,
    batch_size: int = 32,
    *,
    columns: Columns | None = None,
    progress: Callable[[int], object] | None = None,
    **goal: Unpack[GoalOptions],
) -> FilePredictions:
    """Classify the rows of a file and write one JSON object for each, in constant memory.

    Args:
        classifier: What answers.
        source: A .csv, .tsv, .jsonl (each also packed, as .csv.gz) or .parquet; "-" is standard
            input.
        output: The file to write; it appears when it is whole. "-" is standard output.
        speed: As for `FastBertClassifier.predict`.
        batch_size: Texts computed together. No answer depends on it.
        columns: What the columns of `source` are called.
        progress: Called after every thousand rows or so, with how many they were.
        goal: What to reach in place of a speed; see `FastBertClassifier.speed_for`.

    Returns:
        How many rows were read, and what is wrong with some of them: neither those that cannot be
        read nor a damage after some rows is an exception.

    Raises:
        CalibrationError: The goal cannot be met, or the calibration cannot tell.
        DataError: No row can be read; no file is written.
        OSError: The file cannot be written.
        ValueError: `output` is no place for a file, or `speed` is none.
    """
    criterion = classifier.criterion(speed, **goal)
    tally = _Tally()
    with _destination(output, source) as file:
        try:
            for chunk in _chunks(read_rows(str(source), columns or Columns(), needs_label=False)):
                answers = _answers(classifier, chunk, criterion, batch_size)
                file.writelines(_json(answer) + b"\n" for answer in tally.counted(chunk, answers))
                file.flush()
                if progress is not None:
                    progress(len(chunk))
        except DataError as error:
            if not tally.rows:
                raise
            return tally.result(error)
    return tally.result(None)


class _Tally:
    """Counts what goes by."""

    def __init__(self) -> None:
        self.rows = self.bad = self.empty = self.lost_ids = 0
        self.lost_id: object = None

    def counted(
        self, rows: Sequence[Row], answers: Iterable[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        for row, answer in zip(rows, answers, strict=True):
            self.bad += "error" in answer
            if row.id is not None and "id" not in answer:
                self.lost_id = self.lost_id if self.lost_ids else row.id
                self.lost_ids += 1
            yield answer
        self.rows += len(rows)
        self.empty += count_empty(row for row in rows if isinstance(row, Example))

    def result(self, damage: DataError | None) -> FilePredictions:
        return FilePredictions(**vars(self), damage=damage)


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
    """Yield what is written about each row."""
    texts = [row.content for row in rows if isinstance(row, Example)]
    result = classifier.classify(texts, criterion, batch_size)
    answered = _each(classifier.task.answers(result.logits, result.exit_layer))
    for row in rows:
        name = {} if row.id is None or not _is_json(row.id) else {"id": row.id}
        if isinstance(row, BadRow):
            yield name | {"error": f"{row.place}: {row.error}"}
        elif (answer := next(answered)) is None:
            yield name | {
                "error": f"{row.place}: the model's answer is not a number; its weights are "
                "broken, or too large for the precision it runs in"
            }
        else:
            yield {**name, **answer}


def _each(answers: Answers) -> Iterator[Mapping[str, Any] | None]:
    """Yield each answer by columns; that of a broken model is none."""
    columns = answers.columns()
    for usable, *values in zip(answers.usable(), *columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True)) if usable else None


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
def _destination(output: str | Path, source: str | Path) -> Iterator[BinaryIO]:
    """Open what is written to; a usual file appears under its name when all went well."""
    if str(output) == "-":
        yield sys.stdout.buffer
        return
    path = Path(output).expanduser()
    refuse_bad_place(path, source)
    with whole_file(path) as file:
        yield file


def refuse_bad_place(output: str | Path, source: str | Path) -> None:
    """Refuse what answers cannot be written to.

    Raises:
        ValueError: `output` is a folder, or in none, or it is what is read.
    """
    path = Path(output).expanduser()
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_file() and Path(source).exists() and path.samefile(source):
        raise ValueError(f"{path}: is also what is read; name another file")
