"""What was read of the files of a run, and what is held out of them."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastbert.data.checks import count_empty, duplicates_between
from fastbert.data.example import Example
from fastbert.errors import DataError

logger = logging.getLogger(__name__)
HELD_OUT_EVERY = 10  # of texts without labels one in so many is held out, up to
HELD_OUT_AT_MOST = 2_000


@dataclass(frozen=True)
class Content:
    """What was read of a file, so that a resumed run can tell whether it reads the same.

    Args:
        rows: How many.
        sha256: Of texts and labels in their order; where they lie and how they are packed does
            not count.
    """

    rows: int
    sha256: str

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Content":
        """Read the examples to their end."""
        digest, rows = hashlib.sha256(), 0
        for example in examples:
            rows += 1
            read = [example.text, example.text_pair, example.label]
            digest.update(json.dumps(read).encode())
        return cls(rows, digest.hexdigest())


def marked(rows: Iterable[Example]) -> Iterator[tuple[Example, bool]]:
    """Yield each row, and whether it is held out."""
    for index, example in enumerate(rows):
        number, place = divmod(index, HELD_OUT_EVERY)
        yield example, place == HELD_OUT_EVERY - 1 and number < HELD_OUT_AT_MOST


def holding_out(rows: Iterable[Example], held_out: list[Example]) -> Iterator[Example]:
    """Yield all rows, and keep those that are held out."""
    for example, is_held_out in marked(rows):
        if is_held_out:
            held_out.append(example)
        yield example


def refuse_files_inside(output: str | Path, *files: str | Path | None) -> None:
    """Refuse texts that lie where the run removes or replaces a folder.

    Raises:
        DataError: A file lies in the model folder to be written, or in the run's.
    """
    target = Path(output).expanduser().resolve()
    for file in files:
        for place in (target, target.with_name(f"{target.name}.training")):
            if file is not None and Path(file).resolve().is_relative_to(place):
                raise DataError(
                    f"{file}: lies in {place}, which this run writes anew; move it away, or name "
                    "another output"
                )


def warn_about(
    train: str | Path, examples: Sequence[Example], others: dict[str, Sequence[Example]]
) -> None:
    """Count what is allowed but seldom meant."""
    for file, rows in {str(train): examples, **others}.items():
        if empty := count_empty(rows):
            logger.warning("%s: %d of %d texts are empty", file, empty, len(rows))
    for file, rows in others.items():
        if twins := duplicates_between(examples, rows):
            logger.warning(
                "%s: %d of %d texts also stand in %s, so its figures flatter",
                file, twins, len(rows), train,
            )  # fmt: skip
