"""A file that appears under its name when it is whole, or not at all.

What is half written lies beside its place under a name that no other process has and that was free
before, so two writers of one file never touch each other (the last to finish wins), and no file of
a user's is overwritten on the way.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it takes its place when the block ends without an exception.

    A link stays a link. What is no usual file, such as a pipe or /dev/null, is written to at once.
    A process that is killed leaves its unfinished file, `NAME.XXXXXXXX.part`. No later one removes
    it: it may belong to a process that still runs, and what it holds may be wanted.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with part.open("xb") as file:  # never what somebody else has made
        try:
            yield file
            file.close()  # all of it, before it has the name
            part.replace(path)
        except BaseException:  # also ^C
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as a whole file of JSON, to be read by people too.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
