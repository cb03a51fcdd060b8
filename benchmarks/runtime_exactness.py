"""Whether exports answer as torch does, on whole test sets, and how much int8 and bf16 lose.

    python benchmarks/runtime_exactness.py DATASET MODEL EXPORT …

MODEL is a calibrated folder, each EXPORT a copy of it with one export. Labels are compared at speed
0, labels and exit layers at the paper's 0.5 and at the thresholds for half a point on dev. Rows
that leave elsewhere are listed with the distance of their doubt from the nearest threshold. The
last column is the largest difference of a logit between rows alone and in batches.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from machine import SHARED, require_shared, write_result

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.export.parity import NEAR, threshold_distance
from fastbert.folder.export import open_export

SPEED, MAX_DROP = 0.5, 0.005
ALONE = 300  # rows answered one by one


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("model", type=Path)
    parser.add_argument("exports", type=Path, nargs="+")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    require_shared()
    rows = load_examples(
        SHARED / "data" / options.dataset / "test.parquet", Columns(), needs_label=True
    )[: options.rows]
    texts = [row.content for row in rows]
    original = FastBertClassifier.from_pretrained(options.model, runtime="torch")
    truth = np.array([original.labels.index(row.label or "") for row in rows])
    criteria: dict[str, ExitCriterion] = {
        f"speed {SPEED}": EntropyCriterion(SPEED),
        f"max_drop {MAX_DROP}": original.speed_for(max_drop=MAX_DROP).criterion,
    }
    recorded = original.record(texts)
    comparisons = []
    for path in options.exports:
        runtime: Any = next(name for name in ("openvino", "onnx") if (path / name).is_dir())
        classifier = FastBertClassifier.from_pretrained(path, runtime=runtime)
        precision = open_export(classifier.folder, runtime).precision
        full = classifier.classify(texts, EntropyCriterion(0.0)).logits
        comparison = {
            "runtime": runtime,
            "precision": precision,
            "accuracy_torch": accuracy(recorded.recorded[-1], truth),
            "accuracy": accuracy(full, truth),
            "labels_differ": int((full.argmax(-1) != recorded.recorded[-1].argmax(-1)).sum()),
            "max_logit_difference": float(np.abs(full - recorded.recorded[-1]).max()),
            "alone_against_batches": alone_against_batches(classifier, texts[:ALONE]),
        }
        for name, criterion in criteria.items():
            comparison[name] = against(classifier, texts, recorded, criterion, truth)
        comparisons.append(comparison)
        print(comparison, flush=True)
    write_result(
        f"runtime_exactness_{options.dataset}",
        {"dataset": options.dataset, "rows": len(texts), "comparisons": comparisons},
    )


def accuracy(logits: np.ndarray, truth: np.ndarray) -> float:
    return float((logits.argmax(-1) == truth).mean())


def against(
    classifier: FastBertClassifier,
    texts: list[Any],
    recorded: RecordedExits,
    criterion: ExitCriterion,
    truth: np.ndarray,
) -> dict[str, Any]:
    """Compare answers at a setting; list the rows that leave elsewhere."""
    theirs, ours = recorded.replay(criterion), classifier.classify(texts, criterion)
    distances = threshold_distance(recorded, criterion)
    elsewhere = np.flatnonzero(theirs.exit_layer != ours.exit_layer)
    same = theirs.exit_layer == ours.exit_layer
    labels_differ = ours.logits.argmax(-1) != theirs.logits.argmax(-1)
    return {
        "accuracy_torch": accuracy(theirs.logits, truth),
        "accuracy": accuracy(ours.logits, truth),
        "mean_exit_layer_torch": float(theirs.exit_layer.mean()),
        "mean_exit_layer": float(ours.exit_layer.mean()),
        "labels_differ": int(labels_differ.sum()),
        "labels_differ_at_the_same_exit": int((labels_differ & same).sum()),
        "exit_layers_differ": len(elsewhere),
        "of_them_farther_than_near": int((distances[elsewhere] >= NEAR).sum()),
        "rows": [
            {"row": int(row), "distance": float(distances[row])}
            for row in elsewhere[np.argsort(distances[elsewhere])][:20]
        ],
    }


def alone_against_batches(classifier: FastBertClassifier, texts: list[Any]) -> float:
    alone, together = (
        classifier.classify(texts, EntropyCriterion(0.0), size).logits for size in (1, 32)
    )
    return float(np.abs(alone - together).max())


if __name__ == "__main__":
    main()
