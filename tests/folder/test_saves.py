"""Saves that are killed, that cross each other, and what a user keeps beside a model."""

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fastbert.errors import FolderError
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.saves import lies_here
from fastbert.folder.write import copy_folder, seal, staged_folder
from tests.folder.folders import (
    EXPORT,
    FOREIGN,
    LABELS,
    STUDENT,
    content,
    fill,
    foreign,
    killed_between_renames,
    names_beside,
    put,
    save,
    settings,
    start,
    students_of,
)


def test_what_a_user_keeps_in_the_folder_is_left_alone(model: Path, tmp_path: Path) -> None:
    put(model, FOREIGN | EXPORT)
    inode = (model / "data/train.csv").stat().st_ino
    (model / "link").symlink_to("data/train.csv")
    save(model, mark=2.0)
    copy_folder(open_folder(model), model)

    assert foreign(model) == FOREIGN
    assert (model / "data/train.csv").stat().st_ino == inode  # moved, not copied
    assert (model / "link").read_bytes() == FOREIGN["data/train.csv"]
    (model / "link").unlink()
    assert content(model) == content(save(tmp_path / "model2", mark=2.0)) | FOREIGN
    assert names_beside(model) == ["model", "model2"]


def test_a_name_that_is_taken_is_not_overwritten(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(model, {"notes.txt": b"the old ones", "data/a.csv": b"a", "plan.txt": b"plan"})
    with staged_folder(model) as staging:
        fill(staging, mark=2.0)
        seal(staging, settings())
        put(staging, {"notes.txt": b"new ones", "data/b.csv": b"b"})

    assert (model / "notes.txt").read_bytes() == b"new ones"
    assert content(model / "data") == {"b.csv": b"b"}
    assert (model / "plan.txt").exists()
    [left] = model.parent.glob(".*/left-0")
    assert content(left) == {"notes.txt": b"the old ones", "data/a.csv": b"a"}
    [record] = caplog.records
    assert f"{model}: data, notes.txt of the folder" in record.message
    assert str(left) in record.message

    (model / "notes.txt").unlink()  # once there is room, the next save or load puts it back
    open_folder(model)
    assert (model / "notes.txt").read_bytes() == b"the old ones"
    assert content(left) == {"data/a.csv": b"a"}


def test_what_cannot_be_moved_is_kept_and_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(model, FOREIGN)
    real = os.rename

    def rename(source: Path, destination: Path) -> None:
        if Path(source).parent.name == "left-0":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        save(model, mark=2.0)

    [left] = model.parent.glob(".*/left-0")
    assert str(left) in caplog.text
    assert students_of(open_folder(model))[1, 2] == 10
    assert foreign(model) == FOREIGN
    assert names_beside(model) == ["model"]


def test_an_old_folder_that_cannot_be_put_back_is_kept_and_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(model)
    real = os.rename

    def one_way(source: Path, destination: Path) -> None:
        if destination == model:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, destination)

    monkeypatch.setattr(os, "rename", one_way)
    with pytest.raises(FolderError, match="could not be put back") as caught:
        save(model, mark=2.0)
    monkeypatch.undo()

    [kept] = model.parent.glob("*/old-0")
    assert str(kept) in str(caught.value)
    assert content(kept) == before
    open_folder(model)  # puts it back, for its process no longer holds the lock
    assert content(model) == before
    assert names_beside(model) == ["model"]


def killed_while_staging(target: Path) -> None:
    program = """
        with staged_folder(target) as staging:
            fill(staging, mark=2.0)
            print("staged", flush=True)
            signal.pause()
    """
    with start(program, target) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_save_that_is_killed_leaves_the_old_folder(model: Path) -> None:
    before = content(model)
    killed_while_staging(model)

    assert content(model) == before
    open_folder(model)


def test_the_next_save_removes_what_a_killed_one_left(model: Path) -> None:
    killed_while_staging(model)
    assert len(names_beside(model)) == 2

    save(model, mark=3.0)
    assert names_beside(model) == ["model"]


def test_a_save_killed_between_its_renames_is_undone_by_the_next_load(model: Path) -> None:
    before = content(model)
    program = """
        real = os.rename
        def rename(source, destination):
            if Path(source).name == "new":
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, destination)
        os.rename = rename
        save(target, mark=2.0)
    """
    with start(program, model) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not model.exists()

    open_folder(model)
    assert content(model) == before
    assert names_beside(model) == ["model"]


def test_a_path_of_which_the_save_was_killed_is_a_folder_of_ours(model: Path) -> None:
    assert lies_here(str(model))
    assert not lies_here(str(model.parent / "mod"))
    killed_between_renames(model)
    assert lies_here(str(model))


def test_a_load_between_the_renames_of_a_living_save_waits_for_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = killed_between_renames(model)
    lock = os.open(old.with_name("lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as long as it lives
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.rename(old, model)

    monkeypatch.setattr("fastbert.folder.saves.time.sleep", sleep)

    assert open_folder(model).config.labels == LABELS
    assert len(waits) == 2
    os.close(lock)


KILLS = {  # after so many calls; the last of each is at the end of a save
    "fsync": (0, 3, 8),
    "mkdir": (0, 1, 2, 3, 4),
    "chmod": (0, 5),
    "rename": (0, 1, 2, 3, 4, 5, 6, 8, 11, 12),
    "open": (0, 1, 9),
    "unlink": (0, 1, 6, 7),
    "rmdir": (0, 1, 2, 3),
}


@pytest.mark.parametrize(("call", "times"), [(call, n) for call, ns in KILLS.items() for n in ns])
def test_a_save_killed_at_any_call_leaves_a_whole_folder(
    model: Path, call: str, times: int
) -> None:
    put(model, FOREIGN)
    before = content(model)
    program = """
        name, times = sys.argv[2], int(sys.argv[3])
        real, calls = getattr(os, name), iter(range(times))
        def deadly(*arguments, **options):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, deadly)
        save(target, mark=2.0)
    """
    with start(program, model, call, str(times)) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL

    students_of(open_folder(model))
    if content(model) != before:
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    assert foreign(model) == FOREIGN
    save(model, mark=3.0)
    assert content(model)["README.md"] == b"# A model of 3.0\n"
    assert foreign(model) == FOREIGN


def test_a_save_in_progress_is_not_cleaned_up_by_another(model: Path) -> None:
    with staged_folder(model) as staging:
        fill(staging, mark=2.0)
        save(model, mark=3.0)
        assert staging.is_dir()
        seal(staging, settings())

    assert students_of(open_folder(model))[1, 2] == 10  # the last one wins
    assert names_beside(model) == ["model"]


def test_processes_that_save_to_one_place_never_mix(model: Path) -> None:
    program = """
        for _ in range(15):
            save(target, mark=float(sys.argv[2]), training={"mark": float(sys.argv[2])})
    """
    put(model, FOREIGN)
    processes = [start(program, model, mark) for mark in ("2", "3", "4")]
    reads = 0
    while any(process.poll() is None for process in processes):
        try:
            students = students_of(found := open_folder(model))
        except FolderError:
            continue  # replaced while it was being read, and noticed
        reads += 1
        mark = found.config.training.get("mark", 1.0)
        assert students.tolist() == (STUDENT * mark).tolist()
    for process in processes:
        process.communicate()

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert reads > 0
    assert names_beside(model) == ["model"]
    assert foreign(model) == FOREIGN
    last = open_folder(model)
    students = students_of(last)
    assert students.tolist() == (STUDENT * last.config.training["mark"]).tolist()


def test_a_disk_without_locks_can_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    save(tmp_path / "model")

    assert isinstance(open_folder(tmp_path / "model"), ModelFolder)
