"""Saves in progress, and what is done about those that were killed.

A save works in a folder beside its target: `new` is being filled, `old-0` is what stood at the
target until the swap, `left-0` the same when the swap is done and only what is not ours has to be
moved out of it, and `lock` is locked as long as the process lives, however it dies.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastbert.errors import FolderError
from fastbert.files.disk import expanded, readable
from fastbert.folder.names import EXPORT_SUFFIXES, foreign, own_files

logger = logging.getLogger(__name__)

SWAP_ATTEMPTS = 10
SWAP_SECONDS = 0.05  # between two attempts to find the target while another process swaps it


def _prefix(target: Path) -> str:
    """Return how the working folders of a target are named, short whatever its own name is."""
    return f".fastbert-save-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"


@contextmanager
def working_folder(target: Path) -> Iterator[tuple[Path, int]]:
    """Make a locked working folder, and settle it at the end; also yield the mode of new files."""
    work = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    lock = None
    try:
        # `lock` appears locked, so one that is not locked has lost its process.
        lock = os.open(work / "locking", os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # some network disks have no locks: nobody cleans up there
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(work / "locking", work / "lock")
        yield work, os.fstat(lock).st_mode & 0o777
    finally:
        try:
            _settle(work, target)
        finally:
            if lock is not None:
                os.close(lock)


def settle_interrupted_saves(target: Path) -> None:
    """Undo and remove what killed processes left of saves to `target`."""
    for work in target.parent.glob(f"{_prefix(target)}*"):
        try:
            lock = os.open(work / "lock", os.O_RDWR)
        except OSError:
            continue  # just starting, just ended, or not ours to touch
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # at work
        else:
            _settle(work, target)
        finally:
            os.close(lock)


def settle_before_reading(target: Path) -> None:
    """Settle what killed processes left, and let one that is just swapping `target` finish."""
    for _ in range(SWAP_ATTEMPTS):
        settle_interrupted_saves(target)
        if target.exists() or not is_being_swapped(target):
            return
        time.sleep(SWAP_SECONDS)


def is_being_swapped(target: Path) -> bool:
    """Return whether a save is between its two renames."""
    return any(target.parent.glob(f"{_prefix(target)}*/old-*"))


def lies_here(path: str | Path) -> bool:
    """Return whether anything lies at a path, also while a save is between its two renames."""
    path = expanded(path)
    with readable(path):
        return path.exists() or is_being_swapped(path.resolve()) or path.exists()


def _settle(work: Path, target: Path) -> None:
    """Put the old folder back if nothing took its place; else save what is not ours from it."""
    replaced = sorted(work.glob("old-*"))
    if replaced and not target.exists():
        try:
            os.rename(replaced[-1], target)
        except OSError as error:
            raise FolderError(
                f"the folder that was there could not be put back: {error.strerror}; "
                f"it is safe in {replaced[-1]}, move it",
                path=target,
            ) from error
    retire(work)
    for left in sorted(work.glob("left-*"), reverse=True):  # the latest comes first to its names
        if target.exists():
            _carry_over(left, target)
    if not any(work.glob("old-*")) and not any(work.glob("left-*")):
        shutil.rmtree(work, ignore_errors=True)  # nothing but `new`, which is ours alone


def retire(work: Path) -> None:
    """Say of what a save has replaced that it is never to be put back."""
    with suppress(OSError):  # else the next save or load does it
        for old in sorted(work.glob("old-*")):
            os.rename(old, old.with_name(old.name.replace("old", "left")))


def _carry_over(left: Path, target: Path) -> None:
    """Move what is not ours from a replaced folder into the one in its place; remove the rest.

    A name that is taken is never overwritten: what has it stays where it is, and a warning says so.
    """
    for _ in range(SWAP_ATTEMPTS):
        for name in foreign(left):
            with suppress(OSError):  # the name is taken, or another process swaps the target
                _move(left / name, target / name)
        with suppress(OSError):  # something is left, or has just come
            _remove_own(left)
            return
        if not target.exists():
            time.sleep(SWAP_SECONDS)
    names = ", ".join(map(str, foreign(left)))
    logger.warning(
        "%s: %s of the folder that was replaced could not be moved into the new one, where the "
        "name may be taken; it is kept in %s, move it from there", target, names, left,
    )  # fmt: skip


def _move(source: Path, place: Path) -> None:
    """Move a file or a folder to a name that is free.

    Raises:
        OSError: The name is taken, or its folder is not there.
    """
    if source.parent.name in EXPORT_SUFFIXES:
        place.parent.mkdir(exist_ok=True)
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
    os.rename(source, place)


def _remove_own(folder: Path) -> None:
    """Remove a model by the list, and then the folder.

    Raises:
        OSError: Something else is in it.
    """
    for name in own_files(folder):
        (folder / name).unlink()
    for runtime in EXPORT_SUFFIXES:
        with suppress(FileNotFoundError):
            (folder / runtime).rmdir()
    folder.rmdir()
