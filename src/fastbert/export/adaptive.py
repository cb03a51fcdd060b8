"""A whole model as one ONNX graph, in which the rows leave by themselves.

This is `fastbert.engine.classify` written in operators, for runtimes where nobody wants to write
the loop. Each layer lies in an `If` that runs only if rows are left. Each exit lies in an `If` that
runs only if rows are left and its threshold is not 0: it asks the student, writes the answers over
those of earlier exits, so batch order comes back by itself, and gathers the rows that stay. The
pieces of `fastbert.export.stages` go in as they are, whatever is inside.

Two choices are for the sake of ONNX Runtime (12 layers of width 384, one thread). No `If` lies
within another: a graph keeps its working memory while one in it runs, so 32 texts of 128 tokens
took 1,070 MB, not 360, and weights from two graphs further out are not packed for fast products.
And all weights lie in the outermost graph: in the branches they are no faster, but loading copies
them, to 360 MB from 200.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from fastbert.criteria import Measure
from fastbert.errors import ExportError
from fastbert.measures import Energy, Entropy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.onnx_backend import leading_to, values_read

DOC = (
    "A FastBERT classifier. A text leaves at the first layer where the doubt about it lies below "
    "the threshold. `speed` holds the thresholds, from 0 (run every layer) to 1: one for all "
    "students or one for each. `exit_layer` counts the layers that a text ran, from 1."
)


LARGEST_FILE = 2**31 - 1  # bytes of a protobuf message, which an ONNX file without others is


def refuse_beyond_protobuf(weight_bytes: int) -> None:
    """Refuse weights that do not fit into one ONNX file.

    Raises:
        ExportError: There are 2 GB of them or more.
    """
    if weight_bytes > LARGEST_FILE:
        raise ExportError(
            f"an adaptive file holds the whole model, and ONNX files end at 2 GB; these weights "
            f"take {weight_bytes / 1e9:.1f} GB; export without --adaptive, a file for each layer, "
            "or try --precision int8"
        )


def refuse_unwritable(measure: Measure) -> None:
    """Refuse a measure of doubt that cannot be written in operators.

    Raises:
        ValueError: It is none of `DOUBTS`.
    """
    if type(measure) not in DOUBTS:
        known = ", ".join(kind.__name__ for kind in DOUBTS)
        raise ValueError(
            f"an adaptive ONNX file can judge by {known}, got {type(measure).__name__}; "
            "calibrate with one of these, or run the model layer by layer"
        )


def adaptive_model(
    pieces: Sequence[onnx.ModelProto], measure: Measure, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Join the pieces of a model into one graph that lets rows leave.

    It takes what the embeddings take, and `speed`, float32: one threshold for all students, or one
    for each. It gives `probabilities`, float32 [rows, classes], and `exit_layer`, int64 [rows].

    Args:
        pieces: What `piece_models` returned, or the same with other arithmetic inside.
        measure: How doubtful an answer is.
        metadata: What the file says of itself.

    Raises:
        ValueError: The measure cannot be written in operators.
    """
    refuse_unwritable(measure)
    parts = _Parts(pieces, measure)
    graph = _Graph("", _Weights())
    _classify(graph, parts)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fastbert",
            [
                *(_tensor(item.name, np.int64, "rows", "length") for item in pieces[0].graph.input),
                _tensor("speed", np.float32, "thresholds"),
            ],
            [
                _tensor("probabilities", np.float32, "rows", parts.classes),
                _tensor("exit_layer", np.int64, "rows"),
            ],
            graph.weights.tensors,
        ),
        producer_name="fastbert",
        doc_string=DOC,
        ir_version=pieces[0].ir_version,
        opset_imports=_opsets(pieces),
    )
    helper.set_model_props(model, dict(metadata))
    return model


# The loop. What travels between these functions are the names of values in the graph.


@dataclass(frozen=True)
class _Parts:
    """What the graph is made of."""

    pieces: Sequence[onnx.ModelProto]
    measure: Measure

    @property
    def num_layers(self) -> int:
        return len(self.pieces) - 1

    @property
    def classes(self) -> int:
        (logits,) = self.pieces[-1].graph.output
        return int(logits.type.tensor_type.shape.dim[1].dim_value)


@dataclass(frozen=True)
class _Batch:
    """What travels from layer to layer.

    Args:
        running: Which rows still run, [running, 1] as GatherND and ScatterND want it.
        hidden: Of the rows that still run.
        attention_mask: Likewise.
        logits: The latest answer about every row of the batch.
        exit_layer: How many layers every row of the batch has run.
    """

    running: str
    hidden: str
    attention_mask: str
    logits: str
    exit_layer: str


def _classify(graph: "_Graph", parts: _Parts) -> None:
    """Write everything."""
    thresholds = _thresholds(graph, parts.num_layers - 1)
    batch = _start(graph, parts)
    for exit_layer in range(1, parts.num_layers):
        number = graph.constant(exit_layer - 1, np.int64)
        threshold = graph.add("Gather", thresholds, number)
        batch = _run_layer(exit_layer, graph, parts, batch)
        batch = _let_leave(exit_layer, graph, parts, batch, threshold)
    logits, exit_layers = _ask_teacher(graph, parts, batch)
    graph.add("Softmax", logits, name="probabilities", axis=-1)
    graph.add("Identity", exit_layers, name="exit_layer")


def _thresholds(graph: "_Graph", students: int) -> str:
    """Write a threshold for each student."""
    each = graph.constant([students], np.int64)
    # Runtimes name the node that failed, so the names say what is wrong with `speed`. Reshape
    # refuses what Expand lets pass where there is one student.
    rule = f"speed_must_have_1_or_{students}_values"
    expanded = graph.add("Expand", "speed", each, name=rule)
    return graph.add("Reshape", expanded, each, name=f"{rule}_and_no_more")


def _start(graph: "_Graph", parts: _Parts) -> _Batch:
    """Write the embeddings: the batch before the first layer."""
    inputs = {entry.name: entry.name for entry in parts.pieces[0].graph.input}
    hidden = _put(graph, "embeddings/", parts.pieces[0], "hidden", inputs)
    rows = graph.add("Shape", "input_ids", start=0, end=1)
    everybody = graph.add("NonZero", graph.add("Expand", graph.constant(1, np.int64), rows))
    shape = graph.add("Concat", rows, graph.constant([parts.classes], np.int64), axis=0)
    return _Batch(
        running=graph.add("Transpose", everybody),
        hidden=hidden,
        attention_mask="attention_mask",
        logits=graph.add("Expand", graph.constant(0.0), shape),
        exit_layer=graph.add("Expand", graph.constant(0, np.int64), rows),
    )


def _run_layer(exit_layer: int, graph: "_Graph", parts: _Parts, batch: _Batch) -> _Batch:
    """Write a layer, which runs if any row does."""
    layer = graph.branch(f"layer_{exit_layer}/")
    given = {"hidden": batch.hidden, "attention_mask": batch.attention_mask}
    piece = parts.pieces[exit_layer]
    layer.gives.append(_put(layer, layer.prefix, piece, "hidden_after", given))
    (hidden,) = graph.where(_any_runs(graph, batch), layer, [batch.hidden])
    return replace(batch, hidden=hidden)


def _let_leave(
    exit_layer: int, graph: "_Graph", parts: _Parts, batch: _Batch, threshold: str
) -> _Batch:
    """Write an exit, where the student is asked if any row runs and may leave."""
    student = graph.branch(f"exit_{exit_layer}/")
    given = {"hidden_after": batch.hidden, "attention_mask": batch.attention_mask}
    logits = _put(student, student.prefix, parts.pieces[exit_layer], "logits", given)
    doubt = DOUBTS[type(parts.measure)](parts.measure, student, logits, parts.classes)
    stays = student.add("Not", student.add("Less", doubt, threshold))  # where it is NaN as well
    staying = student.add("Transpose", student.add("NonZero", stays))
    running = (batch.running, batch.hidden, batch.attention_mask)
    student.gives += [student.add("GatherND", rows, staying) for rows in running]
    student.gives += _answered(exit_layer, student, batch, logits)
    may_leave = graph.add("Greater", threshold, graph.constant(0.0))
    asked = graph.add("And", _any_runs(graph, batch), may_leave)
    return _Batch(*graph.where(asked, student, astuple(batch)))


def _ask_teacher(graph: "_Graph", parts: _Parts, batch: _Batch) -> list[str]:
    """Write the last layer and the teacher; return logits and exit layers of the whole batch."""
    last = graph.branch(f"layer_{parts.num_layers}/")
    given = {"hidden": batch.hidden, "attention_mask": batch.attention_mask}
    logits = _put(last, last.prefix, parts.pieces[-1], "logits", given)
    last.gives += _answered(parts.num_layers, last, batch, logits)
    return graph.where(_any_runs(graph, batch), last, [batch.logits, batch.exit_layer])


def _any_runs(graph: "_Graph", batch: _Batch) -> str:
    return graph.add("Greater", graph.add("Size", batch.running), graph.constant(0, np.int64))


def _answered(exit_layer: int, graph: "_Graph", batch: _Batch, logits: str) -> tuple[str, str]:
    """Write the answers about the rows that run over those of earlier exits."""
    count = graph.add("Shape", batch.running, start=0, end=1)
    layers = graph.add("Expand", graph.constant(exit_layer, np.int64), count)
    return (
        graph.add("ScatterND", batch.logits, batch.running, logits),
        graph.add("ScatterND", batch.exit_layer, batch.running, layers),
    )


# Measures of doubt, each as in `fastbert.measures`, operator for operator where there is one.


def _uncertainty(graph: "_Graph", logits: str, classes: int) -> str:
    shifted, weights, total = _softmax_parts(graph, logits)
    products = graph.add("Mul", weights, shifted)
    weighted = graph.add("ReduceSum", products, graph.constant([-1], np.int64), keepdims=0)
    entropy = graph.add("Sub", graph.add("Log", total), graph.add("Div", weighted, total))
    scaled = graph.add("Div", entropy, graph.constant(math.log(classes)))
    return graph.add("Clip", scaled, graph.constant(0.0), graph.constant(1.0))


def _entropy(measure: Entropy, graph: "_Graph", logits: str, classes: int) -> str:
    return _uncertainty(graph, logits, classes)


def _top_entropy(measure: TopEntropy, graph: "_Graph", logits: str, classes: int) -> str:
    if classes <= measure.top:
        return _uncertainty(graph, logits, classes)
    return _uncertainty(graph, _highest(graph, logits, measure.top), measure.top)


def _max_probability(measure: MaxProbability, graph: "_Graph", logits: str, classes: int) -> str:
    # There is no expm1, but log_softmax peaks at -log(total), and total is 1 plus the others.
    _, _, total = _softmax_parts(graph, logits)
    one = graph.constant(1.0)
    rest = graph.add("Div", graph.add("Sub", total, one), total)
    scaled = graph.add("Mul", rest, graph.constant(classes / (classes - 1)))
    return graph.add("Min", scaled, one)


def _margin(measure: Margin, graph: "_Graph", logits: str, classes: int) -> str:
    log_p = graph.add("LogSoftmax", logits, axis=-1)
    best = graph.add("Exp", _highest(graph, log_p, 2))
    first, second = (
        graph.add("Gather", best, graph.constant(place, np.int64), axis=-1) for place in (0, 1)
    )
    return graph.add("Sub", graph.constant(1.0), graph.add("Sub", first, second))


def _energy(measure: Energy, graph: "_Graph", logits: str, classes: int) -> str:
    last = graph.constant([-1], np.int64)
    summed = graph.add("ReduceLogSumExp", logits, last, keepdims=0)
    free = graph.add("Sub", summed, graph.constant(math.log(classes)))
    return graph.add("Exp", graph.add("Neg", graph.add("Softplus", free)))


def _softmax_parts(graph: "_Graph", logits: str) -> tuple[str, str, str]:
    """Write logits shifted so that exp() cannot overflow, exp() of them, and the sum of that."""
    last = graph.constant([-1], np.int64)
    shifted = graph.add("Sub", logits, graph.add("ReduceMax", logits, last))
    weights = graph.add("Exp", shifted)
    return shifted, weights, graph.add("ReduceSum", weights, last, keepdims=0)


def _highest(graph: "_Graph", values: str, count: int) -> str:
    return graph.add("TopK", values, graph.constant([count], np.int64), outputs=2)


DOUBTS: Mapping[type[Measure], Callable[[Any, "_Graph", str, int], str]] = {
    Entropy: _entropy,
    TopEntropy: _top_entropy,
    MaxProbability: _max_probability,
    Margin: _margin,
    Energy: _energy,
}


# The graph under construction.


class _Weights:
    """The constants of the file. Equal ones are kept once: layers may share all of theirs."""

    def __init__(self) -> None:
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
class _Graph:
    """The whole graph, or a branch of an `If`, which may read all values around it.

    Args:
        prefix: What the names of its values begin with.
        weights: The constants of the whole.
        nodes: Its operators in order.
        gives: The values that a branch gives.
    """

    prefix: str
    weights: _Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **settings: Any) -> str:
        """Append an operator and return the name of its first output."""
        name = self.prefix + (name or f"{op}_{len(self.nodes)}")
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name, **settings))
        return name

    def constant(self, value: int | float | list[int], dtype: type[np.generic] = np.float32) -> str:
        """Return the name of a constant."""
        tensor = numpy_helper.from_array(np.array(value, dtype))
        return self.weights.keep(tensor, f"constant_{value}")

    def branch(self, prefix: str) -> "_Graph":
        """Return an empty graph to be chosen or not."""
        return _Graph(prefix, self.weights)

    def where(self, condition: str, then: "_Graph", before: Sequence[str]) -> list[str]:
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


def _put(
    graph: _Graph, prefix: str, piece: onnx.ModelProto, output: str, given: Mapping[str, str]
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


def _tensor(name: str, dtype: type[np.generic], *shape: str | int) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def _opsets(pieces: Sequence[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that the pieces are written in."""
    versions = {entry.domain: entry.version for piece in pieces for entry in piece.opset_import}
    return [helper.make_opsetid(*entry) for entry in versions.items()]
