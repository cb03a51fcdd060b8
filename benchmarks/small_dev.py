"""How often a goal chosen on a small dev loses more than was asked, and what that care costs.

    OMP_NUM_THREADS=1 python benchmarks/small_dev.py WORK --splits 1000

Of each recorded set, dev and test together, so many rows are drawn as a dev: split i of seed
i modulo 3. `max_drop` is solved on them and judged on all the others, as it is and without the care
for few rows. What a split showed is kept in WORK, so that a stopped run goes on and other
rules can be tried without drawing again. Writes `results/small_dev.json` and prints the table.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from recorded import Run, recorded_runs

from fastbert.calibration import RecordedExits
from fastbert.criteria import log_softmax
from fastbert.goals import allowed_drop, doubts_of, overlooked_drop
from fastbert.measures import DEFAULT_MEASURE, MEASURES
from fastbert.thresholds import RowCosts, threshold_path

SIZES = (500, 872, 1_000)
ASKED = (0.005, 0.01)
OVER = 0.003  # more than this above what was asked is too much


def main() -> None:
    """Draw, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--splits", type=int, default=1_000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pools: dict[str, list[dict[str, Any]]] = {}
    for run in recorded_runs():
        pools.setdefault(run.dataset, []).append(pool_of(run))
    for split in range(options.splits):
        for dataset, seeds in pools.items():
            for size in SIZES:
                path = options.work / f"{dataset}_{size}_{split}.npz"
                if not path.exists():
                    dev, rest = settings_of(seeds[split % len(seeds)], dataset, size, split)
                    np.savez(path, d=dev.astype(np.float32), r=rest.astype(np.float32))
    cells = [
        judged(options.work, dataset, size, asked, options.splits)
        for dataset in pools
        for size in SIZES
        for asked in ASKED
    ]
    write_result("small_dev", {"over": OVER, "cells": cells})
    print(markdown(cells))


def pool_of(run: Run) -> dict[str, Any]:
    """Return what dev and test together say of each exit's answers."""
    logits = np.concatenate([run.dev.recorded.recorded, run.test.recorded.recorded], axis=1)
    truth = np.concatenate([run.dev.truth, run.test.truth])
    lengths = np.concatenate([run.dev.lengths, run.test.lengths])
    answers = logits.argmax(axis=-1)
    teacher = np.exp(log_softmax(logits[-1])).astype(np.float64)
    return {
        "doubts": doubts_of(MEASURES[DEFAULT_MEASURE](), RecordedExits(logits)),
        "believed": np.stack([teacher[np.arange(len(teacher)), answer] for answer in answers]),
        "wrong": (answers != truth).astype(np.float64),
        "changed": (answers != answers[-1]).astype(np.float64),
        "layer": run.dev.shape.layer_flops(lengths).astype(np.float64),
        "student": run.dev.shape.student_flops(lengths).astype(np.float64),
    }


def settings_of(
    pool: dict[str, Any], dataset: str, size: int, split: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each setting of the path drawn on a dev what it gives there and elsewhere.

    These are the shares answered worse, answered better, expected to be lost by the teacher (and
    its square), changed, and the layers; elsewhere without what the teacher expects.
    """
    rows = pool["doubts"].shape[1]
    order = np.random.default_rng([split, size, len(dataset)]).permutation(rows)
    dev, rest = order[:size], order[size:]
    costs = RowCosts(pool["layer"][dev], pool["student"][dev])
    path = threshold_path(pool["doubts"][:, dev], 1 - pool["believed"][:, dev], costs)
    worse = np.maximum(pool["wrong"] - pool["wrong"][-1], 0)
    better = np.maximum(pool["wrong"][-1] - pool["wrong"], 0)
    expected = pool["believed"][-1] - pool["believed"]
    layers = np.repeat(np.arange(1.0, len(worse) + 1)[:, None], rows, axis=1)
    here = (worse, better, expected, expected**2, pool["changed"], layers)
    there = (worse, better, pool["changed"], layers)
    return tuple(  # type: ignore[return-value]  # two arrays
        along(path, pool["doubts"][:, chosen], [value[:, chosen] for value in values]) / len(chosen)
        for chosen, values in ((dev, here), (rest, there))
    )


def along(path: np.ndarray, doubts: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """Return the sums of values at the exits where rows leave, for all settings at once.

    Thresholds only rise along the path, so a row leaves an exit from one setting on until an
    earlier exit takes it.
    """
    points = len(path)
    until = np.full(doubts.shape[1], points)
    steps = np.zeros((len(values), points + 1))
    for exit_, doubt in enumerate(doubts):
        since = np.minimum(np.searchsorted(path[:, exit_], doubt, side="right"), until)
        for step, value in zip(steps, values, strict=True):
            step += np.bincount(since, value[exit_], minlength=points + 1)
            step -= np.bincount(until, value[exit_], minlength=points + 1)
        until = since
    for step, value in zip(steps, values, strict=True):
        step[0] += value[-1].sum()
        step -= np.bincount(until, value[-1], minlength=points + 1)
    return np.asarray(steps.cumsum(axis=1)[:, :points])


def judged(work: Path, dataset: str, size: int, asked: float, splits: int) -> dict[str, Any]:
    """Return how often the drop on the rest is too large, and the layers that rows run there."""
    lost: dict[str, list[float]] = {"before": [], "after": []}
    layers: dict[str, list[float]] = {"before": [], "after": []}
    found = [path for k in range(splits) if (path := work / f"{dataset}_{size}_{k}.npz").exists()]
    for path in found:
        with np.load(path) as arrays:
            (worse, better, expected, _, changed, _), rest = arrays["d"], arrays["r"]
        measured = (worse - better).astype(np.float64)
        counted = measured + overlooked_drop(measured, expected, changed, size)
        allowed = allowed_drop(asked, size)
        for rule, good in (
            ("before", measured <= asked + 1e-8),
            ("after", counted <= allowed + 1e-8),
        ):
            setting = np.flatnonzero(good)[-1]  # the path rises in speed
            lost[rule].append(float(rest[0, setting] - rest[1, setting]))
            layers[rule].append(float(rest[3, setting]))
    cell: dict[str, Any] = {"dataset": dataset, "dev": size, "asked": asked, "splits": len(found)}
    for rule in lost:
        cell[rule] = {
            "too_much": float(np.mean(np.array(lost[rule]) > asked + OVER)),
            "mean_lost": float(np.mean(lost[rule])),
            "layers": float(np.mean(layers[rule])),
        }
    return cell


def markdown(cells: list[dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        "| data | dev | asked | too much | after | lost | after | layers | after |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cell in cells:
        before, after = cell["before"], cell["after"]
        lines.append(
            f"| {cell['dataset']} | {cell['dev']:,} | {100 * cell['asked']:.1f} | "
            f"{100 * before['too_much']:.1f} % | {100 * after['too_much']:.1f} % | "
            f"{100 * before['mean_lost']:.2f} | {100 * after['mean_lost']:.2f} | "
            f"{before['layers']:.2f} | {after['layers']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
