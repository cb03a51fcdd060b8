"""Exporting the fastest: each is tried, the fastest is kept, and what is refused is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fastbert.bench import fastest as fastest_module
from fastbert.bench.fastest import export_fastest
from fastbert.errors import ExportError
from fastbert.export.export import export_model
from fastbert.folder.export import has_export, open_export
from fastbert.folder.export_times import ExportTimes
from fastbert.folder.read import open_folder
from fastbert.running import Precision, Runtime
from tests.exported import pieces_of
from tests.tiny_folder import save_model

HERE = {"torch": ["fp32"], "openvino": ["fp32", "int8"], "onnx": ["fp32"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fastest_module, "runtimes", lambda: HERE)
    monkeypatch.setattr("fastbert.export.export.traced", lambda folder: pieces_of(folder.path))
    return save_model(tmp_path / "model", "bert")


def with_times(monkeypatch: pytest.MonkeyPatch, times: Mapping[str, float]) -> dict[str, str]:
    """Let exports take so many milliseconds; return the backends of those that took part."""
    took_part: dict[str, str] = {}

    def measured(backends: dict[str, Any], *_: Any) -> dict[str, ExportTimes]:
        took_part.update({name: type(one).__name__ for name, one in backends.items()})
        return {name: ExportTimes(times[name], times[name]) for name in backends}

    monkeypatch.setattr(fastest_module, "measured_times", measured)
    return took_part


@pytest.mark.parametrize(
    ("fastest", "runtime", "precision"),
    [("openvino int8", "openvino", "int8"), ("onnx fp32", "onnx", "fp32")],
)
def test_each_is_tried_and_the_fastest_is_kept_alone(
    fastest: str,
    runtime: Runtime,
    precision: Precision,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = dict.fromkeys(("openvino fp32", "openvino int8", "onnx fp32"), 2.0) | {fastest: 1.0}
    took_part = with_times(monkeypatch, times)
    found = export_fastest(folder, texts=["a b", "c"], source="two texts")
    assert found.name == fastest
    assert found.times == {name: ExportTimes(ms, ms) for name, ms in times.items()}
    assert took_part == {
        "openvino fp32": "OpenVinoBackend",
        "openvino int8": "OpenVinoBackend",
        "onnx fp32": "OnnxBackend",
    }
    opened = open_folder(folder)
    assert open_export(opened, runtime).precision == precision
    assert [has_export(opened, other) for other in ("openvino", "onnx")].count(True) == 1
    assert (found.manifest.parity.rows, found.manifest.parity.source) == (2, "two texts")


def test_a_precision_that_is_named_is_tried_alone_and_really_measured(folder: Path) -> None:
    found = export_fastest(folder, precision="fp32")
    assert found.times.keys() == {"openvino fp32", "onnx fp32"}
    assert all(taken.mean_ms > 0 for taken in found.times.values())
    assert found.times[found.name] == min(found.times.values(), key=lambda taken: taken.mean_ms)


def test_what_answers_otherwise_than_torch_is_left_out_with_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_int8(path: Path, **asked: Any) -> Any:
        if asked["precision"] == "int8":
            raise ExportError("4 of 58 labels differ from those of torch")
        return export_model(path, **asked)

    monkeypatch.setattr("fastbert.export.export.export_model", refuse_int8)
    with_times(monkeypatch, {"openvino fp32": 2.0, "onnx fp32": 1.0})
    assert export_fastest(folder).name == "onnx fp32"
    assert (
        "FastBERT openvino int8 is left out: 4 of 58 labels differ from those of torch"
        in caplog.text
    )


def test_where_none_can_be_used_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ExportError("labels differ")

    monkeypatch.setattr("fastbert.export.export.export_model", refuse)
    with pytest.raises(ExportError, match="used here: FastBERT openvino fp32: labels differ; Fast"):
        export_fastest(folder)
    assert not any(has_export(open_folder(folder), name) for name in ("openvino", "onnx"))
