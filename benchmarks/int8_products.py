"""Which operands int8 in ONNX Runtime should have: speed, exactness and accuracy of each.

    python benchmarks/int8_products.py MODEL

MODEL is a trained folder for sst2. Timed in turns, with one thread: one product, and one encoder
layer without its exit, of 1 x 24 and of 32 x 32 tokens. Products of the largest values and of
random ones are compared with NumPy's. Then the test set is answered at full depth; int8 x int8 is
left out there, as it has the values of uint8 x int8. OpenVINO's int8 is measured as it is, and as
it is computed without VNNI. The result is named after the processor's extensions: run it on each
kind.
"""

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from machine import SHARED, machine, require_shared, write_result
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion
from fastbert.export import int8
from fastbert.export.export import _write_pieces, traced
from fastbert.folder.export import Export
from fastbert.folder.read import open_folder
from fastbert.running import Running
from fastbert.runtime import openvino_backend
from fastbert.runtime.onnx_backend import OnnxSegment, Session, join
from fastbert.runtime.openvino_backend import OpenVinoBackend
from fastbert.runtime.pieces import Arrays, PieceBackend

SHAPES = ((24, 384, 1536), (768, 384, 1536))
TOKENS = ((1, 24), (32, 32))
TEXTS = 300  # answered in OpenVINO


@dataclass(frozen=True)
class Operands:
    """How activations and weights are stored for a product: type, largest value, zero point."""

    activations: Any
    largest: int
    zero: int
    weights: Any
    largest_weight: int
    weight_zero: int = 0


OPERANDS = {
    "uint8 x int8": Operands(np.uint8, 127, 128, np.int8, 127),
    "uint8 x uint8, zero 128": Operands(np.uint8, 127, 128, np.uint8, 127, 128),
    "uint8 x int8, weights in 7 bits": Operands(np.uint8, 127, 128, np.int8, 64),
    "uint8 x int8, activations in 7 bits": Operands(np.uint8, 63, 64, np.int8, 127),
    "int8 x int8": Operands(np.int8, 127, 0, np.int8, 127),
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--rows", type=int, help="of the test set; all by default")
    options = parser.parse_args()
    require_shared()
    found: dict[str, dict[str, Any]] = {name: {} for name in ("fp32", *OPERANDS)}
    pieces = traced(open_folder(options.model))
    of_kind = {"fp32": pieces} | {
        name: [pieces[0], *(with_operands(piece, operands) for piece in pieces[1:])]
        for name, operands in OPERANDS.items()
    }
    for name, operands in OPERANDS.items():
        found[name]["wrong_products"] = wrong_products(operands)
    for rows, inner, columns in SHAPES:
        runs = {"fp32": product_of_floats(rows, inner, columns)} | {
            name: timed_product(operands, rows, inner, columns)
            for name, operands in OPERANDS.items()
        }
        for name, ms in in_turns(runs, options.rounds).items():
            found[name][f"product_ms_{rows}x{inner}x{columns}"] = ms
    for rows, length in TOKENS:
        runs = {name: layer(kind[2], rows, length) for name, kind in of_kind.items()}
        for name, ms in in_turns(runs, options.rounds).items():
            found[name][f"layer_ms_{rows}x{length}"] = ms
    answering = {name: of_kind[name] for name in of_kind if name != "int8 x int8"}
    for name, figures in accuracy_of(answering, options.model, options.rows).items():
        found[name] |= figures
    print(found, flush=True)
    found |= in_openvino(pieces, options.model, options.rounds)
    flags = machine()["flags"]
    kind = "vnni" if {"avx512_vnni", "avx_vnni"} & set(flags) else "without_vnni"
    write_result(f"int8_products_{kind}", {"onnxruntime": onnxruntime.__version__, "kinds": found})


def with_operands(piece: ModelProto, operands: Operands) -> ModelProto:
    """Return a piece as `quantised` makes it, but with other operands."""
    constants = int8.CONSTANTS | {
        "int8/zero": np.array(operands.zero, operands.activations),
        "int8/step": np.array(1 / operands.largest, np.float32),
        "int8/weight_zero": np.array(operands.weight_zero, operands.weights),
    }
    before = int8.CONSTANTS, int8.LARGEST_WEIGHT
    int8.CONSTANTS, int8.LARGEST_WEIGHT = constants, operands.largest_weight
    try:
        model = int8.quantised(piece)
    finally:
        int8.CONSTANTS, int8.LARGEST_WEIGHT = before
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.dims and operands.weight_zero:
            shifted = numpy_helper.to_array(tensor).astype(int) + operands.weight_zero
            tensor.CopyFrom(numpy_helper.from_array(shifted.astype(np.uint8), tensor.name))
    if operands.weight_zero:
        zero = constants["int8/weight_zero"]
        model.graph.initializer.append(numpy_helper.from_array(zero, "int8/weight_zero"))
        for node in model.graph.node:
            if node.op_type == "MatMulInteger":
                node.input.append("int8/weight_zero")
    return model


# Products.


def product(operands: Operands, weights: np.ndarray) -> onnxruntime.InferenceSession:
    """Return a session of one MatMulInteger."""
    zeros = {
        "zero": np.array(operands.zero, operands.activations),
        "weight_zero": np.array(operands.weight_zero, operands.weights),
    }
    node = helper.make_node("MatMulInteger", ["tokens", "weights", *zeros], ["sums"])
    return session(node, operands.activations, TensorProto.INT32, {"weights": weights} | zeros)


def session(
    node: onnx.NodeProto, kind: Any, result: int, constants: Mapping[str, np.ndarray]
) -> onnxruntime.InferenceSession:
    given = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("tokens", given, [None, None])],
        [helper.make_tensor_value_info(node.output[0], result, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), one_thread())


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def integers(kind: Any, largest: int, zero: int, shape: tuple[int, int]) -> np.ndarray:
    values = np.random.default_rng(0).integers(-largest, largest + 1, shape)
    return np.asarray((values + zero).astype(kind))


def wrong_products(operands: Operands) -> dict[str, float]:
    """Return the share of wrong results for the largest operands and for random ones."""
    rows, inner, columns = SHAPES[0]
    kinds = {
        "largest": (
            np.full((rows, inner), operands.zero + operands.largest, operands.activations),
            np.full(
                (inner, columns), operands.weight_zero + operands.largest_weight, operands.weights
            ),
        ),
        "random": (
            integers(operands.activations, operands.largest, operands.zero, (rows, inner)),
            integers(
                operands.weights, operands.largest_weight, operands.weight_zero, (inner, columns)
            ),
        ),
    }
    shares = {}
    for name, (tokens, weights) in kinds.items():
        [sums] = product(operands, weights).run(None, {"tokens": tokens})
        exact = (tokens.astype(int) - operands.zero) @ (weights.astype(int) - operands.weight_zero)
        shares[name] = float((sums != exact).mean())
    return shares


def timed_product(operands: Operands, rows: int, inner: int, columns: int) -> Callable[[], object]:
    weights = integers(
        operands.weights, operands.largest_weight, operands.weight_zero, (inner, columns)
    )
    tokens = integers(operands.activations, operands.largest, operands.zero, (rows, inner))
    run = product(operands, weights).run
    return lambda: run(None, {"tokens": tokens})


def product_of_floats(rows: int, inner: int, columns: int) -> Callable[[], object]:
    random = np.random.default_rng(0)
    weights = random.normal(size=(inner, columns)).astype(np.float32)
    tokens = random.normal(size=(rows, inner)).astype(np.float32)
    node = helper.make_node("MatMul", ["tokens", "weights"], ["product"])
    run = session(node, np.float32, TensorProto.FLOAT, {"weights": weights}).run
    return lambda: run(None, {"tokens": tokens})


def layer(piece: ModelProto, rows: int, length: int) -> Callable[[], object]:
    """Return what runs an encoder layer, without its exit, on random hidden states."""
    hidden = np.random.default_rng(0).normal(size=(rows, length, 384)).astype(np.float32)
    feeds = {"hidden": hidden, "attention_mask": np.ones((rows, length), np.int64)}
    model = join([copy.deepcopy(piece)], ["hidden_after"])
    run = onnxruntime.InferenceSession(model.SerializeToString(), one_thread())
    names = [item.name for item in run.get_inputs()]
    return lambda: run.run(None, {name: feeds[name] for name in names})


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each; everyone has a turn in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(1e3 * float(np.median(each[2:])), 4) for name, each in seconds.items()}


# Answers.


class InMemory(PieceBackend):
    """Runs pieces that nobody wrote to disk."""

    def __init__(self, pieces: list[ModelProto]) -> None:
        super().__init__(len(pieces) - 1)
        self._pieces = pieces

    def make_segment(self, done: int, exit_layer: int) -> OnnxSegment:
        first = 0 if done == 0 else done + 1
        pieces = [copy.deepcopy(piece) for piece in self._pieces[first : exit_layer + 1]]
        outputs = ["logits"] if exit_layer == self.num_exits else ["hidden_after", "logits"]
        return OnnxSegment(Session(join(pieces, outputs), {}, threads=1))


def accuracy_of(
    of_kind: Mapping[str, list[ModelProto]], model: Path, most: int | None
) -> dict[str, dict[str, Any]]:
    """Return accuracies on the test set, and how answers and hidden states differ from fp32's."""
    original = FastBertClassifier.from_pretrained(model, runtime="torch")
    rows = test_rows(most)
    texts = [row.content for row in rows]
    truth = np.array([original.labels.index(row.label or "") for row in rows])
    answers, hidden = {}, {}
    for name, pieces in of_kind.items():
        classifier = FastBertClassifier(InMemory(pieces), original.tokenizer, original.folder)
        answers[name] = classifier.classify(texts, EntropyCriterion(0.0)).logits
        hidden[name] = last_hidden_states(pieces, original, texts[:64])
    found = {}
    for name, logits in answers.items():
        error = np.abs(hidden[name] - hidden["fp32"])
        found[name] = {
            "rows": len(rows),
            "accuracy": float((logits.argmax(-1) == truth).mean()),
            "labels_differ": int((logits.argmax(-1) != answers["fp32"].argmax(-1)).sum()),
            "mean_logit_difference": float(np.abs(logits - answers["fp32"]).mean()),
            "max_logit_difference": float(np.abs(logits - answers["fp32"]).max()),
            "mean_hidden_difference": float(error.mean()),
            "max_hidden_difference": float(error.max()),
        }
    return found


def test_rows(most: int | None) -> list[Example]:
    path = SHARED / "data" / "sst2" / "test.parquet"
    return load_examples(path, Columns(), needs_label=True)[:most]


def last_hidden_states(
    pieces: list[ModelProto], original: FastBertClassifier, texts: list[Any]
) -> np.ndarray:
    """Return the hidden states before the last layer, real tokens only, of some texts."""
    batch = original.tokenizer.collate(original.encode(texts))
    model = join([copy.deepcopy(piece) for piece in pieces[:-1]], ["hidden_after"])
    run = onnxruntime.InferenceSession(model.SerializeToString(), one_thread())
    names = [item.name for item in run.get_inputs()]
    [hidden] = run.run(None, {name: batch.arrays[name] for name in names})
    return np.asarray(hidden[batch.attention_mask.astype(bool)])


# OpenVINO.


def in_openvino(pieces: list[ModelProto], model: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Measure a layer with its exit, and answers, where activations are rounded by whom."""
    original = FastBertClassifier.from_pretrained(model, runtime="torch")
    texts = [row.content for row in test_rows(TEXTS)]
    backends = {}
    with TemporaryDirectory() as folder:
        for precision in ("fp32", "int8"):
            export = Export(Path(folder, precision), "openvino", precision, len(pieces) - 1)
            export.path.mkdir()
            _write_pieces(pieces, export)
            backends[f"OpenVINO {precision}"] = OpenVinoBackend(export, Running(threads=1))
        with patch.object(openvino_backend, "rounds_by_itself", return_value=False):
            name = "OpenVINO int8, rounded in the graph"
            backends[name] = OpenVinoBackend(export, Running(threads=1))
        found: dict[str, dict[str, Any]] = {name: {} for name in backends}
        for rows, length in TOKENS:
            hidden = np.random.default_rng(0).normal(size=(rows, length, 384)).astype(np.float32)
            feeds: Arrays = {"hidden": hidden, "attention_mask": np.ones((rows, length), np.int64)}
            runs = {
                name: partial(backend.make_segment(1, 2), feeds)
                for name, backend in backends.items()
            }
            for name, ms in in_turns(runs, rounds).items():
                found[name][f"layer_and_exit_ms_{rows}x{length}"] = ms
        logits = {
            name: FastBertClassifier(backend, original.tokenizer, original.folder)
            .classify(texts, EntropyCriterion(0.0))
            .logits
            for name, backend in backends.items()
        }
    for other in ("OpenVINO fp32", "OpenVINO int8"):
        for name, figures in found.items():
            differences = np.abs(logits[name] - logits[other])
            figures[f"logit_difference_from_{other}"] = {
                "mean": float(differences.mean()),
                "max": float(differences.max()),
            }
    return found


if __name__ == "__main__":
    main()
