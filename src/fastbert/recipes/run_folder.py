"""The folder of a training run: marked as ours, used by one run at a time, removed as ours alone.

It lies beside the output and holds what a stopped run needs to go on. A folder that does not hold
the mark of a run is never written to; of one that does, only what runs write is ever removed.
`run.lock` is locked as long as the process lives, however it dies.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn

from fastbert.errors import FolderError, TrainingError
from fastbert.files.disk import hash_of_file
from fastbert.training.answers import INDEX

RUN_FILE, LOCK = "run.json", "run.lock"
MARK = "a training run of fastbert"
LAYOUT = 2  # of the folder; in version 0.2 the stages had names of their own in it
STAGES, TOKENS, TOKENIZER, ANSWERS = "stages", "tokens", "tokenizer", "answers"
STAGED_RUN_FILE = f"{RUN_FILE}.part"
PARTS = (STAGES, TOKENS, TOKENIZER, ANSWERS, STAGED_RUN_FILE)

logger = logging.getLogger(__name__)


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep a run's folder for this process; it is made, and removed again if nothing has begun.

    Raises:
        FolderError: It holds something else than a run, or cannot be written.
        TrainingError: Another run uses it.
    """
    lock = _lock(folder)
    try:
        yield
    finally:
        # A run that has ended well has removed it, and the next may have made another.
        if _lies_at(lock, folder) and not has_begun(folder):
            remove(folder)
        os.close(lock)


def has_begun(folder: Path) -> bool:
    """Return whether there is work to go on with: a stage, a checkpoint, a cache or answers."""
    begun = ("*.safetensors", "*/checkpoint-*", "*/index.npz")
    answered = (folder / ANSWERS / INDEX).exists()  # by another teacher, before the first stage
    return answered or any(any((folder / STAGES).glob(name)) for name in begun)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return what the run in a folder wrote down about itself; None if there is no run."""
    try:
        written = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return written if isinstance(written, dict) and written.get("what") == MARK else None


def write_run(folder: Path, written: dict[str, Any]) -> None:
    """Mark the folder as a run's, and write down what it is about."""
    marked = {"what": MARK, "layout": LAYOUT} | written
    text = json.dumps(marked, indent=1, ensure_ascii=False)
    (folder / STAGED_RUN_FILE).write_text(text, encoding="utf-8")
    (folder / STAGED_RUN_FILE).rename(folder / RUN_FILE)


def clear(folder: Path) -> None:
    """Remove what a run has written, but not its mark."""
    for name in PARTS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove what a run has written, and the folder too if nothing else lies in it."""
    clear(folder)
    for name in (RUN_FILE, LOCK):
        (folder / name).unlink(missing_ok=True)
    if others := os.listdir(folder):
        logger.warning("%s: is kept, it holds %s, which is not the run's", folder, others[0])
    else:
        folder.rmdir()


def _lock(folder: Path) -> int:
    """Return a descriptor whose lock on the folder ends with the process."""
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_what_is_no_run(folder)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            if _is_held(lock, folder):
                return lock
            os.close(lock)  # the run that had it has just removed the folder
    except OSError as error:
        raise FolderError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _is_held(lock: int, folder: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _lies_at(lock, folder)
    except BlockingIOError as error:
        os.close(lock)
        raise TrainingError(
            f"{folder}: another run is training here; wait for its end, or name another output"
        ) from error
    except OSError:
        return True  # some network disks have no locks


def _lies_at(lock: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False


def _refuse_what_is_no_run(folder: Path) -> None:
    others = set(os.listdir(folder)) - {LOCK, STAGED_RUN_FILE}
    run = read_run(folder)
    if run is not None and run.get("layout") != LAYOUT:
        raise TrainingError(
            f"{folder}: holds a run of another version of fastbert, which this one cannot go on "
            "with; finish it with that version, or delete it"
        )
    if others and run is None:
        raise FolderError(
            f"{folder}: holds {min(others)} and no run of this version of fastbert, so nothing is "
            "written there; move it away, or name another output"
        )


@dataclass(frozen=True)
class KeptStage:
    """Where a run keeps one of its stages.

    Args:
        folder: The run's.
        name: The stage's.
    """

    folder: Path
    name: str

    @property
    def work(self) -> Path:
        """Where its checkpoints lie until it is finished."""
        return self.folder / STAGES / self.name

    def finished(self, parts: nn.Module) -> list[dict[str, float]] | None:
        """Load what the stage has trained and return its history, if it is finished."""
        if not self._weights.exists():
            return None
        load_model(parts, self._weights)
        history: list[dict[str, float]] = json.loads(self._history.read_text(encoding="utf-8"))
        return history

    def keep(self, parts: nn.Module, history: list[dict[str, float]]) -> None:
        """Write down that the stage is finished, and free the space of its checkpoints."""
        self._history.write_text(json.dumps(history), encoding="utf-8")
        staged = self._weights.with_suffix(".part")
        save_model(parts, str(staged))
        staged.rename(self._weights)
        shutil.rmtree(self.work)

    def give(self, folder: Path) -> None:
        """Let the run of another folder go on from what this stage has trained."""
        other = KeptStage(folder, self.name)
        other._weights.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._history, other._history)
        staged = other._weights.with_suffix(".part")
        shutil.copyfile(self._weights, staged)
        staged.rename(other._weights)

    def sha256(self) -> str:
        """Return the hash of the weights of a stage that is finished."""
        return hash_of_file(self._weights)

    @property
    def _weights(self) -> Path:
        return self.folder / STAGES / f"{self.name}.safetensors"

    @property
    def _history(self) -> Path:
        return self.folder / STAGES / f"{self.name}.history.json"
