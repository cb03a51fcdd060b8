"""Products of int8 are the same on every processor. Neither torch nor a model is needed here."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as operators

from fastbert.folder.export import Export
from fastbert.running import Running
from fastbert.runtime import openvino_backend
from fastbert.runtime.onnx_backend import sums_of_full_range_are_exact
from fastbert.runtime.openvino_backend import OpenVinoBackend

WIDTH, OUT, GROUP = 200, 5, 128  # two groups, the second of 72


def rounded_to_int8(tokens: np.ndarray) -> np.ndarray:
    """Round to 127 steps up to the largest value of each group."""
    groups = np.split(tokens.astype(np.float64), [GROUP], axis=-1)
    steps = [np.abs(group).max(-1, keepdims=True, initial=1e-9) / 127 for group in groups]
    return np.concatenate(
        [np.rint(group / step) * step for group, step in zip(groups, steps, strict=True)], axis=-1
    )


def one_layer(path: Path, weights: np.ndarray) -> Export:
    """Write embeddings that turn signs around, and a layer that is one product with int8."""
    for name in ("embeddings", "layer_01"):
        hidden = operators.parameter([-1, -1, -1], np.float32, name="hidden")
        hidden.output(0).set_names({"hidden"})
        outputs = [operators.negative(hidden)]
        if name == "layer_01":
            scale = operators.constant(np.full((1, OUT), 0.5, np.float32))
            matrix = operators.multiply(operators.convert(weights, np.float32), scale)
            outputs = [operators.matmul(hidden, matrix, False, False)]
        openvino.save_model(
            openvino.Model(outputs, [hidden], name), path / f"{name}.xml", compress_to_fp16=False
        )
    return Export(path, "openvino", "int8", 1, 8).opened()


@pytest.mark.parametrize("pretend_without_vnni", [False, True])
def test_int8_in_openvino_rounds_activations_on_every_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend_without_vnni: bool
) -> None:
    if pretend_without_vnni:
        monkeypatch.setattr(openvino_backend, "rounds_by_itself", lambda: False)
    random = np.random.default_rng(4)
    weights = random.integers(-127, 128, (WIDTH, OUT)).astype(np.int8)
    tokens = random.normal(size=(2, 3, WIDTH)).astype(np.float32)
    tokens[1, 2] = 0  # padding
    segment = OpenVinoBackend(one_layer(tmp_path, weights), Running(threads=1)).make_segment(0, 1)
    _, products = segment({"hidden": -tokens})
    matrix = weights * 0.5
    np.testing.assert_allclose(products, rounded_to_int8(tokens) @ matrix, atol=1e-3)
    assert np.abs(products - tokens @ matrix).max() > 0.05  # it is int8 after all


def test_whether_sums_overflow_here_is_found_by_trying() -> None:
    random = np.random.default_rng(3)  # by another product than the code's
    tokens = random.integers(1, 256, (7, 96)).astype(np.uint8)
    weights = random.integers(-127, 128, (96, 40)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["tokens", "weights"], ["sums"])],
        "product",
        [helper.make_tensor_value_info("tokens", TensorProto.UINT8, tokens.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, None)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    [sums] = session.run(None, {"tokens": tokens})
    exact = bool((sums == tokens.astype(int) @ weights.astype(int)).all())
    assert sums_of_full_range_are_exact() == exact
