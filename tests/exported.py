"""Exports of tiny models: tracing takes seconds, so a run of the tests traces a model once."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import onnx
from onnx import ModelProto

from fastbert.export.export import export_model
from fastbert.export.pieces import piece_models
from fastbert.folder.read import open_folder
from fastbert.nn.model import FastBertModel
from fastbert.running import Precision, Runtime

KINDS: list[tuple[Runtime, Precision]] = [
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "int8"),
]


def export_all(folder: Path, kinds: list[tuple[Runtime, Precision]]) -> None:
    """Export a folder once for each of the kinds; the last of a runtime's precisions stays."""
    pieces = pieces_of(folder)
    for runtime, precision in kinds:
        export_model(folder, runtime=runtime, precision=precision, pieces=pieces)


def pieces_of(folder: Path) -> list[ModelProto]:
    """Return what `traced` would for a folder."""
    opened = open_folder(folder)
    return traced_once(
        FastBertModel.load(opened), gives_segments=opened.text_tokenizer().gives_segments
    )


def traced_once(model: FastBertModel, *, gives_segments: bool) -> list[ModelProto]:
    """Return what `piece_models` would, from another test's trace if there is one."""
    traces = Path(os.environ["TRACES_OF_TESTS"])  # tests/conftest.py
    kept = traces / f"{_hash(model)}-{gives_segments}"
    if not kept.exists():
        made = Path(tempfile.mkdtemp(dir=traces))
        for number, piece in enumerate(piece_models(model, gives_segments=gives_segments)):
            onnx.save_model(piece, made / f"{number:02}.onnx")
        with suppress(OSError):  # another process was faster
            made.rename(kept)
    return [onnx.load(path) for path in sorted(kept.iterdir())]


def _hash(model: FastBertModel) -> str:
    """Return a hash of all that a trace depends on."""
    digest = hashlib.sha256(f"{model}{model.student_shapes}{model.teacher.config}".encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()
