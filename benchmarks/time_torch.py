"""How much of the layer saving shows in time: the plain model against FastBERT, in torch.

    python benchmarks/time_torch.py MODEL DATASET --threads 1

Real test rows at their real lengths, tokenised before the clock starts (tokenising is the same
for both and is timed beside them). The contenders take turns, round by round in an order that
changes, so that a noisy machine hits all of them; each round and each batch gives a paired ratio.
Turns are not shorter than a round because in use a model has the caches to itself: taking turns
batch by batch, the weights of one contender push out those of the other.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import SHARED, require_shared, write_result
from transformers import AutoModelForSequenceClassification

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import classify
from fastbert.nn.backend import batch_tensors

ROUNDS = 3


def main() -> None:
    """Time batches of 1 and of 32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speed", type=float, default=0.5)
    options = parser.parse_args()
    require_shared()
    torch.set_num_threads(options.threads)
    rows = load_examples(
        SHARED / "data" / options.dataset / "test.parquet", Columns(), needs_label=True
    )
    texts = [row.content for row in rows]
    random.Random(0).shuffle(texts)
    classifier = FastBertClassifier.from_pretrained(options.model, device="cpu")
    speed = options.speed
    write_result(
        f"time_torch_{options.dataset}_{options.threads}_threads",
        {
            "dataset": options.dataset,
            "threads": options.threads,
            "speed": speed,
            "batches": [
                time_batches(classifier, texts[:count], batch_size, speed)
                for batch_size, count in ((1, 100), (32, 320))
            ],
        },
    )


def time_batches(
    classifier: FastBertClassifier, texts: list[Any], batch_size: int, speed: float
) -> dict[str, Any]:
    """Time the plain model, speed 0 and the chosen speed on the same batches, taking turns."""
    plain = AutoModelForSequenceClassification.from_pretrained(classifier.folder.path).eval()
    layers: list[np.ndarray] = []

    @torch.inference_mode()
    def run_plain(batch: Any) -> None:
        plain(**batch_tensors(batch)).logits.numpy()

    def run_full(batch: Any) -> None:
        classify(classifier.backend, batch, EntropyCriterion(0.0))

    def run_adaptive(batch: Any) -> None:
        layers.append(classify(classifier.backend, batch, EntropyCriterion(speed)).exit_layer)

    runs: dict[str, Callable[[Any], None]] = {
        "plain": run_plain,
        "speed 0": run_full,
        "adaptive": run_adaptive,
    }
    start = time.perf_counter()
    tokens = classifier.encode(texts)
    batches = [batch for _, batch in classifier.batches(tokens, batch_size)]
    tokenising = time.perf_counter() - start
    for batch in batches[:3]:
        for run in runs.values():
            run(batch)
    layers.clear()

    seconds = {name: np.full((ROUNDS, len(batches)), np.nan) for name in runs}
    order = list(runs)
    shuffler = random.Random(1)
    for turn in range(ROUNDS):
        shuffler.shuffle(order)
        for name in order:
            for number, batch in enumerate(batches):
                begin = time.perf_counter()
                runs[name](batch)
                seconds[name][turn, number] = time.perf_counter() - begin

    per_round = {name: values.sum(axis=1) for name, values in seconds.items()}
    exits = layers[: len(batches)]
    tokens_of = [batch.attention_mask.sum(axis=1) for batch in batches]
    row_saving = classifier.num_layers / float(np.concatenate(exits).mean())
    token_saving = classifier.num_layers / float(
        np.average(np.concatenate(exits), weights=np.concatenate(tokens_of))
    )
    # Within a batch the saving is known exactly; long texts weigh more in the sums of times.
    batch_savings = np.array([classifier.num_layers / exit_layer.mean() for exit_layer in exits])
    paired = np.median(seconds["plain"] / seconds["adaptive"], axis=0) / batch_savings
    speedups = per_round["plain"] / per_round["adaptive"]
    speedup = float(np.median(speedups))
    result = {
        "batch_size": batch_size,
        "rows": len(texts),
        "layer_saving": row_saving,
        "layer_saving_by_tokens": token_saving,
        "speedup": speedup,
        "speedup_rounds": speedups.tolist(),
        "speedup_over_saving": speedup / row_saving,
        "speedup_over_saving_by_tokens": speedup / token_saving,
        "speedup_over_saving_paired_batches": float(np.median(paired)),
        "speed_0_over_plain": float(np.median(per_round["speed 0"] / per_round["plain"])),
        "speed_0_over_plain_paired_batches": float(
            np.median(seconds["speed 0"] / seconds["plain"])
        ),
        "seconds_per_round": {name: values.tolist() for name, values in per_round.items()},
        "tokenising_seconds": tokenising,
    }
    for key, value in result.items():
        if key.startswith(("layer", "speed")) and isinstance(value, float):
            print(f"batch {batch_size}: {key} {value:.3f}")
    return result


if __name__ == "__main__":
    main()
