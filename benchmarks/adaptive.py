"""How much of the layer saving shows in time in the adaptive ONNX file.

    python benchmarks/adaptive.py DATASET EXPORT …

Each EXPORT is a calibrated folder exported with `--runtime onnx --adaptive`. Thresholds are those
for half a point on dev. The file takes turns with itself at speed 0 and with the uncut model of the
same precision in ONNX Runtime, on the same batches of similar length, one thread.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from machine import SHARED, require_shared, write_result

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion
from fastbert.exits.engine import classify
from fastbert.folder.export import open_export
from fastbert.folder.names import ADAPTIVE_FILE
from fastbert.text import TokenBatch

SIZES = {1: 100, 8: 160, 32: 256}  # rows timed at each batch size
ROUNDS = 3
MAX_DROP = 0.005


def main() -> None:
    """Time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("exports", type=Path, nargs="+")
    options = parser.parse_args()
    require_shared()
    rows = load_examples(
        SHARED / "data" / options.dataset / "test.parquet", Columns(), needs_label=True
    )
    texts = [row.content for row in rows]
    random.Random(0).shuffle(texts)
    results = []
    for path in options.exports:
        classifier = FastBertClassifier.from_pretrained(path, runtime="onnx", threads=1)
        precision = open_export(classifier.folder, "onnx").precision
        session = load(path / "onnx" / ADAPTIVE_FILE)
        for size, count in SIZES.items():
            found = {"precision": precision, "batch_size": size, "rows": count}
            found |= measure(classifier, session, texts[:count], size)
            results.append(found)
            print({name: value for name, value in found.items() if name != "seconds"}, flush=True)
    write_result(
        f"adaptive_{options.dataset}", {"dataset": options.dataset, "measurements": results}
    )


def load(path: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, settings)


def measure(
    classifier: FastBertClassifier,
    session: onnxruntime.InferenceSession,
    texts: list[Any],
    batch_size: int,
) -> dict[str, Any]:
    """Time the contenders round by round."""
    criterion = classifier.speed_for(max_drop=MAX_DROP).criterion
    assert isinstance(criterion, ThresholdCriterion)
    batches = [batch for _, batch in classifier.batches(classifier.encode(texts), batch_size)]

    def adaptive(speed: np.ndarray) -> Callable[[TokenBatch], np.ndarray]:
        names = [item.name for item in session.get_inputs()]

        def run(batch: TokenBatch) -> np.ndarray:
            feeds = batch.arrays | {"speed": speed}
            return np.asarray(session.run(None, {name: feeds[name] for name in names})[1])

        return run

    contenders: dict[str, Callable[[TokenBatch], np.ndarray]] = {
        "plain": lambda batch: (
            classify(classifier.backend, batch, EntropyCriterion(0.0)).exit_layer
        ),
        "speed 0": adaptive(np.zeros(1, np.float32)),
        "thresholds": adaptive(np.array(criterion.thresholds, np.float32)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    exit_layers = np.empty(0)
    order = list(contenders)
    for turn in range(ROUNDS + 1):
        random.Random(turn).shuffle(order)
        for name in order:
            start = time.perf_counter()
            answers = [contenders[name](batch) for batch in batches]
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
            if name == "thresholds":
                exit_layers = np.concatenate(answers)
    engine = np.concatenate(
        [classify(classifier.backend, b, criterion).exit_layer for b in batches]
    )
    tokens = np.concatenate([batch.attention_mask.sum(axis=1) for batch in batches])
    layers = classifier.num_layers
    by_rows, by_tokens = (
        layers / exit_layers.mean(),
        layers / np.average(exit_layers, weights=tokens),
    )
    ours = np.array(seconds["thresholds"])
    speedups = {
        name: float(np.median(np.array(seconds[name]) / ours)) for name in ("plain", "speed 0")
    }
    return {
        "exit_layers_unlike_engine": int((engine != exit_layers).sum()),
        "mean_exit_layer": float(exit_layers.mean()),
        "saving_by_rows": float(by_rows),
        "saving_by_tokens": float(by_tokens),
        **{f"speedup_over_{name}": value for name, value in speedups.items()},
        **{f"share_over_{name}": value / by_rows for name, value in speedups.items()},
        **{f"share_over_{name}_by_tokens": value / by_tokens for name, value in speedups.items()},
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
