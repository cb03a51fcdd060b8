"""OpenVINO: segments of stages, each joined into one compiled model.

It prepares code for every new shape, which takes as long as running it some times over. So shapes
are rounded up, lengths a little and rows a little more, and there are only so many of them.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import Core, Model, opset13

from fastbert.errors import ExportError, FolderError
from fastbert.runtime.manifest import Export
from fastbert.runtime.stages import Arrays, StageBackend

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# Lengths are rounded up to a multiple. Attention sums 16 values at a time, and the last few in
# another order, so only from a full 16 on do all paddings of a text round alike. In int8 such a
# difference in the last bit grows, as a value may fall to the next step.
LENGTH_STEPS = {"fp32": 4, "bf16": 4, "int8": 16}
ROW_STEPS = 4  # of rows, to the next power of two


class OpenVinoBackend(StageBackend):
    """Runs an export with OpenVINO, in the precision of the export."""

    def __init__(
        self,
        export: Export,
        threads: int | None = None,
        streams: int = 1,
        cache_folder: Path | None = None,
    ) -> None:
        """Get ready; models are compiled when the first text comes.

        Args:
            export: A verified export.
            threads: Processor threads of one step; by default as many as there are cores.
            streams: Steps that may run at a time, when several threads call.
            cache_folder: Where compiled models are kept for the next start; nothing removes them.

        Raises:
            ExportError: The processor does not compute in the export's precision.
        """
        super().__init__(export.num_layers)
        self._files = export.stages
        self._core = Core()
        precision = export.precision
        if precision == "bf16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise ExportError(
                f"{export.path}: was exported in bf16, which this processor does not compute in; "
                "export again with --precision int8 or fp32"
            )
        self._length_step = LENGTH_STEPS[precision]
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "NUM_STREAMS": streams,
        }
        if precision == "int8":
            # Activations are scaled row by row: no answer depends on the other rows.
            self._settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 128
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads * streams
        if cache_folder is not None:
            # A folder each: what was compiled for fp32 is taken for bf16 otherwise, and fails.
            self._settings["CACHE_DIR"] = str(cache_folder / precision)

    def fitting(self, rows: int, length: int) -> tuple[int, int]:
        """Round up to one of a bounded number of shapes."""
        step = max((1 << (rows - 1).bit_length()) // 2 // ROW_STEPS, 1)
        return _rounded_up(rows, step), _rounded_up(length, self._length_step)

    def make_segment(self, done: int, exit_layer: int) -> "OpenVinoSegment":
        """Join the stages of a segment and compile them."""
        first = 0 if done == 0 else done + 1
        stages = [self._read(path) for path in self._files[first : exit_layer + 1]]
        model = join(stages, gives_hidden=exit_layer < self.num_exits)
        return OpenVinoSegment(self._core.compile_model(model, "CPU", self._settings))

    def _read(self, path: Path) -> Model:
        try:
            return self._core.read_model(path)
        except RuntimeError as error:
            raise FolderError(f"{path}: cannot be read by OpenVINO: {error}") from error


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


class OpenVinoSegment:
    """A compiled model, with a request for each thread that calls it."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        """Note which of the feeds it reads."""
        self._model = model
        self._inputs = [port.get_any_name() for port in model.inputs]
        self._requests = threading.local()

    def __call__(self, feeds: Arrays) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the hidden states, if a layer follows, and the logits."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        results = self._requests.own.infer(
            {name: feeds[name] for name in self._inputs}, share_inputs=True
        )
        *hidden, logits = results.values()
        return (hidden[0] if hidden else None), logits


def join(stages: Sequence[Model], *, gives_hidden: bool) -> Model:
    """Return neighbouring stages as one model; what leads to no output is left out.

    Args:
        stages: In the order in which they run; they are used up.
        gives_hidden: Whether the hidden states are an output beside the logits.
    """
    parameters: dict[str, Any] = {}
    hidden = None
    for stage in stages:
        for parameter in stage.get_parameters():
            name = parameter.output(0).get_any_name()
            source = hidden if name == "hidden" and hidden else None
            if source is None and name in parameters:
                source = parameters[name].output(0)
            if source is None:
                parameters[name] = parameter
                continue
            for reader in parameter.output(0).get_target_inputs():
                reader.replace_source_output(source)
        outputs = [result.input_value(0) for result in stage.get_results()]
        hidden = outputs[0]
    wanted = [outputs[0], outputs[-1]] if gives_hidden else outputs[-1:]
    results = [opset13.result(output) for output in wanted]
    return Model(results, list(parameters.values()), "segment")
