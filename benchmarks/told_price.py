"""What it changes to tell the thresholds what an exit costs in time, where dev is small.

    OMP_NUM_THREADS=1 python benchmarks/told_price.py [--splits 4]

Of each recorded set, dev and test together, so many rows are drawn as a dev. At most 0.5 points are
asked for on them, once for each price of an exit, in layers; all other rows judge what is lost, and
how much faster that is if an exit truly costs so much. Writes `results/told_price.json` and prints
the table of decision 28.
"""

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from machine import write_result
from recorded import Run, recorded_runs

from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.goal import Goal
from fastbert.calibration.path import exit_layers_at
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES
from fastbert.exits.recorded import RecordedExits

DEV_ROWS = 872  # as many as sst2 has
ASKED = Goal(max_drop=0.005)
TOLD = (None, 0.05, 0.1, 0.15, 0.2, 0.3)  # in layers; None for the price by FLOPs
TRUE = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Shown:
    """What one solved setting gives on rows that had no part in it."""

    lost: float
    exits: int
    speedups: tuple[float, ...]  # for each of `TRUE`


def main() -> None:
    """Solve, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=4)
    options = parser.parse_args()
    found = []
    for run in recorded_runs():
        for split in range(options.splits):
            dev, rest = halves(run, split)
            for told in TOLD:
                shown = judged(rest, solved(dev, told))
                facts = {"dataset": run.dataset, "seed": run.seed, "split": split, "told": told}
                found.append(facts | vars(shown))
        print(run.dataset, run.seed, flush=True)
    write_result("told_price", {"rows": DEV_ROWS, "true": TRUE, "found": found})
    print(markdown(found))


def halves(run: Run, split: int) -> tuple[Calibration, Calibration]:
    """Return drawn rows to solve on, and all others."""
    logits = np.concatenate([run.dev.recorded.recorded, run.test.recorded.recorded], axis=1)
    truth = np.concatenate([run.dev.truth, run.test.truth])
    lengths = np.concatenate([run.dev.lengths, run.test.lengths])
    order = np.random.default_rng([split, run.seed]).permutation(len(truth))
    measure = MEASURES[DEFAULT_MEASURE]()
    dev, rest = (
        Calibration(
            RecordedExits(logits[:, rows]), truth[rows], lengths[rows],
            run.dev.shape, run.dev.task, measure,
        )
        for rows in (order[:DEV_ROWS], order[DEV_ROWS:])
    )  # fmt: skip
    return dev, rest


def solved(dev: Calibration, told: float | None) -> OperatingPoint:
    """Return the setting for a goal if an exit is said to cost so much of a layer."""
    if told is not None:
        dev = replace(dev, times=PartTimes(start=0.0, layer=1.0, student=told, teacher=0.0))
    return dev.solve(ASKED)


def judged(rest: Calibration, point: OperatingPoint) -> Shown:
    """Return what a setting gives on other rows."""
    thresholds = np.array(point.thresholds, rest.doubts.dtype)
    layers = exit_layers_at(rest.doubts, thresholds)
    given = rest.answers[layers - 1, np.arange(len(layers))]
    asked_before = np.concatenate([[0], np.cumsum(thresholds > 0)])  # by the end of each layer
    exits = asked_before[np.minimum(layers, len(thresholds))]
    full = rest.shape.num_layers * rest.lengths.sum()
    return Shown(
        lost=float(np.mean(rest.answers[-1] == rest.truth) - np.mean(given == rest.truth)),
        exits=int(asked_before[-1]),
        speedups=tuple(
            float(full / ((layers + price * exits) * rest.lengths).sum()) for price in TRUE
        ),
    )


def markdown(found: list[dict[str, Any]]) -> str:
    """Return a row for each price, of means over sets, seeds and splits."""
    lines = [
        "| price told | points lost | exits asked | " + " | ".join(map(str, TRUE)) + " |",
        "| ---: | ---: | ---: |" + " ---: |" * len(TRUE),
    ]
    for told in TOLD:
        rows = [each for each in found if each["told"] == told]
        lost = 100 * np.mean([each["lost"] for each in rows])
        exits = np.mean([each["exits"] for each in rows])
        speedups = np.exp(np.log([each["speedups"] for each in rows]).mean(axis=0))
        name = "by FLOPs" if told is None else f"{told:g}"
        cells = [name, f"{lost:.2f}", f"{exits:.1f}", *(f"{each:.2f}" for each in speedups)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
