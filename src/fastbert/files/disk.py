"""Bytes on a disk: how they are hashed, when they are safe, and what the system says of them."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile

_PIECE = 2**20  # bytes of a file that are held at a time


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; it is read in pieces."""
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, place: Path) -> str:
    """Copy a file, or what a link leads to, to a free name; return the SHA-256 of its bytes.

    They are read once: what is hashed is what is written. Mode and times are kept.
    """
    digest = hashlib.sha256()
    with source.open("rb") as read, place.open("xb") as written:
        while piece := read.read(_PIECE):
            digest.update(piece)
            written.write(piece)
    shutil.copystat(source, place)
    return digest.hexdigest()


def link_file(source: Path, place: Path, mode: int) -> bool:
    """Give a file a second name instead of a copy; return whether that could be done.

    Not for a link, nor for a file of another user or mode: what changes one name's mode changes
    that of both. Some disks have no second names.
    """
    found = source.lstat()
    if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != mode:
        return False
    if found.st_uid != os.geteuid():
        return False
    try:
        os.link(source, place)
    except OSError:  # whatever the reason is, a copy has the same or does without
        return False
    return True


def sync_to_disk(path: Path) -> None:
    """Wait until a file or a folder is on the disk itself, where a power cut cannot reach it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def readable(path: Path | OpenFile) -> Iterator[None]:
    """Turn what the system says about a file into an error that names it."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"cannot be read: {error.strerror or error}", path=path) from error


def expanded(path: str | Path) -> Path:
    """Return a path with `~` resolved."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise FolderError(str(error), path=path) from error
