"""A whole model as one ONNX graph, in which the rows leave by themselves.

This is `fastbert.exits.engine.classify` written in operators, for runtimes where nobody wants to
write the loop. Each layer lies in an `If` that runs only if rows are left. Each exit lies in an
`If` that runs only if rows are left and its threshold is not 0: it asks the student, writes the
answers over those of earlier exits, so batch order comes back by itself, and gathers the rows that
stay. The pieces of `fastbert.export.pieces` go in as they are, whatever is inside.

Two choices are for the sake of ONNX Runtime (12 layers of width 384, one thread). No `If` lies
within another: a graph keeps its working memory while one in it runs, so 32 texts of 128 tokens
took 1,070 MB, not 360, and weights from two graphs further out are not packed for fast products.
And all weights lie in the outermost graph: in the branches they are no faster, but loading copies
them, to 360 MB from 200.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import onnx
from onnx import helper

from fastbert.errors import ExportError
from fastbert.exits.criteria import Measure
from fastbert.exits.measures import MEASURES
from fastbert.runtime.onnx_doubts import DOUBTS, PROBABILITIES
from fastbert.runtime.onnx_graph import Graph, Weights, opsets, put, tensor
from fastbert.tasks.task import Task

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


def refuse_unwritable(measure: Measure, task: Task) -> None:
    """Refuse a measure of doubt, or a task, that cannot be written in operators.

    Raises:
        ValueError: It is none of `DOUBTS`, or none of `PROBABILITIES`.
    """
    if type(task) not in PROBABILITIES:
        raise ValueError(f"an adaptive ONNX file cannot answer {task.name}")
    if type(measure) not in DOUBTS:
        fitting = {MEASURES[name] for name in task.measures}
        known = ", ".join(kind.__name__ for kind in DOUBTS if kind in fitting)
        raise ValueError(
            f"an adaptive ONNX file can judge by {known}, got {type(measure).__name__}; "
            "calibrate with one of these, or run the model layer by layer"
        )


def adaptive_model(
    pieces: Sequence[onnx.ModelProto],
    measure: Measure,
    task: Task,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Join the pieces of a model into one graph that lets rows leave.

    It takes what the embeddings take, and `speed`, float32: one threshold for all students, or one
    for each. It gives `probabilities`, float32 [rows, outputs], and `exit_layer`, int64 [rows].

    Args:
        pieces: What `piece_models` returned, or the same with other arithmetic inside.
        measure: How doubtful an answer is.
        task: What is answered.
        metadata: What the file says of itself.

    Raises:
        ValueError: Measure or task cannot be written in operators.
    """
    refuse_unwritable(measure, task)
    parts = _Parts(pieces, measure, task)
    graph = Graph("", Weights())
    _classify(graph, parts)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fastbert",
            [
                *(tensor(item.name, np.int64, "rows", "length") for item in pieces[0].graph.input),
                tensor("speed", np.float32, "thresholds"),
            ],
            [
                tensor("probabilities", np.float32, "rows", parts.outputs),
                tensor("exit_layer", np.int64, "rows"),
            ],
            graph.weights.tensors,
        ),
        producer_name="fastbert",
        doc_string=DOC,
        ir_version=pieces[0].ir_version,
        opset_imports=opsets(pieces),
    )
    helper.set_model_props(model, dict(metadata))
    return model


# The loop. What travels between these functions are the names of values in the graph.


@dataclass(frozen=True)
class _Parts:
    """What the graph is made of."""

    pieces: Sequence[onnx.ModelProto]
    measure: Measure
    task: Task

    @property
    def num_layers(self) -> int:
        return len(self.pieces) - 1

    @property
    def outputs(self) -> int:
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


def _classify(graph: "Graph", parts: _Parts) -> None:
    """Write everything."""
    thresholds = _thresholds(graph, parts.num_layers - 1)
    batch = _start(graph, parts)
    for exit_layer in range(1, parts.num_layers):
        number = graph.constant(exit_layer - 1, np.int64)
        threshold = graph.add("Gather", thresholds, number)
        batch = _run_layer(exit_layer, graph, parts, batch)
        batch = _let_leave(exit_layer, graph, parts, batch, threshold)
    logits, exit_layers = _ask_teacher(graph, parts, batch)
    PROBABILITIES[type(parts.task)](graph, logits, "probabilities")
    graph.add("Identity", exit_layers, name="exit_layer")


def _thresholds(graph: "Graph", students: int) -> str:
    """Write a threshold for each student."""
    each = graph.constant([students], np.int64)
    # Runtimes name the node that failed, so the names say what is wrong with `speed`. Reshape
    # refuses what Expand lets pass where there is one student.
    rule = f"speed_must_have_1_or_{students}_values"
    expanded = graph.add("Expand", "speed", each, name=rule)
    return graph.add("Reshape", expanded, each, name=f"{rule}_and_no_more")


def _start(graph: "Graph", parts: _Parts) -> _Batch:
    """Write the embeddings: the batch before the first layer."""
    inputs = {entry.name: entry.name for entry in parts.pieces[0].graph.input}
    hidden = put(graph, "embeddings/", parts.pieces[0], "hidden", inputs)
    rows = graph.add("Shape", "input_ids", start=0, end=1)
    everybody = graph.add("NonZero", graph.add("Expand", graph.constant(1, np.int64), rows))
    shape = graph.add("Concat", rows, graph.constant([parts.outputs], np.int64), axis=0)
    return _Batch(
        running=graph.add("Transpose", everybody),
        hidden=hidden,
        attention_mask="attention_mask",
        logits=graph.add("Expand", graph.constant(0.0), shape),
        exit_layer=graph.add("Expand", graph.constant(0, np.int64), rows),
    )


def _run_layer(exit_layer: int, graph: "Graph", parts: _Parts, batch: _Batch) -> _Batch:
    """Write a layer, which runs if any row does."""
    layer = graph.branch(f"layer_{exit_layer}/")
    given = {"hidden": batch.hidden, "attention_mask": batch.attention_mask}
    piece = parts.pieces[exit_layer]
    layer.gives.append(put(layer, layer.prefix, piece, "hidden_after", given))
    (hidden,) = graph.where(_any_runs(graph, batch), layer, [batch.hidden])
    return replace(batch, hidden=hidden)


def _let_leave(
    exit_layer: int, graph: "Graph", parts: _Parts, batch: _Batch, threshold: str
) -> _Batch:
    """Write an exit, where the student is asked if any row runs and may leave."""
    student = graph.branch(f"exit_{exit_layer}/")
    given = {"hidden_after": batch.hidden, "attention_mask": batch.attention_mask}
    logits = put(student, student.prefix, parts.pieces[exit_layer], "logits", given)
    doubt = DOUBTS[type(parts.measure)](parts.measure, student, logits, parts.outputs)
    stays = student.add("Not", student.add("Less", doubt, threshold))  # where it is NaN as well
    staying = student.add("Transpose", student.add("NonZero", stays))
    running = (batch.running, batch.hidden, batch.attention_mask)
    student.gives += [student.add("GatherND", rows, staying) for rows in running]
    student.gives += _answered(exit_layer, student, batch, logits)
    may_leave = graph.add("Greater", threshold, graph.constant(0.0))
    asked = graph.add("And", _any_runs(graph, batch), may_leave)
    return _Batch(*graph.where(asked, student, astuple(batch)))


def _ask_teacher(graph: "Graph", parts: _Parts, batch: _Batch) -> list[str]:
    """Write the last layer and the teacher; return logits and exit layers of the whole batch."""
    last = graph.branch(f"layer_{parts.num_layers}/")
    given = {"hidden": batch.hidden, "attention_mask": batch.attention_mask}
    logits = put(last, last.prefix, parts.pieces[-1], "logits", given)
    last.gives += _answered(parts.num_layers, last, batch, logits)
    return graph.where(_any_runs(graph, batch), last, [batch.logits, batch.exit_layer])


def _any_runs(graph: "Graph", batch: _Batch) -> str:
    return graph.add("Greater", graph.add("Size", batch.running), graph.constant(0, np.int64))


def _answered(exit_layer: int, graph: "Graph", batch: _Batch, logits: str) -> tuple[str, str]:
    """Write the answers about the rows that run over those of earlier exits."""
    count = graph.add("Shape", batch.running, start=0, end=1)
    layers = graph.add("Expand", graph.constant(exit_layer, np.int64), count)
    return (
        graph.add("ScatterND", batch.logits, batch.running, logits),
        graph.add("ScatterND", batch.exit_layer, batch.running, layers),
    )
