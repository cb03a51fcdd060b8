"""From a folder, or a name on the Hugging Face Hub, to what runs the model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastbert.calibration.answerer import Answerer
from fastbert.errors import FolderError, MissingExtraError
from fastbert.exits.engine import ExitBackend
from fastbert.folder.hub import fetch_folder
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.saves import lies_here
from fastbert.processor import usable_cores
from fastbert.running import TORCH_PRECISIONS, Running, RuntimeName
from fastbert.runtime.open import export_to_run, open_backend
from fastbert.text import TextTokenizer, TokenBatch


@dataclass(frozen=True)
class Recipe:
    """What a copy is opened by, alike or not at all.

    Args:
        path: The model folder.
        running: How it is run; its runtime is the one that was taken.
        hashes: SHA-256 of the model's files by name.
        export: SHA-256 of the export's files by name.
    """

    path: Path
    running: Running
    hashes: dict[str, str]
    export: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """An opened model: the folder, and what answers."""

    folder: ModelFolder
    tokenizer: TextTokenizer
    backend: ExitBackend[Any, TokenBatch]
    answerer: Answerer
    recipe: Recipe


def open_model(
    folder_or_hub_id: str | Path, revision: str | None, token: str | None, running: Running
) -> Opened:
    """Open a model folder; arguments and errors as for `FastBertClassifier.from_pretrained`."""
    path = folder_or_hub_id
    if isinstance(path, str) and not lies_here(path):
        path = fetch_folder(path, revision, token, running.wanted)
    folder = open_folder(path)
    tokenizer = folder.text_tokenizer()
    export = export_to_run(folder, running)
    running = _settled(running, "torch" if export is None else export.runtime)
    if export is None:
        backend = _torch_backend(folder, running)
        answerer = Answerer("torch", TORCH_PRECISIONS[running.dtype or "float32"])
    else:
        backend = open_backend(export, running)
        answerer = Answerer(export.runtime, export.precision)
    recipe = Recipe(
        folder.path.resolve(),
        running,
        folder.config.hashes,
        {} if export is None else {name: file.sha256 for name, file in export.files.items()},
    )
    return Opened(folder, tokenizer, backend, answerer, recipe)


def open_again(recipe: Recipe) -> Opened:
    """Open what was opened before.

    Raises:
        FolderError: The folder was replaced.
    """
    opened = open_model(recipe.path, None, None, recipe.running)
    if opened.recipe != recipe:
        raise FolderError(
            f"{recipe.path}: was replaced since the classifier was opened that was pickled or "
            "copied; open it again with from_pretrained"
        )
    return opened


def _settled(running: Running, runtime: RuntimeName) -> Running:
    """Return how the runtime that was taken runs; in bulk several batches share out the cores.

    Threads that compute one batch wait for each other at every operator, those of several do not.
    """
    running = running.by(runtime)
    if running.workers is not None:
        return running
    if runtime == "torch":  # which has one number of threads for the whole process
        return replace(running, workers=1)
    threads = running.threads or 1
    return replace(running, threads=threads, workers=max(1, usable_cores() // threads))


def _torch_backend(folder: ModelFolder, running: Running) -> ExitBackend[Any, TokenBatch]:
    try:
        from fastbert.nn.backend import open_torch_backend
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed to run a model: pip install 'fastbert-kit[train]'"
        ) from error
    return open_torch_backend(folder, running)
