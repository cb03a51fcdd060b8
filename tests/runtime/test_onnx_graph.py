"""A graph written node by node: constants once, branches to be skipped, pieces put in."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from fastbert.runtime.onnx_graph import Graph, Weights, opsets, put, tensor


def run(graph: Graph, output: str, **inputs: np.ndarray) -> np.ndarray:
    given = [tensor(name, array.dtype.type, *array.shape) for name, array in inputs.items()]
    gives = [tensor(output, np.float32, "rows")]
    whole = helper.make_graph(graph.nodes, "whole", given, gives, graph.weights.tensors)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run([output], inputs)[0])


def test_equal_constants_are_kept_once_under_the_first_name() -> None:
    weights = Weights()
    two, same = (numpy_helper.from_array(np.array([2.0]), name) for name in ("two", "same"))
    other = numpy_helper.from_array(np.array([3.0]), "other")
    assert [weights.keep(each, each.name) for each in (two, same, other)] == ["two", "two", "other"]
    assert [each.name for each in weights.tensors] == ["two", "other"]
    assert same.name == "same"  # what was given stays as it is


def test_values_of_the_same_numbers_and_another_type_are_two() -> None:
    graph = Graph("", Weights())
    names = {graph.constant(1, np.int64), graph.constant(1), graph.constant(1, np.float64)}
    assert len(graph.weights.tensors) == 3
    assert len(names) >= 1


def test_an_operator_names_its_outputs_after_itself_and_the_branch() -> None:
    graph = Graph("layer/", Weights())
    assert graph.add("Relu", "x") == "layer/Relu_0"
    assert graph.add("TopK", "x", "k", outputs=2, name="best") == "layer/best"
    assert list(graph.nodes[1].output) == ["layer/best", "layer/best.1"]


@pytest.mark.parametrize(("runs", "expected"), [(True, [2.0, 4.0]), (False, [1.0, 2.0])])
def test_what_a_branch_gives_or_all_as_it_was(runs: bool, expected: list[float]) -> None:
    graph = Graph("", Weights())
    then = graph.branch("then/")
    then.gives.append(then.add("Add", "x", "x"))
    [output] = graph.where("runs", then, ["x"])
    found = run(graph, output, x=np.array([1, 2], np.float32), runs=np.array(runs))
    assert found.tolist() == expected


def piece() -> onnx.ModelProto:
    """Return a piece of two outputs: x + w, and x * v."""
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"], "sum"),
        helper.make_node("Mul", ["x", "v"], ["product"], "product"),
    ]
    values = [tensor(name, np.float32, "rows") for name in ("x", "sum", "product")]
    weights = [
        numpy_helper.from_array(np.array([number], np.float32), name)
        for name, number in (("w", 10), ("v", 3))
    ]
    graph = helper.make_graph(nodes, "piece", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_of_a_piece_only_what_an_output_needs_is_put() -> None:
    graph, original = Graph("", Weights()), piece()
    first = put(graph, "a/", original, "product", {"x": "given"})
    second = put(graph, "b/", original, "product", {"x": first})
    assert [node.op_type for node in graph.nodes] == ["Mul", "Mul"]
    assert len(graph.weights.tensors) == 1  # both use one v, and nobody needs w
    assert original == piece()
    assert run(graph, second, given=np.array([1, 2], np.float32)).tolist() == [9.0, 18.0]


def test_operator_sets_are_those_of_the_pieces_each_once() -> None:
    found = opsets([piece(), piece()])
    assert [(each.domain, each.version) for each in found] == [("", 20)]
