"""What an exit costs where nobody leaves, one text at a time: by the loop, and in one call.

    python benchmarks/exit_price.py MODEL [--turns 100]

MODEL is a model folder; it is exported for the run. Three ways take turns, in changing order: no
exit is asked; all are asked by the loop, from segment to segment; all are asked as `classify` does
it for one text alone. No doubt is small enough to leave. In a turn each way runs a few times, the
first of which only brings its weights back into the caches, and the rest count by their median. The
median of the differences within a turn, over the number of students, is what an exit costs, its
head included. One thread, 24 tokens.
"""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import write_result

from fastbert.bench.machine import warn_if_busy
from fastbert.errors import ExportError
from fastbert.exits.criteria import ThresholdCriterion
from fastbert.exits.engine import classify, classify_in_steps
from fastbert.exits.measures import MaxProbability
from fastbert.export.export import export_model
from fastbert.folder.export import open_export
from fastbert.folder.read import open_folder
from fastbert.running import PRECISIONS, Precision, Running, Runtime
from fastbert.runtime.open import open_backend
from fastbert.text import TokenBatch
from fastbert.timing import time_items

TARGETS = [(runtime, precision) for runtime, each in PRECISIONS.items() for precision in each]
LENGTH, WARM_UP = 24, 10
REPEATS = 3  # of each way in a turn, after one that does not count
NEVER = 1e-12  # a threshold that asks an exit and lets nobody go


def main() -> None:
    """Measure each target, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    warn_if_busy()
    found: dict[str, dict[str, float] | str] = {}
    for runtime, precision in TARGETS:
        name = f"{runtime} {precision}"
        try:
            found[name] = price(options.model, runtime, precision, options.turns)
        except ExportError as error:
            found[name] = str(error)
        print(name, found[name], flush=True)
    settings = {"turns": options.turns, "tokens": LENGTH, "threads": 1}
    write_result("exit_price", {"settings": settings, "prices": found})


def price(model: Path, runtime: Runtime, precision: Precision, turns: int) -> dict[str, float]:
    """Return milliseconds of a layer, and of an exit by both ways."""
    with TemporaryDirectory() as parent:
        folder = shutil.copytree(model, Path(parent) / "model")
        export_model(folder, runtime=runtime, precision=precision)
        opened = open_folder(folder)
        backend = open_backend(open_export(opened, runtime), Running(threads=1))
        row = text(opened.config.max_length)
        students = backend.num_exits - 1
        nobody, all_of_them = (
            ThresholdCriterion(MaxProbability(), (each,) * students) for each in (0.0, NEVER)
        )
        ways: dict[str, Callable[[TokenBatch], object]] = {
            "full": partial(classify, backend, criterion=nobody),
            "loop": partial(classify_in_steps, backend, criterion=all_of_them),
            "classify": partial(classify, backend, criterion=all_of_them),
        }
        for way in ways.values():  # first calls are slower
            for _ in range(WARM_UP):
                way(row)
        seconds = time_items(ways, [row] * REPEATS, turns)
        times = {way: 1_000 * np.median(each, axis=1) for way, each in seconds.items()}
    layer = float(np.median(times["full"])) / backend.num_exits
    exits = {
        way: float(np.median(times[way] - times["full"])) / students for way in ("loop", "classify")
    }
    return {"layer": layer, **exits} | {
        f"{way}_of_layer": each / layer for way, each in exits.items()
    }


def text(max_length: int) -> TokenBatch:
    """Return a row of tokens, none of them padding."""
    length = min(LENGTH, max_length)
    ids = np.random.default_rng(0).integers(10, 1_000, (1, length))
    return TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids))


if __name__ == "__main__":
    main()
