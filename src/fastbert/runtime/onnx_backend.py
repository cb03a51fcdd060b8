"""ONNX Runtime: segments of pieces, each joined into one graph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from fastbert.errors import ExportError, FolderError
from fastbert.exits.criteria import Measure
from fastbert.folder.export import FULL_RANGE, Export, OpenPiece
from fastbert.running import ANYHOW, Running
from fastbert.runtime.onnx_chain import chain_of
from fastbert.runtime.onnx_doubts import DOUBTS
from fastbert.runtime.onnx_graph import leading_to
from fastbert.runtime.pieces import Arrays, PieceBackend


class OnnxBackend(PieceBackend):
    """Runs an export with ONNX Runtime."""

    def __init__(self, export: Export, running: Running = ANYHOW) -> None:
        """Get ready; graphs are read when the first text comes.

        Args:
            export: A verified export.
            running: The threads of one step; by default as many as there are cores.

        Raises:
            ExportError: It was exported before activations kept to 7 bits in int8, and sums with
                all 8 overflow on this processor.
        """
        if export.activation_bits == FULL_RANGE and not sums_of_full_range_are_exact():
            raise ExportError(
                f"{export.path}: its int8 activations take all 8 bits, so sums overflow on "
                f"this processor; export again with `fastbert export {export.path.parent} "
                "--runtime onnx --precision int8`"
            )
        super().__init__(export.num_layers)
        self._pieces = export.open_pieces()
        self._threads = running.threads or 0

    def make_chain(self, exits: tuple[int, ...], measure: Measure) -> "OnnxChain | None":
        """Write all pieces into one graph, if the measure can be written in it."""
        if type(measure) not in DOUBTS:
            return None
        model = chain_of([_read(piece) for piece in self._pieces], exits, measure)
        return OnnxChain(self._session(model, self._pieces))

    def make_segment(self, done: int, exit_layer: int) -> "OnnxSegment":
        """Join the pieces of a segment and hand them to the runtime."""
        first = 0 if done == 0 else done + 1
        pieces = self._pieces[first : exit_layer + 1]
        outputs = ["logits"] if exit_layer == self.num_exits else ["hidden_after", "logits"]
        model = join([_read(piece) for piece in pieces], outputs)
        return OnnxSegment(self._session(model, pieces))

    def _session(self, model: ModelProto, pieces: Sequence[OpenPiece]) -> "Session":
        session = Session(model, _weights(model, pieces), self._threads)
        for piece in pieces:
            piece.forget_weights()
        return session


class Session:
    """A graph made ready, and which of the feeds it reads."""

    def __init__(self, model: ModelProto, weights: Arrays, threads: int) -> None:
        """Let the runtime optimise a graph.

        Args:
            model: The graph.
            weights: What of it lies outside, by name; the runtime reads them where they are.
            threads: Processor threads of one step; 0 stands for as many as there are cores.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; its warnings speak of graphs, not to users
        options.intra_op_num_threads = threads
        # Each segment has a pool. While another one runs, the threads of this one must not spin.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy
        values = {name: from_numpy(array) for name, array in weights.items()}
        # The first alone would be copied, the second alone looked for in files.
        options.add_external_initializers(list(values), list(values.values()))
        for name, value in values.items():
            options.add_initializer(name, value)
        self._weights = weights, values  # the session reads them and does not own them
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [item.name for item in self._session.get_inputs()]

    def __call__(self, feeds: Arrays) -> list[np.ndarray]:
        """Return all outputs."""
        results: list[np.ndarray] = self._session.run(
            None, {name: feeds[name] for name in self._inputs}
        )
        return results


@dataclass(frozen=True)
class OnnxSegment:
    """The graph of some layers and the exit after them."""

    session: Session

    def __call__(self, feeds: Arrays) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the hidden states, if a layer follows, and the logits."""
        *hidden, logits = self.session(feeds)
        return (hidden[0] if hidden else None), logits


@dataclass(frozen=True)
class OnnxChain:
    """The graph of a whole model for one row."""

    session: Session

    def __call__(self, feeds: Arrays) -> Float[np.ndarray, "passed classes"]:
        """Return what each exit answered that the row has passed, the last one included."""
        logits, passed = self.session(feeds)
        return logits[: int(passed)]


@cache
def sums_of_full_range_are_exact() -> bool:
    """Return whether uint8 x int8 products are summed exactly here, whatever their values.

    Without VNNI two of them are added in 16 bits, which 2 x 255 x 127 exceeds. What a processor can
    do is tried, not looked up: a runtime has kernels of its own for each.
    """
    rows, inner, columns = 3, 64, 16
    weights = np.full((inner, columns), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["tokens", "weights"], ["sums"])],
        "full_range",
        [helper.make_tensor_value_info("tokens", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [sums] = session.run(None, {"tokens": np.full((rows, inner), 255, np.uint8)})
    return bool((sums == 255 * 127 * inner).all())


def _read(piece: OpenPiece) -> ModelProto:
    try:
        return onnx.load_from_string(piece.graph)
    except Exception as error:  # protobuf's own, which is no public name
        raise FolderError(f"{piece.path}: cannot be read as ONNX: {error}") from error


def _weights(model: ModelProto, pieces: Sequence[OpenPiece]) -> dict[str, np.ndarray]:
    """Return what a joined graph has outside of itself, where it lies in the pieces' files."""
    weights = {}
    for item in model.graph.initializer:
        if uses_external_data(item):
            piece = pieces[int(item.name.partition("/")[0])]  # `join` puts the number in front
            place, dtype = ExternalDataInfo(item), helper.tensor_dtype_to_np_dtype(item.data_type)
            try:
                flat = np.frombuffer(
                    piece.weights or b"", dtype, math.prod(item.dims), place.offset or 0
                )
            except ValueError as error:
                raise FolderError(f"{piece.path}: lacks weights: {error}") from error
            weights[item.name] = flat.reshape(item.dims)
    return weights


def join(pieces: Sequence[ModelProto], outputs: Sequence[str]) -> ModelProto:
    """Return neighbouring pieces as one model; what leads to none of the outputs is left out.

    Args:
        pieces: In the order in which they run; they are used up.
        outputs: `hidden_after`, `logits` or both, of the last piece.
    """
    inputs, nodes, initializers = {}, [], []
    hidden = "hidden"
    for number, piece in enumerate(pieces):
        prefix = f"{number}/"
        graph = compose.add_prefix(piece, prefix, inplace=True).graph
        for item in graph.input:
            name = item.name.removeprefix(prefix)
            source = hidden if name == "hidden" else name
            nodes.append(helper.make_node("Identity", [source], [item.name]))
            if number == 0 or name == "attention_mask":
                inputs[name] = _renamed(item, name)
        nodes += graph.node
        initializers += graph.initializer
        hidden = graph.output[0].name
    results = {"hidden_after": graph.output[0], "logits": graph.output[-1]}
    nodes += [helper.make_node("Identity", [results[name].name], [name]) for name in outputs]
    graph = helper.make_graph(
        leading_to(set(outputs), nodes),
        "segment",
        list(inputs.values()),
        [_renamed(results[name], name) for name in outputs],
    )
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(item for item in initializers if item.name in used)
    return helper.make_model(
        graph, opset_imports=pieces[0].opset_import, ir_version=pieces[0].ir_version
    )


def _renamed(item: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(item)
    copy.name = name
    return copy
