"""An ONNX graph that is written node by node, with all its weights in the outermost graph."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper


class Weights:
    """The constants of the file. Equal ones are kept once: layers may share all of theirs."""

    def __init__(self) -> None:
        """Begin without any."""
        self.tensors: list[onnx.TensorProto] = []
        self._names: dict[bytes, str] = {}

    def keep(self, tensor: onnx.TensorProto, name: str) -> str:
        """Return the name under which a constant is kept: `name`, unless it is there already."""
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        for label in ("name", "doc_string", "metadata_props"):
            kept.ClearField(label)
        content = hashlib.sha256(kept.SerializeToString()).digest()
        if content not in self._names:
            self._names[content] = kept.name = name
            self.tensors.append(kept)
        return self._names[content]


@dataclass
class Graph:
    """The whole graph, or a branch of an `If`, which may read all values around it.

    Args:
        prefix: What the names of its values begin with.
        weights: The constants of the whole.
        nodes: Its operators in order.
        gives: The values that a branch gives.
    """

    prefix: str
    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **settings: Any) -> str:
        """Append an operator and return the name of its first output."""
        name = self.prefix + (name or f"{op}_{len(self.nodes)}")
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name, **settings))
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """Return the name of a constant."""
        tensor = numpy_helper.from_array(np.array(value, dtype))
        return self.weights.keep(tensor, f"constant_{value}")

    def branch(self, prefix: str) -> "Graph":
        """Return an empty graph to be chosen or not."""
        return Graph(prefix, self.weights)

    def where(self, condition: str, then: "Graph", before: Sequence[str]) -> list[str]:
        """Append an `If`: what a branch gives or, where it is not to run, all as it was before."""
        skipped = self.branch(f"{then.prefix}skipped/")
        skipped.gives += [skipped.add("Identity", name) for name in before]
        name = f"{then.prefix}If"
        names = [f"{name}.{number}" for number in range(len(before))]
        branches = {"then_branch": then.as_branch(), "else_branch": skipped.as_branch()}
        self.nodes.append(helper.make_node("If", [condition], names, name, **branches))
        return names

    def as_branch(self) -> onnx.GraphProto:
        """Return the branch; the types of what it gives follow from its operators."""
        gives = [helper.make_empty_tensor_value_info(name) for name in self.gives]
        return helper.make_graph(self.nodes, self.prefix, [], gives)


def put(
    graph: Graph, prefix: str, piece: onnx.ModelProto, output: str, given: Mapping[str, str]
) -> str:
    """Append what computes an output of a piece, and return the name of the output there.

    Args:
        graph: Where it is computed.
        prefix: What the names of its values begin with there.
        piece: It stays as it is.
        output: One of its outputs.
        given: What values of the piece are called that need no computing.
    """
    nodes = leading_to({output}, piece.graph.node, given)
    read = {name for node in nodes for name in values_read(node)}
    names = dict(given)
    for tensor in piece.graph.initializer:
        if tensor.name in read:
            names[tensor.name] = graph.weights.keep(tensor, prefix + tensor.name)
    placed = onnx.GraphProto(node=nodes)
    compose.add_prefix_graph(placed, prefix, inplace=True, name_map=names)
    graph.nodes += placed.node
    return names[output]


def tensor(name: str, dtype: type[np.generic], *shape: str | int) -> onnx.ValueInfoProto:
    """Describe an input or output; sizes are numbers or names."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def opsets(pieces: Sequence[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that the pieces are written in."""
    versions = {entry.domain: entry.version for piece in pieces for entry in piece.opset_import}
    return [helper.make_opsetid(*entry) for entry in versions.items()]


def leading_to(
    outputs: set[str], nodes: Sequence[onnx.NodeProto], given: Collection[str] = ()
) -> list[onnx.NodeProto]:
    """Return the nodes that some outputs depend on, in the order in which they run.

    Args:
        outputs: The names of the values.
        nodes: In the order in which they run.
        given: Values that need no computing.
    """
    kept, wanted = [], set(outputs)
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(name for name in values_read(node) if name not in given)
    return kept[::-1]


def values_read(node: onnx.NodeProto) -> Iterator[str]:
    """Give the values that a node reads, also from within branches of its own."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from values_read(inner)
