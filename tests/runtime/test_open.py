"""Which runtime runs a model folder, and what is said where it cannot."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.errors import FolderError, MissingExtraError
from fastbert.folder.read import open_folder
from fastbert.running import Running
from fastbert.runtime import open as open_module
from fastbert.runtime.open import export_to_run, open_backend
from tests.tiny_folder import save_model


def test_auto_takes_openvino_then_onnx_then_torch(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["fp32"], tmp_path / "model")
    names = []
    for gone in ("openvino", "onnx", None):
        names.append(type(FastBertClassifier.from_pretrained(folder).backend).__name__)
        if gone:
            shutil.rmtree(folder / gone)
    assert names == ["OpenVinoBackend", "OnnxBackend", "TorchBackend"]


def test_auto_says_when_an_export_lies_idle(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(open_module, "find_spec", lambda name: name != "openvino")
    classifier = FastBertClassifier.from_pretrained(folders["fp32"])
    assert type(classifier.backend).__name__ == "OnnxBackend"
    assert "pip install 'fastbert-kit[openvino]'" in caplog.text


def test_a_device_means_torch(folders: dict[str, Path]) -> None:
    classifier = FastBertClassifier.from_pretrained(folders["fp32"], device="cpu")
    assert type(classifier.backend).__name__ == "TorchBackend"


def test_what_was_not_exported_cannot_be_asked_for(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "bert")
    with pytest.raises(FolderError, match="holds no export for openvino; export again with"):
        FastBertClassifier.from_pretrained(folder, runtime="openvino")
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        FastBertClassifier.from_pretrained(folder, workers=0)


def test_a_missing_runtime_says_what_to_install(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fastbert.runtime.onnx_backend", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastbert-kit\[onnx\]'"):
        FastBertClassifier.from_pretrained(folders["fp32"], runtime="onnx")


def test_a_dtype_means_torch_too(folders: dict[str, Path]) -> None:
    folder = open_folder(folders["fp32"])
    assert export_to_run(folder, Running(dtype="bfloat16")) is None
    assert export_to_run(folder, Running(device="cpu")) is None
    assert export_to_run(folder, Running("torch")) is None


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_export_that_was_asked_for_is_opened(runtime: Any, folders: dict[str, Path]) -> None:
    folder = open_folder(folders["int8"])
    export = export_to_run(folder, Running(runtime))
    assert export is not None
    assert (export.runtime, export.precision) == (runtime, "int8")
    assert open_backend(export).num_exits == folder.config.num_layers
