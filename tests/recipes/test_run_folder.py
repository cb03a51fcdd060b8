"""The folder of a run: whose it is, and what may be removed of it."""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastbert.errors import FolderError, TrainingError
from fastbert.recipes.run_folder import (
    claim,
    has_begun,
    read_run,
    remove,
    write_run,
)

WORK = {"settings": {"epochs": 3}}


def begin(folder: Path) -> None:
    """Write what a run that was stopped in its first stage leaves."""
    write_run(folder, WORK)
    (folder / "stages" / "teacher" / "checkpoint-3").mkdir(parents=True)


def test_a_folder_is_kept_once_there_is_something_to_go_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "output.training"
    with claim(folder):
        write_run(folder, WORK)
    assert not folder.exists()
    with claim(folder):
        begin(folder)
    assert has_begun(folder)
    assert read_run(folder) == WORK | {"what": "a training run of fastbert", "layout": 2}


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "output.training"
    with claim(folder):
        begin(folder)
        with pytest.raises(TrainingError, match="another run is training here"), claim(folder):
            pass
        assert has_begun(folder)
    with claim(folder):
        assert has_begun(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from fastbert.recipes.run_folder import claim
with claim(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "output.training"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder.exists()
    with claim(folder):
        pass
    assert not folder.exists()


@pytest.mark.parametrize("written", [None, "{}", '{"what": "another program"}', "{", "[]"])
def test_a_folder_without_the_mark_of_a_run_is_refused(written: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "output.training"
    (folder / "stages" / "teacher" / "checkpoint-3").mkdir(parents=True)
    if written is not None:
        (folder / "run.json").write_text(written)
    before = sorted(folder.rglob("*"))
    refused = pytest.raises(FolderError, match=r"output\.training: holds .*nothing is written")
    with refused, claim(folder):
        pass
    assert sorted(folder.rglob("*")) == before


def test_what_others_put_into_a_run_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path)
    (tmp_path / "train.csv").touch()
    with caplog.at_level(logging.WARNING):
        remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
    assert "is kept, it holds train.csv" in caplog.text


def test_a_run_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "output.training"
    (folder / "teacher" / "checkpoint-3").mkdir(parents=True)
    (folder / "run.json").write_text('{"what": "a training run of fastbert"}')
    before = sorted(folder.rglob("*"))
    refused = pytest.raises(TrainingError, match=r"run of another version .*, or delete it")
    with refused, claim(folder):
        pass
    assert sorted(folder.rglob("*")) == before
