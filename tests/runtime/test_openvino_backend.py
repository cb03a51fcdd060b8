"""OpenVINO runs a bounded number of shapes, and says what it cannot run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError, FolderError
from fastbert.exits.criteria import ThresholdCriterion
from fastbert.exits.engine import classify
from fastbert.exits.measures import MaxProbability
from fastbert.folder.export import Export, open_export
from fastbert.folder.read import open_folder
from fastbert.runtime import openvino_backend
from fastbert.runtime.openvino_backend import OpenVinoBackend
from fastbert.runtime.openvino_core import open_core
from tests.tiny_data import examples

TEXTS = [example.text for example in examples(4, seed=9)]


@pytest.fixture(scope="module")
def backends(folders: dict[str, Path]) -> dict[str, OpenVinoBackend]:
    return {
        precision: OpenVinoBackend(open_export(open_folder(folder), "openvino"))
        for precision, folder in folders.items()
    }


@given(st.integers(1, 64), st.integers(1, 512), st.sampled_from([("fp32", 4), ("int8", 16)]))
def test_shapes_are_rounded_up_a_little(
    backends: dict[str, OpenVinoBackend], rows: int, length: int, kind: tuple[str, int]
) -> None:
    precision, step = kind
    fitted_rows, fitted_length = backends[precision].fitting(rows, length)
    assert rows <= fitted_rows <= max(rows * 1.25, rows)
    assert length <= fitted_length < length + step
    assert fitted_length % step == 0


def test_there_are_few_shapes(backends: dict[str, OpenVinoBackend]) -> None:
    assert len({backends["fp32"].fitting(rows, 8)[0] for rows in range(1, 33)}) == 16


class NoBf16:
    def get_property(self, *_: str) -> list[str]:
        return ["FP32", "INT8"]


def test_a_precision_that_the_processor_lacks_is_named(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "open_core", NoBf16)
    export = replace(open_export(open_folder(folders["fp32"]), "openvino"), precision="bf16")
    with pytest.raises(
        ExportError, match=r"bf16, which this processor does not compute in; .*int8"
    ):
        OpenVinoBackend(export)


@pytest.mark.skipif(
    "BF16" not in open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor does not compute in bfloat16",
)
@pytest.mark.parametrize("rows", [1, 4])
def test_in_bf16_an_exit_that_is_asked_changes_no_bit(folders: dict[str, Path], rows: int) -> None:
    folder = open_folder(folders["fp32"])
    backend = OpenVinoBackend(replace(open_export(folder, "openvino"), precision="bf16"))
    tokenizer = folder.text_tokenizer()
    batch = tokenizer.collate(tokenizer.encode(TEXTS[:rows]))
    students = backend.num_exits - 1
    whole, cut = (
        classify(backend, batch, ThresholdCriterion(MaxProbability(), thresholds))
        for thresholds in ((0.0,) * students, (1e-9,) * students)
    )
    assert set(cut.exit_layer) == {backend.num_exits}
    np.testing.assert_array_equal(cut.logits, whole.logits)


def test_compiled_models_are_kept_where_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    first, second = (
        FastBertClassifier.from_pretrained(
            folders["fp32"], runtime="openvino", cache_folder=tmp_path
        ).predict_proba(TEXTS, 0.66)
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.blob"))
    assert np.array_equal(first, second)


def test_a_graph_that_cannot_be_read_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders["fp32"] / "openvino", tmp_path / "openvino")
    (path / "layer_02.xml").write_text("<net")
    backend = OpenVinoBackend(Export(path, "openvino", "fp32", 4).opened())
    backend.make_segment(0, 1)  # reads no second layer
    with pytest.raises(FolderError, match=r"layer_02\.xml: cannot be read by OpenVINO"):
        backend.make_segment(1, 2)
