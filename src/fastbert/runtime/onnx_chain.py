"""ONNX Runtime: a whole model as one graph, in which one text runs no further than it has to.

As `fastbert.runtime.openvino_chain` does it, in ONNX. The file that `export --adaptive` writes is
another graph: there a batch of rows leaves one by one, which takes a gather at each exit.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from fastbert.exits.criteria import Measure
from fastbert.runtime.onnx_doubts import DOUBTS
from fastbert.runtime.onnx_graph import Graph, Weights, opsets, put, tensor
from fastbert.runtime.pieces import BOUNDS

MASK = "attention_mask"


def chain_of(
    pieces: Sequence[onnx.ModelProto], exits: Sequence[int], measure: Measure
) -> onnx.ModelProto:
    """Join pieces into one graph for a single row, which lets it leave at each exit.

    Args:
        pieces: The embeddings, and each layer with its exit. Weights that lie outside of them stay
            there; the name of each begins with the number of its piece.
        exits: The layers before the exits that are asked, rising, the teacher's last; at least two.
        measure: How doubtful an answer is: one of `DOUBTS`.

    Returns:
        It reads what the embeddings read, and `bounds`, float32, one for each exit but the last. It
        gives the logits of all exits [exits, classes], and how many of them the row has passed;
        the rest are zeros.
    """
    graph = Graph("", Weights())
    inputs = {item.name: item.name for item in pieces[0].graph.input}
    hidden = put(graph, "0/", pieces[0], "hidden", inputs)
    nothing = {
        "logits": graph.constant([[0.0] * _classes(pieces)]),
        "stays": graph.constant(False, np.bool_),
    }
    (first, *later), answers = pairwise((0, *exits)), []
    row = _run(graph, pieces, first, hidden, 0, measure)
    for place, ends in enumerate(later, start=1):
        answers.append(row.pop("logits"))
        branch = graph.branch(f"to_{ends[1]}/")
        found = _run(branch, pieces, ends, row["hidden"], place, measure)
        branch.gives += found.values()
        before = [{**row, **nothing}[name] for name in found]
        row = dict(zip(found, graph.where(row["stays"], branch, before), strict=True))
    graph.add("Concat", *answers, row["logits"], name="logits", axis=0)
    graph.add("Identity", row["passed"], name="passed")
    return _model(graph, pieces, len(exits))


def _run(
    graph: Graph,
    pieces: Sequence[onnx.ModelProto],
    ends: tuple[int, int],
    hidden: str,
    place: int,
    measure: Measure,
) -> dict[str, str]:
    """Write the layers between two exits, and the latter one; return the names of what follows."""
    done, exit_layer = ends
    for layer in range(done + 1, exit_layer):
        given = {"hidden": hidden, MASK: MASK}
        hidden = put(graph, f"{layer}/", pieces[layer], "hidden_after", given)
    given, piece, prefix = {"hidden": hidden, MASK: MASK}, pieces[exit_layer], f"{exit_layer}/"
    passed = graph.add("Identity", graph.constant(place + 1, np.int64))
    if exit_layer == len(pieces) - 1:
        return {"logits": put(graph, prefix, piece, "logits", given), "passed": passed}
    hidden = put(graph, prefix, piece, "hidden_after", given)
    logits = put(graph, f"{prefix}exit/", piece, "logits", {"hidden_after": hidden, MASK: MASK})
    doubt = DOUBTS[type(measure)](measure, graph, logits, _classes(pieces))
    bound = graph.add("Gather", BOUNDS, graph.constant([place], np.int64))
    leaves = graph.add("Squeeze", graph.add("Less", doubt, bound))
    return {
        "hidden": hidden,
        "logits": logits,
        "stays": graph.add("Not", leaves),
        "passed": passed,
    }


def _classes(pieces: Sequence[onnx.ModelProto]) -> int:
    (logits,) = pieces[-1].graph.output
    return int(logits.type.tensor_type.shape.dim[1].dim_value)


def _model(graph: Graph, pieces: Sequence[onnx.ModelProto], exits: int) -> onnx.ModelProto:
    whole = helper.make_graph(
        graph.nodes,
        "chain",
        [
            *(tensor(item.name, np.int64, "rows", "length") for item in pieces[0].graph.input),
            tensor(BOUNDS, np.float32, exits - 1),
        ],
        [tensor("logits", np.float32, exits, _classes(pieces)), tensor("passed", np.int64)],
        graph.weights.tensors,
    )
    return helper.make_model(whole, ir_version=pieces[0].ir_version, opset_imports=opsets(pieces))
