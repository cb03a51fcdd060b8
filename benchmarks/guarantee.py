"""Whether promises hold: random splits of recorded rows, and simulated rows with known truth.

    python benchmarks/guarantee.py [--splits 1000]

Each time 1,000 calibration rows are drawn, goals with a confidence of 95 % are solved, and it is
seen what happens to rows that were not drawn. A promise is about the distribution that rows come
from, so a split breaks it a little too often: the rows that are left are only a sample as well.
Drawn with replacement, the data set itself is the distribution, and its mean loss the truth. The
simulated set has fresh rows each time and 200,000 to know the truth from.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from machine import write_result
from recorded import recorded_runs, shape_of, task_of
from tqdm import tqdm

from fastbert.calibration.goal import Goal, Metric
from fastbert.calibration.path import exit_layers_at
from fastbert.calibration.solve import EQUAL_THRESHOLDS, Calibration
from fastbert.exits.measures import MaxProbability
from fastbert.exits.recorded import RecordedExits

DATASETS = ("sst2", "book_review", "banking77")
CALIBRATION_ROWS, CONFIDENCE = 1_000, 0.95
BOUNDS: dict[Metric, tuple[float, ...]] = {
    "accuracy": (0.01, 0.02, 0.05),
    "agreement": (0.01, 0.02, 0.05),
}
SIMULATED_TRUTH = 200_000


@dataclass(frozen=True)
class Pool:
    """Rows to draw from, and how: a `split`, with `replacement`, or `fresh` ones."""

    name: str
    rows: Calibration
    draw: Literal["split", "replacement", "fresh"]

    def calibration_and_truth(self, random: np.random.Generator) -> tuple[Calibration, np.ndarray]:
        """Draw calibration rows, and return which rows of the pool tell the truth."""
        everyone = np.arange(self.rows.recorded.num_rows)
        match self.draw:
            case "fresh":
                return simulated(random, CALIBRATION_ROWS), everyone
            case "replacement":
                return take(self.rows, random.choice(everyone, CALIBRATION_ROWS)), everyone
            case "split":
                order = random.permutation(everyone)
                return take(self.rows, order[:CALIBRATION_ROWS]), order[CALIBRATION_ROWS:]


def main() -> None:
    """Split, solve and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=1_000)
    options = parser.parse_args()
    results = []
    for pool in pools():
        for metric, bounds in BOUNDS.items():
            for bound in bounds:
                goal = Goal(max_drop=bound, metric=metric, confidence=CONFIDENCE)
                named = {"dataset": pool.name, "draw": pool.draw}
                results.append(named | judge(pool, goal, metric, options.splits))
                print(results[-1], flush=True)
    write_result(
        "guarantee",
        {"splits": options.splits, "calibration_rows": CALIBRATION_ROWS, "results": results},
    )


def pools() -> Iterator[Pool]:
    """Yield dev and test together of each data set, first seed, and the simulated set."""
    for run in recorded_runs():
        if run.dataset in DATASETS and run.seed == 42:
            yield Pool(run.dataset, joined(run.dev, run.test), "split")
            yield Pool(run.dataset, joined(run.dev, run.test), "replacement")
    yield Pool("simulated", simulated(np.random.default_rng(1), SIMULATED_TRUTH), "fresh")


def joined(one: Calibration, other: Calibration) -> Calibration:
    """Return the rows of both."""
    assert one.truth is not None
    assert other.truth is not None
    return Calibration(
        RecordedExits(np.concatenate([one.recorded.recorded, other.recorded.recorded], axis=1)),
        np.concatenate([one.truth, other.truth]),
        np.concatenate([one.lengths, other.lengths]),
        one.shape,
        one.task,
        MaxProbability(),
    )


def simulated(random: np.random.Generator, rows: int) -> Calibration:
    """Return rows of three classes, some hard, that later exits tell apart better."""
    classes, exits = 3, 12
    truth = random.integers(classes, size=rows)
    ease = random.gamma(2.0, 1.0, size=rows)
    skill = np.linspace(0.4, 1.6, exits)[:, None] * ease
    noise = random.normal(size=(rows, classes)) + 0.7 * random.normal(size=(exits, rows, classes))
    logits = noise + skill[..., None] * 2 * np.eye(classes)[truth]
    shape = shape_of(classes)
    recorded, lengths = RecordedExits(logits.astype(np.float32)), np.full(rows, 30)
    return Calibration(recorded, truth, lengths, shape, task_of(classes), MaxProbability())


def judge(pool: Pool, goal: Goal, metric: Metric, splits: int) -> dict[str, Any]:
    """Return how often a promise was broken, and how much of the possible saving was had."""
    assert goal.max_drop is not None
    drops, layers = drops_and_layers(pool.rows, metric)  # for each equal threshold and row
    mean_drop, mean_layers = drops.mean(axis=1), layers.mean(axis=1)
    full = pool.rows.shape.num_layers
    broken, beyond, saved, best = 0, [], [], []
    for seed in tqdm(range(splits), desc=f"{pool.name} {metric} {goal.max_drop}", disable=None):
        rows, tested = pool.calibration_and_truth(np.random.default_rng(seed))
        thresholds = rows.solve(goal).thresholds
        number = int(np.flatnonzero(EQUAL_THRESHOLDS.astype(np.float32) == thresholds[0])[0])
        if len(tested) < len(drops[0]):
            drop, mean = drops[:, tested].mean(axis=1), layers[:, tested].mean(axis=1)
        else:
            drop, mean = mean_drop, mean_layers
        broken += bool(drop[number] > goal.max_drop)
        beyond.append(drop[number])
        saved.append(full - mean[number])
        best.append(full - mean[drop <= goal.max_drop].min())
    rate = broken / splits
    return {
        "metric": metric,
        "bound": goal.max_drop,
        "confidence": CONFIDENCE,
        "violations": rate,
        "allowed": 1 - CONFIDENCE + 2 * (CONFIDENCE * (1 - CONFIDENCE) / splits) ** 0.5,
        "mean_drop": float(np.mean(beyond)),
        "layers_saved": float(np.mean(saved)),
        "layers_saved_in_hindsight": float(np.mean(best)),
        "share_of_hindsight": float(np.mean(saved) / np.mean(best)),
    }


def take(rows: Calibration, chosen: np.ndarray) -> Calibration:
    """Return the chosen rows; labels may miss a class, which a promise does not mind."""
    assert rows.truth is not None
    kept = RecordedExits(rows.recorded.recorded[:, chosen])
    return Calibration(
        kept, rows.truth[chosen], rows.lengths[chosen], rows.shape, rows.task, MaxProbability()
    )


def drops_and_layers(rows: Calibration, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's loss against the teacher and its exit layer, at each equal threshold."""
    answers = rows.recorded.recorded.argmax(axis=-1)
    truth = answers[-1] if metric == "agreement" else rows.truth
    wrong = (answers != truth).astype(np.int8)
    everyone = np.arange(wrong.shape[1])
    drops, layers = [], []
    for threshold in EQUAL_THRESHOLDS.astype(np.float32):
        exits = exit_layers_at(rows.doubts, np.full(len(rows.doubts), threshold))
        drops.append(wrong[exits - 1, everyone] - wrong[-1])
        layers.append(exits.astype(np.int8))
    return np.stack(drops), np.stack(layers)


if __name__ == "__main__":
    main()
