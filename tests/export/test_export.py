"""`export_model`: what it writes, and what it refuses to write."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError, FolderError
from fastbert.exits.measures import MaxProbability
from fastbert.export import adaptive as adaptive_module
from fastbert.export import export as export_module
from fastbert.export.export import export_model
from fastbert.folder.export import ExportManifest, open_export, read_manifest
from fastbert.folder.names import own_files
from fastbert.folder.read import open_folder
from fastbert.running import Precision
from fastbert.tasks.multi_label import MultiLabel
from tests.exported import pieces_of
from tests.folder.folders import FOREIGN, foreign, put
from tests.tiny_data import examples
from tests.tiny_folder import save_model

Export = Callable[..., ExportManifest]

ROWS = 24
TEXTS = [example.text for example in examples(ROWS, seed=5)]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[onnx.ModelProto]:
    return pieces_of(save_model(tmp_path_factory.mktemp("traced") / "model", "bert"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "bert")


@pytest.fixture
def export(pieces: list[onnx.ModelProto]) -> Export:
    return partial(export_model, pieces=pieces)


def test_an_export_says_how_it_was_compared(folder: Path, export: Export) -> None:
    manifest = export(folder, runtime="onnx", texts=TEXTS, source="some texts")
    parity = manifest.parity
    assert (parity.rows, parity.source, parity.speed) == (ROWS, "some texts", 0.5)
    assert (parity.labels_differ, parity.exit_layers_differ) == (0, 0)
    assert 0 < parity.max_probability_difference < 1e-5
    assert read_manifest(open_folder(folder), "onnx") == manifest


def test_without_texts_built_in_sentences_are_compared(folder: Path, export: Export) -> None:
    assert export(folder, runtime="onnx").parity.source == "built-in sentences"


def test_a_calibrated_model_is_compared_at_its_own_thresholds(folder: Path, export: Export) -> None:
    classifier = FastBertClassifier.from_pretrained(folder, runtime="torch")
    rows = examples(60, seed=2)
    calibration = classifier.calibrate([row.text for row in rows], [str(row.label) for row in rows])
    classifier.save_calibration(calibration, "made")
    manifest = export(folder, runtime="onnx", texts=TEXTS)
    assert manifest.parity.speed == {"max_drop": 0.005}


class OwnMeasure(MaxProbability):
    """One that only its owner can pass."""


@pytest.fixture
def calibrated_by_ones_own(folder: Path) -> Path:
    classifier = FastBertClassifier.from_pretrained(folder, runtime="torch")
    texts = [row.content for row in examples(60, seed=2)]
    classifier.save_calibration(classifier.calibrate(texts, measure=OwnMeasure()), "made")
    return folder


def test_a_calibration_by_ones_own_measure_is_compared_at_the_middle_speed(
    calibrated_by_ones_own: Path, export: Export
) -> None:
    manifest = export(calibrated_by_ones_own, runtime="onnx", texts=TEXTS)
    assert manifest.parity.speed == 0.5
    assert manifest.parity.rows == ROWS


def test_an_adaptive_file_does_not_judge_by_ones_own_measure(
    calibrated_by_ones_own: Path,
) -> None:
    with pytest.raises(ExportError, match=r"own measure of doubt, OwnMeasure, cannot be part"):
        export_model(calibrated_by_ones_own, runtime="onnx", adaptive=True)


@pytest.mark.parametrize(
    ("problem_type", "measure"), [(None, "entropy"), (MultiLabel.name, "binary-entropy")]
)
def test_an_adaptive_file_of_a_model_without_calibration_judges_by_the_uncertainty_of_its_task(
    tmp_path: Path, problem_type: str | None, measure: str
) -> None:
    folder = save_model(tmp_path / "model", "bert", problem_type=problem_type)
    export_model(folder, runtime="onnx", texts=TEXTS, adaptive=True, pieces=pieces_of(folder))
    written = onnx.load(folder / "onnx" / "adaptive.onnx")
    said = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(said["criterion"]) == {"name": measure}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_adaptive_file_beyond_2_gb_is_refused_before_anything_is_traced(
    precision: Precision, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive_module, "LARGEST_FILE", 1_000)
    monkeypatch.setattr(export_module, "piece_models", lambda *_, **__: pytest.fail("was traced"))
    with pytest.raises(ExportError, match=r"ONNX files end at 2 GB; .* export without --adaptive"):
        export_model(folder, runtime="onnx", precision=precision, adaptive=True)


def test_exports_for_two_runtimes_and_the_calibration_live_together(
    folder: Path, export: Export
) -> None:
    put(folder, FOREIGN)
    export(folder, runtime="onnx", precision="int8", texts=TEXTS)
    export(folder, runtime="openvino", texts=TEXTS)
    classifier = FastBertClassifier.from_pretrained(folder)
    rows = examples(60, seed=2)
    calibration = classifier.calibrate([row.text for row in rows], [str(row.label) for row in rows])
    classifier.save_calibration(calibration, "made")
    opened = open_folder(folder)
    assert open_export(opened, "onnx").precision == "int8"
    assert open_export(opened, "openvino").precision == "fp32"
    assert classifier.calibration.recorded.num_rows == 60
    assert foreign(folder) == FOREIGN


def test_all_that_an_export_writes_is_on_the_list(folder: Path, export: Export) -> None:
    before = own_files(folder)
    export(folder, runtime="onnx", texts=TEXTS, adaptive=True)
    names = ("embeddings", "layer_01", "layer_02", "layer_03", "layer_04")
    pieces = {f"onnx/{name}.{end}" for name in names for end in ("onnx", "bin")}
    written = {str(name) for name in set(own_files(folder)) - set(before)}
    assert written == {*pieces, "onnx/adaptive.onnx", "onnx/manifest.json"}
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == sorted(
        Path(name).name for name in written
    )


def test_an_earlier_export_is_replaced_as_a_whole(folder: Path, export: Export) -> None:
    export(folder, runtime="onnx", texts=TEXTS, adaptive=True)
    assert (folder / "onnx" / "adaptive.onnx").is_file()
    export(folder, runtime="onnx", precision="int8", texts=TEXTS)
    assert not (folder / "onnx" / "adaptive.onnx").exists()
    assert open_export(open_folder(folder), "onnx").precision == "int8"


def test_an_export_that_answers_otherwise_is_refused_and_nothing_changes(
    folder: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inverted(pieces: Any, target: Any) -> None:
        pieces = [onnx.ModelProto.FromString(piece.SerializeToString()) for piece in pieces]
        for piece in pieces:
            for tensor in piece.graph.initializer:
                if len(tensor.dims) == 2:
                    array = onnx.numpy_helper.to_array(tensor)
                    if array.dtype == np.float32:
                        tensor.CopyFrom(onnx.numpy_helper.from_array(-array, tensor.name))
        write(pieces, target)

    write = export_module._write_pieces
    monkeypatch.setattr(export_module, "_write_pieces", inverted)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ExportError, match=r"^not exported: of 24 rows .* get another label"):
        export(folder, runtime="onnx", texts=TEXTS)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_cache_of_the_hub_is_not_exported_into(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--reviews" / "snapshots" / "0123abc"
    shutil.copytree(folder, snapshot)
    pieces: Any = None  # refused before anything is traced
    with pytest.raises(FolderError, match=r"0123abc: lies in the cache of the Hub"):
        export_model(snapshot, runtime="onnx", pieces=pieces)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "onnx", "precision": "bf16"}, "onnx computes in fp32 or int8, not in bf16"),
        ({"runtime": "openvino", "adaptive": True}, "ask for it with --runtime onnx"),
    ],
)
def test_what_a_runtime_cannot_do_is_said_at_once(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_model(tmp_path / "nothing here", **options)


def test_an_export_of_other_weights_does_not_outlive_them(
    folder: Path, export: Export, tmp_path: Path
) -> None:
    export(folder, runtime="onnx", texts=TEXTS)
    other = save_model(tmp_path / "other", "ernie")
    shutil.copytree(folder / "onnx", other / "onnx")
    with pytest.raises(FolderError, match=r"onnx: was exported from another .*export again"):
        FastBertClassifier.from_pretrained(other)
