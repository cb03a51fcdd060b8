"""Whether a stage that trains the students alone keeps hidden states on disk.

With the cache the students' weights come out slightly different, for it is in half precision. So
what a stage has begun with it goes on with, also where the disk has filled up since.
"""

import json
import logging
import shutil
from pathlib import Path

from fastbert.files.whole_file import write_json
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training.hidden_cache import (
    HIDDEN,
    HiddenCache,
    NoRoomError,
    TooLargeForHalfError,
    bytes_of,
)
from fastbert.training.passes import hidden_states
from fastbert.training.stage import Stage
from fastbert.training.stream import TrainingTexts

CHOICE = "cached.json"
MOST_BYTES = 16 * 10**9  # what stays in a usual machine's memory beside the model; else disks brake
FREE_SHARE = 0.25  # of the disk: checkpoints, the model folder and others need room too

logger = logging.getLogger(__name__)


def kept_hidden_states(
    stage: Stage,
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    folder: Path,
    *,
    resume: bool,
) -> HiddenCache | None:
    """Return what the students of a stage read, from disk, if the stage keeps it there.

    A stage that leaves the choice open keeps it where that saves passes and fits; where it does
    not fit, one line says so.

    Raises:
        TrainingError: The stage wants the cache, or has begun with it, and it cannot be made.
    """
    if stage.cache_hidden_states is not None:
        if not stage.cache_hidden_states:
            return None
        return hidden_states(model, tokenizer, texts, folder, stage.settings)
    folder.mkdir(parents=True, exist_ok=True)
    began = _chosen(folder) if resume else None
    wanted = _pays(stage, model, texts, folder) if began is None else began
    _choose(folder, wanted)
    if not wanted:
        return None
    try:
        return hidden_states(model, tokenizer, texts, folder, stage.settings)
    except (TooLargeForHalfError, NoRoomError) as error:
        if began and isinstance(error, NoRoomError):
            raise
        (folder / HIDDEN).unlink(missing_ok=True)
        _choose(folder, False)
        logger.warning("%s: runs the encoder in every epoch: %s", stage.name, error)
        return None


def saves_passes(stage: Stage) -> bool:
    """Return whether a stage with the choice left open runs the encoder once if that fits."""
    return stage.cache_hidden_states is None and stage.settings.epochs > 1


def _pays(stage: Stage, model: FastBertModel, texts: TrainingTexts, folder: Path) -> bool:
    """Return whether the cache saves passes and fits; say so where it does not fit."""
    if not saves_passes(stage):
        return False
    tokens = sum(int(file.lengths().sum()) for file in (texts.train, texts.dev) if file is not None)
    size, free = bytes_of(model, tokens), shutil.disk_usage(folder).free
    if size <= min(MOST_BYTES, FREE_SHARE * free):
        return True
    logger.warning(
        "%s: runs the encoder in every epoch: hidden states would take %.1f GB, and may take "
        "%.0f GB and a quarter of the %.1f GB that the disk has free",
        stage.name, size / 1e9, MOST_BYTES / 1e9, free / 1e9,
    )  # fmt: skip
    return False


def _chosen(folder: Path) -> bool | None:
    """Return what the stage has begun with; None if it has not."""
    path = folder / CHOICE
    return bool(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _choose(folder: Path, cached: bool) -> None:
    write_json(folder / CHOICE, cached)
