"""Which export is the fastest here: who takes part, what is measured, when it is not measured."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError
from fastbert.folder.export import open_export
from fastbert.folder.export_times import ExportTimes, read_times
from fastbert.folder.names import TIMES_FILE
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.running import Running, Runtime
from fastbert.runtime import fastest as fastest_module
from fastbert.runtime.fastest import ALONE, ROWS, measured_times, time_exports
from fastbert.runtime.open import open_backend

RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnx")


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> ModelFolder:
    """A folder with both exports, on this processor of nobody knows what speed."""
    return open_folder(shutil.copytree(folders["fp32"], tmp_path / "model"))


def with_clock(monkeypatch: pytest.MonkeyPatch, seconds: Mapping[str, float]) -> list[str]:
    """Let runs take so many seconds by their names; return the names of all that ran."""
    ran: list[str] = []

    def time_rounds(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
        ran.extend(runs)
        return {name: np.full(rounds, seconds[name]) for name in runs}

    monkeypatch.setattr(fastest_module, "time_rounds", time_rounds)
    return ran


def test_a_text_alone_and_one_of_a_batch_are_told_in_milliseconds(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clock(monkeypatch, {"one": 0.2})
    backend = open_backend(open_export(folder, "onnx"), Running(threads=1))
    found = measured_times({"one": backend}, folder.text_tokenizer())
    assert found == {"one": ExportTimes(200 / ALONE, 200 / ROWS)}


def test_where_one_cannot_run_here_nothing_is_measured_and_a_line_says_so(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise ExportError("this processor does not compute in bf16")

    monkeypatch.setattr(fastest_module, "open_backend", refuse)
    time_exports(folder, Running(threads=1))
    assert "its exports were not measured: this processor does not compute in bf16" in caplog.text
    assert not (folder.path / TIMES_FILE).exists()


@pytest.mark.parametrize(("faster", "backend"), [("onnx", "Onnx"), ("openvino", "OpenVino")])
def test_auto_takes_the_export_that_was_the_faster_here(
    faster: Runtime, backend: str, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clock(monkeypatch, {name: 0.1 if name == faster else 0.3 for name in RUNTIMES})
    time_exports(folder, Running())
    assert read_times(folder, RUNTIMES)[faster].alone_ms == pytest.approx(100 / ALONE)
    classifier = FastBertClassifier.from_pretrained(folder.path)
    assert type(classifier.backend).__name__ == f"{backend}Backend"


def test_what_is_known_or_has_nothing_beside_it_is_not_measured(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = with_clock(monkeypatch, dict.fromkeys(RUNTIMES, 0.1))
    time_exports(folder, Running())
    assert len(ran) == 4  # both, alone and in bulk
    time_exports(folder, Running())
    assert len(ran) == 4
    shutil.rmtree(folder.path / "onnx")
    (folder.path / TIMES_FILE).unlink()
    time_exports(open_folder(folder.path), Running())
    assert len(ran) == 4


def test_a_folder_that_cannot_be_written_stays_as_it_is(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_clock(monkeypatch, dict.fromkeys(RUNTIMES, 0.1))
    (folder.path / TIMES_FILE).mkdir()
    time_exports(folder, Running())
    assert "export_times.json: not written" in caplog.text
