"""What commands read: files of texts, and models, with nobody else's chatter."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from fastbert.cli import library
from fastbert.data.checks import count_empty
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.errors import DataError
from fastbert.folder.names import EXPORT_SUFFIXES, MANIFEST_FILE
from fastbert.running import RunningOptions

if TYPE_CHECKING:
    from fastbert.classifier import FastBertClassifier
    from fastbert.tasks.task import Task

logger = logging.getLogger(__name__)


def read(texts: Path, columns: Columns, task: "Task | None" = None) -> list[Example]:
    """Return the rows of a file; a warning counts those without a text.

    With a task each has to have labels that it knows; without one, labels are not looked at.
    """
    if task is None:
        examples = load_examples(texts, columns, needs_label=False)
    else:
        examples = load_examples(texts, columns, needs_label=True, parse=task.parse)
        task.check(examples)
    if empty := count_empty(examples):
        logger.warning("%s: %d of %d texts are empty", texts, empty, len(examples))
    return examples


def read_with_labels_if_any(texts: Path, columns: Columns, task: "Task") -> list[Example]:
    """Return the rows, with labels if all have one of these or the column was named."""
    if str(texts) == "-":  # can be read once
        return read(texts, columns)
    try:
        examples = read(texts, columns, task)
    except DataError as error:
        if columns.targets != Columns().targets:
            raise
        examples = read(texts, columns)
        logger.warning("no %s is shown: %s", library.spelled(library.meant(task).column), error)
    return examples


def load(folder: str | Path, **running: Unpack[RunningOptions]) -> "FastBertClassifier":
    """Load a classifier; transformers is quiet about it where torch shall run it."""
    exported = any(Path(folder, name, MANIFEST_FILE).is_file() for name in EXPORT_SUFFIXES)
    if running.get("runtime") == "torch" or not exported:
        quiet_transformers()
    return library.FastBertClassifier.from_pretrained(folder, **running)


def quiet_transformers() -> None:
    """Keep what transformers says while loading to itself; downloads still show their bars."""
    if find_spec("transformers") is None:  # a runtime may do without
        return
    from transformers.utils import logging as transformers_logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each retry without a network
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    library.enable_progress_bars()
