"""Which export of a model is the fastest on this processor: by a short measurement, not by rule.

Which runtime and precision are fast depends on what the processor multiplies in hardware: without
VNNI, int8 in OpenVINO is slower than its own fp32, and fp32 in ONNX Runtime faster than both.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastbert.errors import FastBertError
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import ExitBackend, classify
from fastbert.folder.export import open_export
from fastbert.folder.export_times import ExportTimes, read_times, write_times
from fastbert.folder.read import ModelFolder
from fastbert.running import Running, Runtime
from fastbert.runtime.open import open_backend, ready_exports
from fastbert.text import TextTokenizer, TokenBatch
from fastbert.timing import Name, time_rounds

WORDS, ROWS = 24, 32
ALONE = 10  # times that a text alone is answered in one turn: one answer is too short for a clock
ROUNDS = 5
FULL_DEPTH = EntropyCriterion(0.0)

Backend = ExitBackend[Any, TokenBatch]

logger = logging.getLogger(__name__)


def measured_times(
    backends: Mapping[Name, Backend], tokenizer: TextTokenizer
) -> dict[Name, ExportTimes]:
    """Return what exports take through all layers, in rounds in which they take turns.

    Args:
        backends: Exports of one model that are ready to run, by any name.
        tokenizer: Of the model.
    """
    row = tokenizer.encode(["how fast is it " * (WORDS // 4)])[0]
    alone = _seconds(backends, tokenizer.collate([row]), ALONE)
    bulk = _seconds(backends, tokenizer.collate([row] * ROWS), 1)
    return {
        name: ExportTimes(1_000 * alone[name] / ALONE, 1_000 * bulk[name] / ROWS)
        for name in backends
    }


def time_exports(folder: ModelFolder, running: Running) -> None:
    """Measure a folder's exports beside each other, if there are several, for `auto` to know.

    What is known of them on this processor is not measured again. What cannot run here, such as
    bfloat16 on a processor that has none, and a folder that cannot be written, have a line.
    """
    ready = ready_exports(folder)
    if len(ready) < 2 or len(read_times(folder, ready)) == len(ready):
        return
    backends: dict[Runtime, Backend] = {}
    try:
        for runtime in ready:
            backends[runtime] = open_backend(open_export(folder, runtime), running.by(runtime))
        write_times(folder, measured_times(backends, folder.text_tokenizer()))
    except FastBertError as error:
        logger.warning("%s: its exports were not measured: %s", folder.path, error)


def _seconds(backends: Mapping[Name, Backend], batch: TokenBatch, times: int) -> dict[Name, float]:
    """Return the seconds that each takes to answer a batch so many times, by the median round."""
    runs: dict[Name, Callable[[], object]] = {
        name: partial(_answer, backend, [batch] * times) for name, backend in backends.items()
    }
    for run in runs.values():  # to get warm
        run()
    return {name: float(np.median(taken)) for name, taken in time_rounds(runs, ROUNDS).items()}


def _answer(backend: Backend, batches: Sequence[TokenBatch]) -> None:
    for batch in batches:
        classify(backend, batch, FULL_DEPTH)
