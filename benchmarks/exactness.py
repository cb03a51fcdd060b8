"""Whether a row's answer depends on its batch: 1,000 real rows alone and in batches of all sizes.

    python benchmarks/exactness.py MODEL DATASET

Also compares speed 0 with the plain Hugging Face model, and that model with itself: what it differs
between batches of 1 and of more is the rounding that nobody who uses float32 escapes.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import SHARED, require_shared, write_result
from transformers import AutoModelForSequenceClassification

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion, log_softmax
from fastbert.exits.engine import ExitResult
from fastbert.nn.backend import batch_tensors

ROWS = 1_000
SPEEDS = (0.2, 0.5)
BATCH_SIZES = (2, 3, 7, 32, 64)


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset")
    options = parser.parse_args()
    require_shared()
    rows = load_examples(
        SHARED / "data" / options.dataset / "test.parquet", Columns(), needs_label=True
    )
    texts = [row.content for row in rows[:ROWS]]
    classifier = FastBertClassifier.from_pretrained(options.model, device="cpu")
    comparisons = []
    for speed in SPEEDS:
        criterion = EntropyCriterion(speed)
        alone = classifier.classify(texts, criterion, 1)
        for batch_size in BATCH_SIZES:
            order = random.Random(batch_size).sample(range(len(texts)), len(texts))
            together = classifier.classify([texts[row] for row in order], criterion, batch_size)
            comparisons.append(
                {"speed": speed, "batch_size": batch_size} | differences(together, alone, order)
            )
            print(comparisons[-1], flush=True)
    write_result(
        f"exactness_{options.dataset}",
        {
            "dataset": options.dataset,
            "rows": len(texts),
            "against_one_at_a_time": comparisons,
            "speed_0_against_plain": against_plain(classifier, texts),
        },
    )


def differences(together: ExitResult, alone: ExitResult, order: list[int]) -> dict[str, Any]:
    """Count the rows whose label or exit layer differs; the largest difference of a probability."""
    probabilities = np.exp(log_softmax(together.logits)) - np.exp(log_softmax(alone.logits[order]))
    return {
        "labels_differ": int((together.logits.argmax(-1) != alone.logits[order].argmax(-1)).sum()),
        "exit_layers_differ": int((together.exit_layer != alone.exit_layer[order]).sum()),
        "max_probability_difference": float(np.abs(probabilities).max()),
    }


def against_plain(classifier: FastBertClassifier, texts: list[Any]) -> dict[str, float]:
    """Compare probabilities of speed 0 and of the plain model, and of that with itself."""
    plain = AutoModelForSequenceClassification.from_pretrained(classifier.folder.path).eval()
    tokens = classifier.encode(texts)

    @torch.inference_mode()
    def run(batch_size: int) -> np.ndarray:
        probabilities = np.empty((len(texts), len(classifier.labels)))
        for rows, batch in classifier.batches(tokens, batch_size):
            probabilities[rows] = plain(**batch_tensors(batch)).logits.softmax(-1).numpy()
        return probabilities

    in_batches = {batch_size: run(batch_size) for batch_size in (1, 3, 32)}
    ours = classifier.predict_proba(texts, speed=0.0, batch_size=32)
    return {
        "ours_against_plain": float(np.abs(ours - in_batches[32]).max()),
        "plain_1_against_plain_3": float(np.abs(in_batches[1] - in_batches[3]).max()),
        "plain_1_against_plain_32": float(np.abs(in_batches[1] - in_batches[32]).max()),
    }


if __name__ == "__main__":
    main()
