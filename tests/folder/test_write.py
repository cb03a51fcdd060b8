"""What is saved is what is read; what cannot be saved leaves what was there."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastbert.errors import FolderError
from fastbert.folder import saves
from fastbert.folder.read import open_folder
from fastbert.folder.write import copy_folder, seal, staged_folder
from fastbert.head_shapes import MeanHead
from tests.folder.folders import (
    EXPORT,
    FOREIGN,
    content,
    fill,
    foreign,
    names_beside,
    put,
    putting_back,
    save,
    settings,
    students_of,
)


def test_seal_returns_what_is_then_read(unsealed: Path) -> None:
    assert seal(unsealed, settings()) == open_folder(unsealed).config


def test_the_packages_that_wrote_a_folder_are_named(model: Path) -> None:
    versions = open_folder(model).config.versions

    assert versions.keys() >= {"fastbert", "tokenizers"}
    assert versions["tokenizers"][0].isdigit()


@pytest.mark.parametrize(
    "name", ["with spaces in it", "名前 é", "x" * 200, "[a-z]*?", os.fsdecode(b"latin-\xe9")]
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    target = tmp_path / name / name
    save(target)
    save(target, mark=2.0)

    assert students_of(open_folder(target))[1, 2] == 10
    assert names_beside(target) == [name]


def test_saving_to_a_link_replaces_the_folder_it_points_to(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(model)
    save(link, mark=2.0)

    assert link.is_symlink()
    assert students_of(open_folder(model))[1, 2] == 10


def test_saved_files_are_readable_by_whom_new_files_are(model: Path, tmp_path: Path) -> None:
    # safetensors makes its files for the owner alone, so a server of another user could not read.
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode

    assert {file.stat().st_mode for file in model.iterdir()} == {expected}


def test_a_copy_is_the_same_model(model: Path, tmp_path: Path) -> None:
    copy_folder(open_folder(model), tmp_path / "copy")

    assert content(tmp_path / "copy") == content(model)


def test_a_copy_of_links_is_made_of_files(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(file)
    copy_folder(open_folder(snapshot), tmp_path / "copy")

    assert content(tmp_path / "copy") == content(model)
    assert not any(file.is_symlink() for file in (tmp_path / "copy").iterdir())


def test_a_folder_can_be_copied_onto_itself(model: Path) -> None:
    before = content(model)
    copy_folder(open_folder(model), model)

    assert content(model) == before


def test_a_copy_carries_what_is_on_the_list_and_nothing_else(model: Path, tmp_path: Path) -> None:
    own = {"speed-accuracy.png": b"png", "calibration.safetensors": b"c", **EXPORT}
    put(model, own)
    expected = content(model)
    put(model, FOREIGN)
    copy_folder(open_folder(model), tmp_path / "copy")

    assert content(tmp_path / "copy") == expected
    assert not list(tmp_path.glob("copy/.*"))


def test_a_folder_that_was_replaced_since_it_was_opened_is_not_copied(
    model: Path, tmp_path: Path
) -> None:
    opened = open_folder(model)
    save(model, mark=2.0)

    with pytest.raises(FolderError, match="model: was replaced"):
        copy_folder(opened, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_failed_save_leaves_the_old_folder_and_nothing_else(model: Path) -> None:
    before = content(model)

    def fail() -> None:
        with staged_folder(model) as staging:
            fill(staging, mark=2.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert content(model) == before
    assert names_beside(model) == ["model"]


def test_a_failed_first_save_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "model") as staging:
            fill(staging)
            (staging / "students.safetensors").unlink()
            seal(staging, settings())

    with pytest.raises(FolderError, match=r"students\.safetensors"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_model_is_never_sealed(unsealed: Path) -> None:
    with pytest.raises(FolderError, match="has 4 layers"):
        seal(unsealed, settings(num_layers=5, students=(MeanHead(),) * 4, default=None))

    assert not (unsealed / "early_exit.json").exists()


def test_a_save_replaces_the_whole_model(model: Path, tmp_path: Path) -> None:
    put(model, {"calibration.safetensors": b"c", "speed-accuracy.png": b"png", **EXPORT})
    save(model, mark=2.0)

    assert content(model) == content(save(tmp_path / "new", mark=2.0))
    assert not (model / "openvino").exists()


def test_a_failed_save_leaves_what_a_user_keeps(model: Path) -> None:
    put(model, FOREIGN)
    test_a_failed_save_leaves_the_old_folder_and_nothing_else(model)

    assert foreign(model) == FOREIGN


@pytest.mark.parametrize("kind", ["the Hub's cache", "links", "a link of a folder"])
def test_a_folder_that_others_share_is_not_written_to(
    model: Path, tmp_path: Path, kind: str
) -> None:
    shared = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    shared.parent.mkdir(parents=True)
    if kind == "the Hub's cache":  # on a disk without links
        shutil.copytree(model, shared)
    elif kind == "links":
        shared = tmp_path / "links"
        shared.mkdir()
        for file in model.iterdir():
            (shared / file.name).symlink_to(file)
    else:
        shared = model
        (tmp_path / "exports").mkdir()
        (shared / "onnx").symlink_to(tmp_path / "exports")
    before = content(shared)

    with pytest.raises(FolderError, match=r"0123abc|links|model: lies in .* of your own") as caught:
        save(shared, mark=2.0)
    assert str(caught.value).startswith(f"{shared}: ")
    assert content(shared) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    open_folder(save(tmp_path / "model"))


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(FolderError, match=r"holds other files and no early_exit\.json"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_a_folder_that_fills_up_while_saving_is_not_replaced(tmp_path: Path) -> None:
    def fill_both() -> None:
        with staged_folder(tmp_path / "model"):
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "thesis.tex").touch()

    with pytest.raises(FolderError, match="holds other files"):
        fill_both()
    assert content(tmp_path) == {"model/thesis.tex": b""}


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(FolderError, match="file: is a file; name a folder"):
        save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kib", [800, 900, 960, 1000, 1010, 1020, 1024])
def test_a_disk_that_is_really_full_leaves_the_old_folder(small_disk: Path, kib: int) -> None:
    # Every size lets the save come a file or so further before the disk is full.
    model = save(small_disk / "model")
    before = content(model)
    used = sum(file.stat().st_blocks * 512 for file in small_disk.rglob("*"))
    (small_disk / "other").write_bytes(bytes(max(0, kib * 1024 - used)))

    def save_more() -> None:
        with staged_folder(model) as staging:
            fill(staging, mark=2.0)
            save_file({"encoder": np.zeros(60_000, np.float32)}, staging / "model.safetensors")
            seal(staging, settings())

    with pytest.raises(FolderError, match=r"model: not saved, the disk is full: [\d,]+ bytes"):
        save_more()
    assert content(model) == before
    assert names_beside(model) == ["model", "other"]
    open_folder(model)


def test_a_disk_that_is_full_while_copying_is_told_as_such(model: Path, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(1020 * 1024))

    with pytest.raises(FolderError, match="copy: not saved, the disk is full"):
        copy_folder(open_folder(model), small_disk / "copy")
    assert names_beside(small_disk / "copy") == ["other"]


@pytest.mark.parametrize("call", ["fsync", "mkdir", "chmod", "rename"])
@pytest.mark.parametrize("times", range(4))
def test_a_full_disk_at_any_call_leaves_the_old_folder(
    model: Path, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    before = content(model)
    allowed = iter(range(times))
    real = getattr(os, call)

    def limited(*arguments: Any, **options: Any) -> Any:
        if next(allowed, None) is None and not putting_back(call, arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, limited)
    message = None
    try:
        save(model, mark=2.0)
    except FolderError as error:
        message = str(error)
    monkeypatch.undo()

    if message is None:  # no more calls than allowed
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    else:
        assert message.startswith(f"{model}: not saved, the disk is full")
        assert content(model) == before
    open_folder(model)
    assert names_beside(model) == ["model"]


@pytest.mark.parametrize("intruders", [1, 9, 10])
def test_a_save_that_comes_between_the_renames_of_another_is_replaced_whole(
    model: Path, monkeypatch: pytest.MonkeyPatch, intruders: int
) -> None:
    put(model, FOREIGN)
    other = save(model.parent / "other", mark=4.0)
    real = os.rename
    coming = iter(range(intruders))

    def rename(source: Path, destination: Path) -> None:
        if Path(source).name == "new" and next(coming, None) is not None:
            shutil.copytree(other, destination)
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    message = None
    try:
        save(model, mark=2.0)
    except FolderError as error:
        message = str(error)
    monkeypatch.undo()

    assert (message is None) == (intruders < saves.SWAP_ATTEMPTS)
    if message is None:
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    else:
        assert "another process keeps saving here" in message
        assert content(model) == content(other) | FOREIGN
    assert foreign(model) == FOREIGN
    assert names_beside(model) == ["model", "other"]
