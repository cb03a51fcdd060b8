"""Bytes on a disk: how they are hashed, when they are safe, and what the system says of them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; it is read in pieces."""
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        raise FolderError(f"{path}: cannot be read: {error.strerror or error}") from error


def expanded(path: str | Path) -> Path:
    """Return a path with `~` resolved."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise FolderError(f"{path}: {error}") from error
