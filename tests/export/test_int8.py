"""int8 in standard operators: near the original, and each row on its own."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fastbert.export.int8 import quantised

ROWS, LENGTH, WIDTH, OUT = 6, 5, 32, 24
SHIFT = 64  # of activations


@pytest.fixture(scope="module")
def original() -> ModelProto:
    return piece(np.random.default_rng(0).normal(size=(WIDTH, OUT)).astype(np.float32))


def piece(weight: np.ndarray) -> ModelProto:
    """Return a layer with a product with a constant, and an exit with one more and one without."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["hidden", "weight"], ["product"]),
            helper.make_node("Transpose", ["product"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["product", "turned"], ["scores"]),
            helper.make_node("MatMul", ["hidden", "student"], ["logits"]),
        ],
        "piece",
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", "length", WIDTH])],
        [
            helper.make_tensor_value_info("product", TensorProto.FLOAT, ["rows", "length", OUT]),
            helper.make_tensor_value_info(
                "scores", TensorProto.FLOAT, ["rows", "length", "length"]
            ),
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(weight[:, :3], "student"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def product(model: ModelProto, hidden: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["product"], {"hidden": hidden})[0])


def hidden_states() -> np.ndarray:
    states = np.random.default_rng(1).normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32)
    states[2] *= 50  # a scale for the whole batch would lose the other rows
    states[4, 3] = 0  # padding
    return states


def test_products_are_near_the_originals(original: ModelProto) -> None:
    hidden = hidden_states()
    exact, ours = product(original, hidden), product(quantised(original), hidden)
    error = np.abs(ours - exact).max(axis=(1, 2)) / np.abs(exact).max(axis=(1, 2))
    assert (error < 0.02).all()
    assert (error > 0).any()  # it is int8 after all
    assert (ours[4, 3] == 0).all()


def test_a_row_is_answered_bit_by_bit_as_if_it_were_alone(original: ModelProto) -> None:
    hidden = hidden_states()
    together = product(quantised(original), hidden)
    for row in range(ROWS):
        assert np.array_equal(together[row], product(quantised(original), hidden[[row]])[0])


SIGNS = np.array([1, -1])
WORST = {
    "all of one sign": np.ones((WIDTH, OUT)),
    "all of the other": -np.ones((WIDTH, OUT)),
    "in turns": np.resize(SIGNS, (WIDTH, OUT)),
    "in pairs": np.resize(np.repeat(SIGNS, 2), (OUT, WIDTH)).T,
}


@pytest.mark.parametrize("weight", WORST.values(), ids=WORST.keys())
def test_sums_are_exact_on_this_processor_whatever_the_values(weight: np.ndarray) -> None:
    model = quantised(piece(weight.astype(np.float32)))
    steps = {"hidden/int8": TensorProto.UINT8, "product/int32": TensorProto.INT32}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in steps.items()
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    hidden = np.random.default_rng(2).normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32)
    hidden[0] = 1  # every activation is the largest there is
    hidden[1] = np.sign(weight[:, 0])  # every product is positive
    activations, sums = session.run(list(steps), {"hidden": hidden})
    assert (activations.min(), activations.max()) == (1, 127)
    assert np.array_equal(sums, (activations.astype(int) - SHIFT) @ of_int8(model).astype(int))


def test_two_products_fit_into_16_bits_so_no_processor_overflows(original: ModelProto) -> None:
    model = quantised(original)
    model.graph.output.append(helper.make_tensor_value_info("hidden/int8", TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    [activations] = session.run(["hidden/int8"], {"hidden": 1e4 * hidden_states()})
    weight = of_int8(model).astype(int)
    assert 2 * int(activations.max()) * weight.max() <= np.iinfo(np.int16).max
    assert 2 * int(activations.max()) * weight.min() >= np.iinfo(np.int16).min
    assert np.array_equal(np.abs(weight).max(axis=0), np.full(OUT, 127))  # no bit is wasted


def of_int8(model: ModelProto) -> np.ndarray:
    [tensor] = [item for item in model.graph.initializer if item.data_type == TensorProto.INT8]
    return numpy_helper.to_array(tensor)


def test_only_the_layers_products_with_constants_change_and_the_original_stays(
    original: ModelProto,
) -> None:
    before = original.SerializeToString()
    model = quantised(original)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMul") == 2
    assert operators.count("MatMulInteger") == 1
    assert original.SerializeToString() == before
    assert "weight" not in {item.name for item in model.graph.initializer}
    onnx.checker.check_model(model, full_check=True)
