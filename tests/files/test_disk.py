"""What is read of a disk, and what is said when it cannot be."""

import hashlib
import os
from pathlib import Path

import pytest

from fastbert.errors import FolderError
from fastbert.files.disk import expanded, hash_of_file, readable, sync_to_disk


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_a_file_is_hashed_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)

    assert hash_of_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_file_that_cannot_be_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"nothing: cannot be read: No such file or directory$"):
        hash_of_file(tmp_path / "nothing")


def test_what_the_system_does_not_put_into_words_is_told_as_it_came() -> None:
    def fail() -> None:
        with readable(Path("file")):
            raise OSError("broken somehow")

    with pytest.raises(FolderError, match=r"^file: cannot be read: broken somehow$"):
        fail()


def test_files_and_folders_are_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(os.fstat(opened).st_ino))
    sync_to_disk(tmp_path / "file")
    sync_to_disk(tmp_path)

    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_a_tilde_is_a_home_folder_and_nobodys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert expanded("~/model") == tmp_path / "model"
    assert expanded("model~") == Path("model~")
    with pytest.raises(FolderError, match=r"^~nobody-of-that-name/model: "):
        expanded("~nobody-of-that-name/model")
