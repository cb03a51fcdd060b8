"""What commands print, and what they say of a file that was classified."""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from fastbert.cli import library
from fastbert.errors import DataError, FastBertError

if TYPE_CHECKING:
    from fastbert.bulk.files import FilePredictions
    from fastbert.classifier import FastBertClassifier
    from fastbert.folder.config import DefaultPoint
    from fastbert.folder.followed import Followed
    from fastbert.tasks.task import Task

logger = logging.getLogger(__name__)


def show(*tables: Any) -> None:
    """Print tables."""
    library.Console(highlight=False).print(*tables)


def show_wide(table: Any) -> None:
    """Print a table whose cells must stay whole, if need be beyond the width of the terminal."""
    console = library.Console(highlight=False)
    table.width = console.measure(table, options=console.options.update(max_width=1_000)).maximum
    console.width = max(console.width, table.width)
    console.print(table)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def show_speeds(
    task: "Task",
    table: Sequence[Mapping[str, Any]],
    default: "DefaultPoint | None",
    followed: "Followed | None" = None,
) -> None:
    """Print evaluations, with a star at the default."""
    show_wide(library.speed_table(task, table, default, followed))


def show_trained(classifier: "FastBertClassifier", output: Path) -> None:
    """Print what training came to, and what to type next."""
    config = classifier.config
    followed = library.Followed.of(config.training)
    show_speeds(config.task, config.evaluation, config.default, followed)
    print(f"\nNext: fastbert predict {shlex.quote(str(output))} TEXTS.csv")


def say_what_became_of(found: "FilePredictions", name: str) -> None:
    """Warn of what is answered all the same, and raise what is not."""
    if found.empty:
        logger.warning("%s: %d of %d texts are empty", name, found.empty, found.rows)
    if found.lost_ids:
        logger.warning(
            "%s: %d of %d ids are not given back, because JSON cannot hold them, such as %s",
            name, found.lost_ids, found.rows, shown(found.lost_id),
        )  # fmt: skip
    if found.damage:
        raise DataError(
            f"{found.damage}; the {found.rows} rows before it are written"
        ) from found.damage
    if found.bad:
        raise FastBertError(
            f"{name}: {found.bad} of {found.rows} rows have no answer; each says why in `error`"
        )
