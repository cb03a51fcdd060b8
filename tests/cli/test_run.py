"""How a command ends: exit codes, single lines, and silence."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastbert.cli.run import run
from fastbert.errors import DataError, FolderError, TrainingError
from fastbert.folder import read
from fastbert.recipes import train as train_recipe
from tests.cli.commands import (
    Capture,
    Trained,
    only_line,
    raising,
)
from tests.tiny_data import (
    examples,
    write_csv,
)

MAIN = [sys.executable, "-c", "from fastbert.cli import main; main()"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "t.csv"], "Missing option '--dev'; see `fastbert train --help`"),
        (["sing"], "No such command 'sing'; see `fastbert --help`"),
        (["predict", "m", "t.csv", "--tempo", "1"], "No such option: --tempo"),
        (["predict", "m", "t.csv", "--speed", "1.5"], "Invalid value for '--speed': "),
        (["train", "t.csv", "--kl", "symmetric"], "'symmetric' is not one of 'student-teacher'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert run(arguments) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TrainingError("the loss became nan"), 1, "error: the loss became nan"),
        (DataError("t.csv:3: broken"), 2, "error: t.csv:3: broken"),
        (ValueError("epochs must be at least 1"), 2, "error: epochs must be at least 1"),
        (KeyError("size\nand more"), 1, r"error: KeyError: 'size\nand more' (--debug shows where)"),
        (RuntimeError("two\nlines"), 1, "error: RuntimeError: two lines (--debug shows where)"),
        (OSError(errno.ENOSPC, "No space", "o/x"), 1, "error: [Errno 28] No space: 'o/x'"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "error: No module named "
         "'torch'; install what is missing: pip install 'fastbert-kit[all]'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(read, "open_folder", raising(error))
    assert run(["inspect", "m"]) == code
    assert only_line(capsys.readouterr().err) == line


def test_a_full_disk_is_a_failure_and_not_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    error = FolderError("o: not saved, the disk is full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(train_recipe, "train", raising(error))
    assert run(["train", "t.csv", "--dev", "d.csv", "--model", "m", "--output", "o"]) == 1
    assert only_line(capsys.readouterr().err) == "error: o: not saved, the disk is full"


@pytest.mark.parametrize("arguments", [["--debug", "inspect", "m"], ["inspect", "m", "--debug"]])
def test_debug_shows_where_an_error_comes_from(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(read, "open_folder", raising(FolderError("m: damaged")))
    assert run(arguments) == 2
    first, *rest, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert rest[-1] == "fastbert.errors.FolderError: m: damaged"
    assert last == "error: m: damaged"


def test_a_missing_install_says_what_to_install(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    assert run(["predict", "m", str(texts)]) == 1
    assert "pip install 'fastbert-kit[all]'" in only_line(capsys.readouterr().err)


def test_a_reader_that_has_enough_ends_the_prediction_quietly(
    trained: Trained, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "many.csv", examples(4_000))
    with subprocess.Popen(
        [*MAIN, "predict", trained.folder, str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "label" in json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
