"""A file that stays what it was when it was opened.

A model folder is replaced by renaming, also under a process that serves from it. So every file of
it is opened once, and its hash and all that is read of it, however late, come from that open file
and never from its path again. That another file took its place or that it was removed changes
nothing; only writing into the file itself would, which no save of ours does.
"""

import hashlib
import mmap
import os
import weakref
from pathlib import Path


class OpenFile:
    """An open file and the hash of its bytes; it closes when nobody has it any more.

    Attributes:
        path: Where it lay when it was opened; for messages.
        sha256: Of its bytes, in hexadecimal.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and read it once, in pieces.

        Raises:
            OSError: It is not there or cannot be read.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._size_and_time()  # before it is read
        with open(self.link, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)

    @property
    def link(self) -> str:
        """A path to the open file itself, for libraries that take nothing but paths."""
        return f"/dev/fd/{self._descriptor}"

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    @property
    def is_unchanged(self) -> bool:
        """Whether nobody has written into it since it was opened, as far as size and time tell."""
        return self._state == self._size_and_time()

    def is_at(self, path: Path) -> bool:
        """Return whether this very file lies at a path, unchanged, and no link to it."""
        found = os.fstat(self._descriptor)
        return os.path.samestat(found, path.lstat()) and self.is_unchanged

    def _size_and_time(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def read_bytes(self) -> bytes:
        """Return everything; for files that are small."""
        with open(self.link, "rb") as file:
            return file.read()

    def mapped(self) -> mmap.mmap | None:
        """Return everything, mapped: the system reads it when it is used, and may forget it again.

        The mapping keeps the file by itself. It is writable because some runtimes take nothing
        else; what is written stays in this process.

        Returns:
            None where the file is empty.
        """
        if not os.fstat(self._descriptor).st_size:
            return None
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
