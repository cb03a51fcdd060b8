"""OpenVINO: segments of pieces, each joined into one compiled model.

It prepares code for every new shape, which takes as long as running it some times over. So shapes
are rounded up, lengths a little and rows a little more, and there are only so many of them.

In int8 it computes with activations rounded to int8 where the processor has VNNI, and elsewhere,
without a word, in float32. There the graph rounds them first, so answers are the same everywhere.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from jaxtyping import Float
from openvino import Model, Node, Output, Type, opset13
from openvino.preprocess import PrePostProcessor

from fastbert.errors import ExportError, FolderError
from fastbert.exits.criteria import Measure
from fastbert.folder.export import Export, OpenPiece
from fastbert.running import ANYHOW, Running
from fastbert.runtime.openvino_chain import DOUBTS, chain_of
from fastbert.runtime.openvino_core import open_core
from fastbert.runtime.pieces import Arrays, PieceBackend

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# Lengths are rounded up to a multiple. Attention sums 16 values at a time, and the last few in
# another order, so only from a full 16 on do all paddings of a text round alike. In int8 such a
# difference in the last bit grows, as a value may fall to the next step.
LENGTH_STEPS = {"fp32": 4, "bf16": 4, "int8": 16}
ROW_STEPS = 4  # of rows, to the next power of two
GROUP = 128  # values of a token that share a scale in int8; products of fewer are in float32


class OpenVinoBackend(PieceBackend):
    """Runs an export with OpenVINO, in the precision of the export."""

    def __init__(self, export: Export, running: Running = ANYHOW) -> None:
        """Get ready; models are compiled when the first text comes.

        Args:
            export: A verified export.
            running: The threads of one step, how many steps may run at a time when several threads
                call, and where compiled models are kept for the next start; nothing removes them.

        Raises:
            ExportError: The processor does not compute in the export's precision.
        """
        super().__init__(export.num_layers)
        self._pieces = export.open_pieces()
        self._core = open_core()
        precision = export.precision
        if precision == "bf16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise ExportError(
                f"{export.path}: was exported in bf16, which this processor does not compute in; "
                "export again with --precision int8 or fp32"
            )
        self._length_step = LENGTH_STEPS[precision]
        workers = running.workers or 1
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "NUM_STREAMS": workers,
        }
        if precision == "int8":
            # Activations are scaled row by row: no answer depends on the other rows.
            self._settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP if rounds_by_itself() else 0
        self._rounds = precision == "int8" and not rounds_by_itself()
        self._hidden_type = Type.bf16 if precision == "bf16" else Type.f32
        if running.threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = running.threads * workers
        if running.cache_folder is not None:
            # A folder each: what was compiled for fp32 is taken for bf16 otherwise, and fails.
            cache_folder = Path(running.cache_folder).expanduser()
            self._settings["CACHE_DIR"] = str(cache_folder / precision)

    def begin_in_child(self) -> None:
        """Begin anew, with one stream: more would wait for the parent's threads without end."""
        super().begin_in_child()
        self._settings["NUM_STREAMS"] = 1

    def fitting(self, rows: int, length: int) -> tuple[int, int]:
        """Round up to one of a bounded number of shapes."""
        step = max((1 << (rows - 1).bit_length()) // 2 // ROW_STEPS, 1)
        return _rounded_up(rows, step), _rounded_up(length, self._length_step)

    def make_segment(self, done: int, exit_layer: int) -> "OpenVinoSegment":
        """Join the pieces of a segment and compile them."""
        model = self._joined(done, exit_layer)
        return OpenVinoSegment(self._compiled(model, self._pieces_of(done, exit_layer)))

    def make_chain(self, exits: tuple[int, ...], measure: Measure) -> "OpenVinoChain | None":
        """Join all pieces into one graph, if the measure can be written in it, and compile it."""
        if type(measure) not in DOUBTS:
            return None
        segments = [self._joined(done, layer) for done, layer in pairwise((0, *exits))]
        return OpenVinoChain(self._compiled(chain_of(segments, measure), self._pieces))

    def _joined(self, done: int, exit_layer: int) -> Model:
        """Return the layers after `done` up to `exit_layer` as one graph."""
        model = join(
            [self._read(piece) for piece in self._pieces_of(done, exit_layer)],
            gives_hidden=exit_layer < self.num_exits,
        )
        if self._rounds:
            round_activations(model)
        return with_hidden_states_of(model, self._hidden_type)

    def _pieces_of(self, done: int, exit_layer: int) -> Sequence[OpenPiece]:
        return self._pieces[0 if done == 0 else done + 1 : exit_layer + 1]

    def _compiled(self, model: Model, pieces: Sequence[OpenPiece]) -> "Compiled":
        compiled = Compiled(self._core.compile_model(model, "CPU", self._settings), pieces)
        for piece in pieces:
            piece.forget_weights()
        return compiled

    def _read(self, piece: OpenPiece) -> Model:
        weights = np.frombuffer(piece.weights or bytearray(), np.uint8)
        try:
            return self._core.read_model(piece.graph, openvino.Tensor(weights, shared_memory=True))
        except RuntimeError as error:
            raise FolderError(f"{piece.path}: cannot be read by OpenVINO: {error}") from error


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


class Compiled:
    """A compiled model, with a request for each thread that calls it."""

    def __init__(self, model: openvino.CompiledModel, pieces: Sequence[OpenPiece]) -> None:
        """Note which of the feeds it reads.

        Args:
            model: What was compiled.
            pieces: Of what; some of their weights are read where they are mapped.
        """
        self._model = model
        self._pieces = pieces  # the compiled model does not own them
        self._inputs = [port.get_any_name() for port in model.inputs]
        self._requests = threading.local()

    def __call__(self, feeds: Arrays) -> list[np.ndarray]:
        """Return all outputs."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        results = self._requests.own.infer(
            {name: feeds[name] for name in self._inputs}, share_inputs=True
        )
        return list(results.values())


@dataclass(frozen=True)
class OpenVinoSegment:
    """Some layers and the exit after them."""

    compiled: Compiled

    def __call__(self, feeds: Arrays) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the hidden states, if a layer follows, and the logits."""
        *hidden, logits = self.compiled(feeds)
        return (hidden[0] if hidden else None), logits


@dataclass(frozen=True)
class OpenVinoChain:
    """A whole model for one row."""

    compiled: Compiled

    def __call__(self, feeds: Arrays) -> Float[np.ndarray, "passed classes"]:
        """Return what each exit answered that the row has passed, the last one included."""
        logits, passed = self.compiled(feeds)
        return logits[: int(passed)]


def join(pieces: Sequence[Model], *, gives_hidden: bool) -> Model:
    """Return neighbouring pieces as one model; what leads to no output is left out.

    Args:
        pieces: In the order in which they run; they are used up.
        gives_hidden: Whether the hidden states are an output beside the logits.
    """
    parameters: dict[str, Any] = {}
    hidden = None
    for piece in pieces:
        for parameter in piece.get_parameters():
            name = parameter.output(0).get_any_name()
            source = hidden if name == "hidden" and hidden else None
            if source is None and name in parameters:
                source = parameters[name].output(0)
            if source is None:
                parameters[name] = parameter
                continue
            for reader in parameter.output(0).get_target_inputs():
                reader.replace_source_output(source)
        outputs = [result.input_value(0) for result in piece.get_results()]
        hidden = outputs[0]
    wanted = [outputs[0], outputs[-1]] if gives_hidden else outputs[-1:]
    results = [opset13.result(output) for output in wanted]
    return Model(results, list(parameters.values()), "segment")


def with_hidden_states_of(model: Model, type_: Type) -> Model:
    """Return a segment whose hidden states come and go in the precision in which it computes.

    With float32 at a border OpenVINO adds and normalises in float32 around it and converts before
    each product. NumPy has no bfloat16: OpenVINO takes and gives its bits as float16.
    """
    borders = PrePostProcessor(model)
    for port in model.inputs:
        if "hidden" in port.get_names():
            borders.input("hidden").tensor().set_element_type(type_)
    if len(model.outputs) > 1:
        borders.output(0).tensor().set_element_type(type_)
    return borders.build()


# int8 where OpenVINO computes activations in float32.


@cache
def rounds_by_itself() -> bool:
    """Return whether OpenVINO rounds activations to int8 here, which takes VNNI; it is tried."""
    tokens = np.full((1, GROUP), 0.4 / 127, np.float32)  # less than half a step of int8, so 0,
    tokens[0, 0] = 1  # beside this one
    weights = opset13.constant(np.ones((2, GROUP), np.int8))
    halves = opset13.multiply(
        opset13.convert(weights, np.float32), np.full((2, 1), 0.5, np.float32)
    )
    given = opset13.parameter([-1, GROUP], np.float32)
    model = Model([opset13.matmul(given, halves, False, True)], [given], "product")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP}
    try:
        product = open_core().compile_model(model, "CPU", settings)(tokens)[0]
    except RuntimeError:  # its kernels are held to older instructions: ONEDNN_MAX_CPU_ISA
        return False
    return product.shape == (1, 2) and bool((np.abs(product - 0.5) < 0.1).all())


def round_activations(model: Model) -> None:
    """Round what products with int8 weights read to the values that int8 has, group by group.

    Args:
        model: A model with compressed weights; it is changed.
    """
    rounded: dict[tuple[str, int], Output] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not _is_int8(node.input_value(1)):
            continue
        tokens, weights = node.input_value(0), node.input_value(1)
        # The weights' shape is known; that of tokens may be found out as they come.
        width = weights.get_shape()[-1 if node.get_attributes()["transpose_b"] else -2]
        if width < GROUP:
            continue
        key = (tokens.get_node().get_name(), tokens.get_index())
        if key not in rounded:  # query, key and value read the same tokens
            rounded[key] = _rounded(tokens, width)
        node.input(0).replace_source_output(rounded[key])


def _is_int8(weights: Output) -> bool:
    """Return whether weights are int8, with what turns them into float32 before the product."""
    node: Node = weights.get_node()
    if node.get_type_name() == "Constant":
        return bool(weights.get_element_type() == Type.i8)
    unpacks = node.get_type_name() in ("Convert", "Multiply", "Reshape", "Transpose")
    return unpacks and _is_int8(node.input_value(0))


def _rounded(tokens: Output, width: int) -> Output:
    """Append the rounding to int8 with a scale for each group, and back to float32."""
    last = len(tokens.get_partial_shape()) - 1
    missing = -width % GROUP
    if missing:  # the last group is a short one
        ends = np.array([0] * last + [missing], np.int64)
        tokens = opset13.pad(tokens, np.zeros_like(ends), ends, "constant", np.float32(0)).output(0)
    split = np.array([0] * last + [-1, GROUP], np.int64)
    groups = opset13.reshape(tokens, split, special_zero=True)
    largest = opset13.reduce_max(opset13.abs(groups), np.array([last + 1]), keep_dims=True)
    scale = opset13.maximum(opset13.multiply(largest, np.float32(1 / 127)), np.float32(1e-30))
    steps = opset13.round(opset13.divide(groups, scale), "half_to_even")
    whole = np.array([0] * last + [width + missing], np.int64)
    joined = opset13.reshape(opset13.multiply(steps, scale), whole, special_zero=True)
    if missing:
        joined = opset13.slice(joined, [0], [width], [1], [last])
    return joined.output(0)
