"""Whether a row's answer depends on its batch: 1,000 real rows alone and in batches of all sizes.

    python benchmarks/exactness.py MODEL DATASET

Also compares speed 0 with the plain Hugging Face model.
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
from fastbert.criteria import EntropyCriterion, log_softmax
from fastbert.data import Columns, load_examples
from fastbert.engine import ExitResult
from fastbert.nn.backend import batch_tensors

ROWS = 1_000
BATCH_SIZES = (2, 3, 7, 16, 32, 33, 64)


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
    for speed in (classifier.recommended_speed, 0.5):
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
            "speed_0_against_plain_max_logit_difference": against_plain(classifier, texts),
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


@torch.inference_mode()
def against_plain(classifier: FastBertClassifier, texts: list[Any]) -> float:
    """Return the largest difference of a logit from the plain model on the same batches."""
    plain = AutoModelForSequenceClassification.from_pretrained(classifier.folder.path).eval()
    ours = classifier.classify(texts, EntropyCriterion(0.0), 32).logits
    worst = 0.0
    for rows, batch in classifier.batches(classifier.encode(texts), 32):
        logits = plain(**batch_tensors(batch)).logits.numpy()
        worst = max(worst, float(np.abs(logits - ours[rows]).max()))
    return worst


if __name__ == "__main__":
    main()
