"""ONNX Runtime runs graphs without what leads to no output, and says what it cannot run."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError, FolderError
from fastbert.folder.export import Export, open_export
from fastbert.running import Running
from fastbert.runtime import onnx_backend
from fastbert.runtime.onnx_backend import OnnxBackend, join
from fastbert.runtime.onnx_graph import leading_to
from tests.tiny_data import examples

TEXTS = [example.text for example in examples(4, seed=9)]


# Graphs.

HIDDEN: list[str | int] = ["rows", "length", 2]
MASK = HIDDEN[:2]


def piece(factor: float, **unused: np.ndarray) -> ModelProto:
    """Return a piece that multiplies hidden states and, as logits, the tokens of all rows."""
    weights = {"factor": np.array([factor], np.float32)} | unused
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Mul", ["hidden", "factor"], ["after"]),
                helper.make_node("ReduceSum", ["attention_mask"], ["counts"], keepdims=0),
                helper.make_node("Mul", ["counts", "factor"], ["scores"]),
            ],
            "piece",
            [
                helper.make_tensor_value_info("hidden", TensorProto.FLOAT, HIDDEN),
                helper.make_tensor_value_info("attention_mask", TensorProto.FLOAT, MASK),
            ],
            [
                helper.make_tensor_value_info("after", TensorProto.FLOAT, HIDDEN),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, None),
            ],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def test_joined_pieces_hand_hidden_states_on_and_share_the_mask() -> None:
    model = join([piece(2), piece(3), piece(5)], ["hidden_after", "logits"])
    assert sorted(item.name for item in model.graph.input) == ["attention_mask", "hidden"]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {
        "hidden": np.ones((1, 3, 2), np.float32),
        "attention_mask": np.array([[1, 1, 0]], np.float32),
    }
    hidden, logits = session.run(["hidden_after", "logits"], feeds)
    assert hidden.tolist() == [[[30.0] * 2] * 3]
    assert logits.tolist() == [10.0]


def test_exits_and_weights_that_nobody_asks_for_are_left_out_of_a_segment() -> None:
    pieces = [piece(2, own=np.zeros(7, np.float32)), piece(3)]
    graph = join(pieces, ["hidden_after"]).graph
    assert [node.op_type for node in graph.node if node.op_type != "Identity"] == ["Mul", "Mul"]
    assert [item.name for item in graph.initializer] == ["0/factor", "1/factor"]


def test_what_a_branch_reads_leads_to_its_outputs() -> None:
    nodes = [helper.make_node("Neg", [name], [f"-{name}"]) for name in ("a", "b", "c")]
    then = helper.make_graph([helper.make_node("Abs", ["-a"], ["|a|"])], "then", [], [])
    other = helper.make_graph([helper.make_node("Abs", ["-b"], ["|b|"])], "other", [], [])
    choice = helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=other)
    assert leading_to({"y"}, [*nodes, choice]) == [*nodes[:2], choice]
    assert leading_to({"y"}, [*nodes, choice], given=["-b"]) == [nodes[0], choice]


# Damaged.


def test_a_graph_that_cannot_be_read_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders["fp32"] / "onnx", tmp_path / "onnx")
    (path / "layer_02.onnx").write_bytes(b"<net")
    backend = OnnxBackend(Export(path, "onnx", "fp32", 4).opened(), Running(threads=1))
    backend.make_segment(0, 1)  # reads no second layer
    with pytest.raises(FolderError, match=r"layer_02\.onnx: cannot be read as ONNX"):
        backend.make_segment(1, 2)


def test_a_file_with_too_few_weights_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders["fp32"] / "onnx", tmp_path / "onnx")
    os.truncate(path / "layer_03.bin", 1_000)
    backend = OnnxBackend(Export(path, "onnx", "fp32", 4).opened(), Running(threads=1))
    with pytest.raises(FolderError, match=r"layer_03\.onnx: lacks weights"):
        backend.make_segment(2, 4)


# int8 of version 0.1.


@pytest.fixture
def of_version_0_1(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder whose manifest says what it said when int8 activations took all 8 bits."""
    folder = shutil.copytree(folders["int8"], tmp_path / "old")
    path = folder / "onnx" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("activation_bits") == 7
    del manifest["sha256"]  # there was none
    path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_an_old_int8_export_is_refused_where_its_sums_overflow(
    of_version_0_1: Path, monkeypatch: pytest.MonkeyPatch, runtime: Any
) -> None:
    shutil.rmtree(of_version_0_1 / "openvino")
    monkeypatch.setattr(onnx_backend, "sums_of_full_range_are_exact", lambda: False)
    again = f"fastbert export {of_version_0_1} --runtime onnx --precision int8"
    with pytest.raises(ExportError, match=rf"onnx: its int8 activations .* overflow .*`{again}`"):
        FastBertClassifier.from_pretrained(of_version_0_1, runtime=runtime)


def test_an_old_int8_export_runs_where_its_sums_are_exact(
    of_version_0_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_backend, "sums_of_full_range_are_exact", lambda: True)
    classifier = FastBertClassifier.from_pretrained(of_version_0_1, runtime="onnx")
    assert type(classifier.backend).__name__ == "OnnxBackend"


def test_a_new_int8_export_runs_where_old_ones_overflow(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_backend, "sums_of_full_range_are_exact", lambda: False)
    classifier = FastBertClassifier.from_pretrained(folders["int8"], runtime="onnx")
    assert open_export(classifier.folder, "onnx").activation_bits == 7
    assert classifier.predict(TEXTS)
