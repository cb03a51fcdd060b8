"""Exports of tiny models: tracing takes seconds, so one trace serves all precisions."""

from pathlib import Path

from fastbert.export.export import export_model, traced
from fastbert.folder import open_folder
from fastbert.runtime.manifest import Precision, Runtime

KINDS: list[tuple[Runtime, Precision]] = [
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "int8"),
]


def export_all(folder: Path, kinds: list[tuple[Runtime, Precision]]) -> None:
    """Export a folder once for each of the kinds; the last of a runtime's precisions stays."""
    stages = traced(open_folder(folder))
    for runtime, precision in kinds:
        export_model(folder, runtime=runtime, precision=precision, stages=stages)
