"""What an exit head costs: in FLOPs, and in milliseconds inside an exported segment.

    python benchmarks/head_price.py [--turns 200]

Each kind of head stands behind one layer of width 384 (12 attention heads, FFN of 1536) with random
weights, for 2 and for 77 classes. Its FLOPs are told as shares of a layer, and so are those of
eleven. Its milliseconds are what the segment of the layer with its exit takes above the same
segment without, which gives the hidden states alone: both are run in turns, who begins changes, and
the median of the differences within a turn counts. One thread; 1 x 24 and 32 x 32 tokens, padded as
the runtime pads them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import openvino
import torch
from machine import write_result
from onnx import ModelProto
from openvino import Model, opset13
from transformers import AutoConfig, AutoModelForSequenceClassification

from fastbert.bench.machine import warn_if_busy
from fastbert.errors import ExportError
from fastbert.export.export import _write_pieces
from fastbert.export.int8 import quantised
from fastbert.export.pieces import piece_models
from fastbert.folder.export import ACTIVATION_BITS, Export
from fastbert.head_shapes import HeadShape, heads_by_depth
from fastbert.nn.model import FastBertModel
from fastbert.running import PRECISIONS, Precision, Running, Runtime
from fastbert.runtime import onnx_backend, openvino_backend
from fastbert.runtime.onnx_backend import OnnxBackend
from fastbert.runtime.openvino_backend import OpenVinoBackend
from fastbert.runtime.pieces import Arrays
from fastbert.shape import ModelShape

HEADS = ("paper", "paper/mean", "queries", "queries/2/64/learned", "queries/4/128/learned", "mean")
CLASSES = (2, 77)
TURNS = {
    (1, 24): 10,
    (32, 32): 1,
}  # rows and length; how many times as many turns, as they are short
WIDTH, ATTENTION_HEADS, FFN, STUDENTS = 384, 12, 1536, 11
LAYERS = 3  # the second is measured: without embeddings, and with a student
WARM_UP = 5  # turns that do not count

Backend = OnnxBackend | OpenVinoBackend
Run = Callable[[], object]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200, help="at 32 x 32 tokens")
    parser.add_argument("--heads", nargs="+", default=HEADS, help="spellings")
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--name", default="head_price", help="of the result, or its path")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warn_if_busy()
    prices = []
    for classes in options.classes:
        for spelling in options.heads:
            [head] = heads_by_depth(spelling, 1)
            price = {"head": spelling, "classes": classes, "flops": flops_of(head, classes)}
            price["ms"] = milliseconds(head, classes, options.turns)
            print(json.dumps(price), flush=True)
            prices.append(price)
    settings = {
        "turns": {named(shape): more * options.turns for shape, more in TURNS.items()},
        "layer": {"width": WIDTH, "attention_heads": ATTENTION_HEADS, "ffn": FFN},
        "threads": 1,
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
    }
    write_result(options.name, {"settings": settings, "prices": prices})


def named(shape: tuple[int, int]) -> str:
    return "x".join(map(str, shape))


def flops_of(head: HeadShape, classes: int) -> dict[str, dict[str, float]]:
    """Return what a head costs a row, and it and eleven of it as shares of a layer."""
    layer = ModelShape(WIDTH, FFN, 1, classes, ())
    found = {}
    for shape in TURNS:
        flops = int(head.flops(shape[1], WIDTH, classes))
        share = flops / int(layer.layer_flops(shape[1]))
        found[named(shape)] = {
            "a_row": flops,
            "of_a_layer": round(share, 5),
            f"{STUDENTS}_of_a_layer": round(STUDENTS * share, 5),
        }
    return found


# Milliseconds.


def milliseconds(head: HeadShape, classes: int, turns: int) -> dict[str, Any]:
    """Return what a head takes in each runtime and precision; None where it has no kernels."""
    pieces = piece_models(model_with(head, classes), gives_segments=False)
    found: dict[str, Any] = {}
    for runtime, precisions in PRECISIONS.items():
        for precision in precisions:
            with TemporaryDirectory() as folder:
                try:
                    backend = exported(pieces, Path(folder), runtime, precision)
                except ExportError:  # the processor does not compute in bf16
                    found[f"{runtime} {precision}"] = None
                    continue
                found[f"{runtime} {precision}"] = by_shape(backend, turns)
    return found


def by_shape(backend: Backend, turns: int) -> dict[str, dict[str, float]]:
    """Return what a head takes for each number of tokens."""
    with_head, without = segments(backend)
    found = {}
    for shape, more in TURNS.items():
        arrays = feeds(backend, shape)
        runs = partial(with_head, arrays), partial(without, arrays)
        found[named(shape)] = compared(*runs, more * turns)
    return found


def model_with(head: HeadShape, classes: int) -> FastBertModel:
    """Return a random model whose students have that head."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=32,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=ATTENTION_HEADS,
        intermediate_size=FFN,
        num_labels=classes,
    )
    teacher = AutoModelForSequenceClassification.from_config(config)
    return FastBertModel(teacher, (head,) * (LAYERS - 1))


def exported(
    pieces: Sequence[ModelProto], folder: Path, runtime: Runtime, precision: Precision
) -> Backend:
    """Write pieces as an export has them, and open it.

    Raises:
        ExportError: The processor does not compute in the precision.
    """
    if (runtime, precision) == ("onnx", "int8"):
        pieces = [pieces[0], *map(quantised, pieces[1:])]
    bits = ACTIVATION_BITS.get((runtime, precision))
    export = Export(folder, runtime, precision, LAYERS, bits)
    _write_pieces(pieces, export)
    kind = OnnxBackend if runtime == "onnx" else OpenVinoBackend
    return kind(export.opened(), Running(threads=1))


def segments(backend: Backend) -> Iterator[Callable[[Arrays], object]]:
    """Give the segment of the second layer: with its exit, then without."""
    yield backend.make_segment(1, 2)
    with (
        patch.object(onnx_backend, "join", partial(hidden_of_onnx, onnx_backend.join)),
        patch.object(openvino_backend, "join", partial(hidden_of_openvino, openvino_backend.join)),
    ):
        yield backend.make_segment(1, 2)


def hidden_of_onnx(join: Callable[..., ModelProto], pieces: Any, outputs: Any) -> ModelProto:
    return join(pieces, outputs[:1])


def hidden_of_openvino(join: Callable[..., Model], pieces: Any, *, gives_hidden: bool) -> Model:
    whole = join(pieces, gives_hidden=gives_hidden)
    hidden = whole.get_results()[0].input_value(0)
    return Model([opset13.result(hidden)], whole.get_parameters(), "segment")


def feeds(backend: Backend, shape: tuple[int, int]) -> Arrays:
    """Return random hidden states, with the padding that the backend adds."""
    padded = backend.fitting(*shape)
    mask = np.zeros(padded, np.int64)
    mask[: shape[0], : shape[1]] = 1
    hidden = np.random.default_rng(0).normal(size=(*padded, WIDTH)).astype(np.float32)
    return {"hidden": hidden, "attention_mask": mask}


def compared(with_head: Run, without: Run, turns: int) -> dict[str, float]:
    """Return the medians of both and of their differences, and the differences' quartiles."""
    taken: dict[Run, list[float]] = {with_head: [], without: []}
    for turn in range(WARM_UP + turns):
        for run in (with_head, without) if turn % 2 else (without, with_head):
            start = time.perf_counter()
            run()
            taken[run].append(1e3 * (time.perf_counter() - start))
    longer, shorter = (np.array(taken[run][WARM_UP:]) for run in (with_head, without))
    lower, price, upper = np.quantile(longer - shorter, [0.25, 0.5, 0.75]).tolist()
    figures = {
        "with_head": float(np.median(longer)),
        "without": float(np.median(shorter)),
        "head": price,
        "head_lower_quartile": lower,
        "head_upper_quartile": upper,
        "head_of_layer": price / float(np.median(shorter)),
    }
    return {name: round(value, 5) for name, value in figures.items()}


if __name__ == "__main__":
    main()
