"""int8 for ONNX in standard operators: weights by channel, activations by token.

The dynamic quantisation that comes with ONNX Runtime takes one scale for a whole batch, so an
answer depends on the other rows. Here every token has a scale of its own, measured as it passes;
products of int8 are summed exactly, so no answer depends on its batch, and no calibration data are
needed.

Activations are shifted into uint8, for which the runtime has fast kernels; signed ones run 8 to 30
times slower. Processors without VNNI add the products of two such activations and int8 weights in
16 bits, so the activations keep to 7 of their 8 bits: no two products overflow, and one file is
right on every processor. Weights in 7 bits would do as well, with twice the error.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fastbert.runtime.onnx_graph import leading_to

LARGEST = 63  # of the activations, before they are shifted: 2 x 127 x 127 fits into 16 bits
ZERO = 64  # of the shifted activations
LARGEST_WEIGHT = 127
CONSTANTS: dict[str, np.ndarray] = {
    "int8/one": np.array(1, np.float32),
    "int8/zero": np.array(ZERO, np.uint8),
    "int8/step": np.array(1 / LARGEST, np.float32),
    "int8/least": np.array(1e-10, np.float32),  # a token of nothing but zeros has a scale too
    "int8/last_axis": np.array([-1], np.int64),
}


def quantised(model: ModelProto) -> ModelProto:
    """Return a piece whose products with constant matrices are computed in int8.

    A student stays in float32: its products are so small that measuring scales costs more.

    Args:
        model: A piece, in float32; it stays as it is. What leads to its first output is quantised.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    weights = {item.name: item for item in graph.initializer if len(item.dims) == 2}
    nodes: list[NodeProto] = []
    added = dict(CONSTANTS)
    done: set[str] = set()
    backbone = {node.output[0] for node in leading_to({graph.output[0].name}, graph.node)}
    for node in graph.node:
        is_product = node.op_type == "MatMul" and node.input[1] in weights
        if not is_product or node.output[0] not in backbone:
            nodes.append(node)
            continue
        tokens, weight = node.input
        if tokens not in done:  # query, key and value read the same tokens
            nodes += _quantise_tokens(tokens)
            done.add(tokens)
        added |= _quantised_weight(weight, numpy_helper.to_array(weights[weight]))
        nodes += _product(tokens, weight, node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in added.items())
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def _quantise_tokens(tokens: str) -> Iterator[NodeProto]:
    """Give each token the scale at which its largest value becomes `LARGEST`."""
    yield helper.make_node("ReduceMax", [tokens, "int8/last_axis"], [f"{tokens}/max"])
    yield helper.make_node("ReduceMin", [tokens, "int8/last_axis"], [f"{tokens}/min"])
    yield helper.make_node("Neg", [f"{tokens}/min"], [f"{tokens}/-min"])
    largest = [f"{tokens}/max", f"{tokens}/-min", "int8/least"]
    yield helper.make_node("Max", largest, [f"{tokens}/largest"])
    yield helper.make_node("Mul", [f"{tokens}/largest", "int8/step"], [f"{tokens}/scale"])
    yield helper.make_node("Div", [tokens, f"{tokens}/scale"], [f"{tokens}/scaled"])
    scaled = [f"{tokens}/scaled", "int8/one", "int8/zero"]
    yield helper.make_node("QuantizeLinear", scaled, [f"{tokens}/int8"])


def _quantised_weight(name: str, weight: np.ndarray) -> dict[str, np.ndarray]:
    scale = np.maximum(np.abs(weight).max(axis=0) / LARGEST_WEIGHT, 1e-10).astype(np.float32)
    return {f"{name}/int8": np.rint(weight / scale).astype(np.int8), f"{name}/scale": scale}


def _product(tokens: str, weight: str, result: str) -> Iterator[NodeProto]:
    factors = [f"{tokens}/int8", f"{weight}/int8", "int8/zero"]
    yield helper.make_node("MatMulInteger", factors, [f"{result}/int32"])
    yield helper.make_node("Cast", [f"{result}/int32"], [f"{result}/sum"], to=TensorProto.FLOAT)
    by_weight = [f"{result}/sum", f"{weight}/scale"]
    yield helper.make_node("Mul", by_weight, [f"{result}/of_weight"])
    yield helper.make_node("Mul", [f"{result}/of_weight", f"{tokens}/scale"], [result])
