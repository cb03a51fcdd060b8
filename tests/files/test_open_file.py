import hashlib
import os
from pathlib import Path

import pytest

from fastbert.files.open_file import OpenFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "weights.bin").write_bytes(b"what was hashed")
    return tmp_path / "weights.bin"


def test_what_is_read_is_what_was_hashed_whatever_lies_there_now(path: Path) -> None:
    file = OpenFile(path)
    mapping = file.mapped()
    path.with_name("other").write_bytes(b"something else")
    path.with_name("other").rename(path)

    assert file.sha256 == hashlib.sha256(b"what was hashed").hexdigest()
    assert file.read_bytes() == b"what was hashed"
    assert Path(file.link).read_bytes() == b"what was hashed"
    assert mapping is not None
    assert mapping[:] == b"what was hashed"
    assert str(file) == str(path)


def test_a_file_is_in_place_until_another_takes_its_place(path: Path) -> None:
    file = OpenFile(path)
    assert file.is_in_place
    path.unlink()
    assert not file.is_in_place
    path.write_bytes(b"what was hashed")
    assert not file.is_in_place


def test_a_mapping_outlives_the_file(path: Path) -> None:
    mapping = OpenFile(path).mapped()
    path.unlink()
    assert mapping is not None
    mapping[:4] = b"WHAT"  # stays in this process
    assert mapping[:] == b"WHAT was hashed"


def test_of_an_empty_file_there_is_nothing_to_map(path: Path) -> None:
    path.write_bytes(b"")
    assert OpenFile(path).mapped() is None


def test_a_file_that_nobody_has_any_more_is_closed(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    files = [OpenFile(path) for _ in range(7)]
    assert len(os.listdir("/dev/fd")) == before + 7
    del files
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        OpenFile(tmp_path / "nothing")
