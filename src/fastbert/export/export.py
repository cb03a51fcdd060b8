"""`fastbert export`: write a runtime's files into a model folder, if they answer alike.

Pieces are traced once as ONNX. For ONNX Runtime they are the files; OpenVINO converts them, and
compresses the weights where int8 is asked for. Before anything reaches the folder the export
answers the same texts as torch, and one that answers otherwise is refused.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import onnx
from onnx import ModelProto

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError
from fastbert.exits.criteria import Measure
from fastbert.exits.measures import measure_to_json
from fastbert.export.adaptive import adaptive_model, refuse_beyond_protobuf, refuse_unwritable
from fastbert.export.int8 import quantised
from fastbert.export.parity import compare_with_torch, refuse_beyond_bar
from fastbert.export.pieces import piece_models
from fastbert.export.sample import SAMPLE_TEXTS
from fastbert.extras import installed_versions, needs_extra
from fastbert.files.disk import hash_of_file
from fastbert.folder.calibration import can_solve_goals, read_record
from fastbert.folder.export import (
    ACTIVATION_BITS,
    EXPORTED_FROM,
    Export,
    ExportManifest,
)
from fastbert.folder.names import ADAPTIVE_FILE, MANIFEST_FILE
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.write import fill_staging, refuse_what_others_share, staged_folder
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.running import PRECISIONS, Precision, Runtime
from fastbert.runtime.open import open_backend
from fastbert.tasks.known import task_to_json
from fastbert.text import Text

COMPARED_TEXTS = 1_000
SAMPLE_SOURCE = "built-in sentences"
PACKAGES = ("fastbert-kit", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf")


def export_model(
    folder: str | Path,
    *,
    runtime: Runtime,
    precision: Precision = "fp32",
    adaptive: bool = False,
    texts: Sequence[Text] | None = None,
    source: str = SAMPLE_SOURCE,
    pieces: Sequence[ModelProto] | None = None,
) -> ExportManifest:
    """Export a model folder for a runtime, into the folder itself.

    Args:
        folder: A model folder; an earlier export for the runtime is replaced.
        runtime: What shall run it.
        precision: In what it shall compute.
        adaptive: Also write the whole model as one ONNX file that exits early by itself.
        texts: Texts to compare with torch on; the first ones, at most `COMPARED_TEXTS`.
        source: What to call these texts, a name that may be published.
        pieces: What `traced` returned for this folder, for several exports of it; most of the time
            goes into tracing.

    Raises:
        ExportError: The runtime has no such precision, the export answers otherwise than torch, or
            an adaptive file would be too large for ONNX or judge by a measure of your own.
        FolderError: The folder is damaged or cannot be written.
        ValueError: The calibration's measure of doubt cannot be part of an adaptive file.
    """
    if precision not in PRECISIONS[runtime]:
        raise ExportError(
            f"{runtime} computes in {' or '.join(PRECISIONS[runtime])}, not in {precision}"
        )
    if adaptive and runtime != "onnx":
        raise ExportError("the adaptive file is ONNX: ask for it with --runtime onnx")
    opened = open_folder(folder)
    refuse_what_others_share(opened.path)
    tokenizer = opened.text_tokenizer()
    model = FastBertModel.load(opened)
    original = FastBertClassifier(TorchBackend(model), tokenizer, opened)
    if adaptive:  # before minutes of tracing
        refuse_unwritable(_measure(original), opened.config.task)
        refuse_beyond_protobuf(_weight_bytes(model, precision))
    if pieces is None:
        pieces = piece_models(model, gives_segments=tokenizer.gives_segments)
    if runtime == "onnx" and precision == "int8":
        pieces = [pieces[0], *map(quantised, pieces[1:])]

    with staged_folder(opened.path) as staging:
        fill_staging(opened, staging)
        activation_bits = ACTIVATION_BITS.get((runtime, precision))
        export = Export(
            staging / runtime, runtime, precision, opened.config.num_layers, activation_bits
        )
        shutil.rmtree(export.path, ignore_errors=True)
        export.path.mkdir()
        _write_pieces(pieces, export)
        written = export.opened()
        exported = FastBertClassifier(open_backend(written), tokenizer, opened)
        hashes = {name: file.sha256 for name, file in written.files.items()}
        if adaptive:
            onnx.save(_adaptive(pieces, original), export.path / ADAPTIVE_FILE)
            hashes[ADAPTIVE_FILE] = hash_of_file(export.path / ADAPTIVE_FILE)
        parity = compare_with_torch(
            original, exported, list(texts or SAMPLE_TEXTS)[:COMPARED_TEXTS], source
        )
        refuse_beyond_bar(parity, precision)
        manifest = ExportManifest(
            runtime=runtime,
            precision=precision,
            activation_bits=activation_bits,
            files={name: hashes[name] for name in sorted(hashes)},
            exported_from={name: opened.config.hashes[name] for name in EXPORTED_FROM},
            versions=installed_versions(PACKAGES),
            parity=parity,
        )
        (export.path / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def traced(folder: ModelFolder) -> list[ModelProto]:
    """Return the pieces of a folder's model."""
    tokenizer = folder.text_tokenizer()
    return piece_models(FastBertModel.load(folder), gives_segments=tokenizer.gives_segments)


def _measure(classifier: FastBertClassifier) -> Measure:
    """Return the measure that the calibration judges by, else the paper's."""
    if classifier.config.calibration is None:
        return classifier.task.uncertainty
    if not can_solve_goals(classifier.folder):
        name = read_record(classifier.folder).measure.get("name")
        raise ExportError(
            f"the calibration's own measure of doubt, {name}, cannot be part of an adaptive file; "
            "export without --adaptive, or calibrate with a measure that `fastbert calibrate "
            "--help` names"
        )
    return classifier.calibration.measure


def _weight_bytes(model: FastBertModel, precision: Precision) -> int:
    """Return how much the weights take at least; in int8 the embeddings stay as they are."""
    words: int = model.backbone.encoder.get_input_embeddings().weight.numel()
    others = sum(weight.numel() for weight in model.parameters()) - words
    return 4 * words + (1 if precision == "int8" else 4) * others


def _adaptive(pieces: Sequence[ModelProto], classifier: FastBertClassifier) -> ModelProto:
    """Return the whole model as one file, judging as the calibration does, else as the paper."""
    measure = _measure(classifier)
    metadata = {
        "labels": json.dumps(classifier.labels, ensure_ascii=False),
        "task": json.dumps(task_to_json(classifier.task)),
        "num_layers": str(classifier.num_layers),
        "max_length": str(classifier.config.max_length),
        "criterion": json.dumps(measure_to_json(measure)),
        "fastbert": version("fastbert-kit"),
    }
    return adaptive_model(pieces, measure, classifier.config.task, metadata)


def _write_pieces(pieces: Sequence[ModelProto], export: Export) -> None:
    for piece, path in zip(pieces, export.pieces, strict=True):
        if export.runtime == "onnx":
            _write_onnx(piece, path)
        else:
            _write_openvino(piece, path, export.precision)


def _write_onnx(piece: ModelProto, path: Path) -> None:
    """Write the graph, and the weights beside it, where the runtime can map them into memory."""
    copy = ModelProto.FromString(piece.SerializeToString())  # saving empties the tensors
    onnx.save_model(
        copy, path, save_as_external_data=True, location=f"{path.stem}.bin", size_threshold=1_024
    )


def _write_openvino(piece: ModelProto, path: Path, precision: Precision) -> None:
    with needs_extra("export", "an export for OpenVINO"):
        import openvino

    converted = openvino.Core().read_model(piece.SerializeToString())
    if precision == "int8":
        # Where nncf draws tables; it notes stdout when imported.
        with redirect_stdout(StringIO()), needs_extra("export", "int8 for OpenVINO"):
            import nncf

            converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(converted, path, compress_to_fp16=False)
