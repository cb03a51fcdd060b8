"""How often a goal chosen on a small dev loses more than was asked, and what that care costs.

    OMP_NUM_THREADS=1 python benchmarks/small_dev.py WORK --first 1000 --splits 1000 --processes 2

Of each recorded set, dev and test together, so many rows are drawn as a dev: split i of seed
i modulo 3. `max_drop` is solved on them and judged on all the others, as it is and without the care
for few rows; by accuracy, and for the first splits by agreement, as where nobody labelled the rows.
What a split showed is kept in WORK, so that a stopped run goes on. The rule was chosen on splits
below 1,000, so later ones judge it. Writes `results/small_dev.json` and prints the tables.
"""

import argparse
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from recorded import recorded_runs

from fastbert.calibration.goal import Goal
from fastbert.calibration.path import RowCosts, exit_layers_at, threshold_path
from fastbert.calibration.solve import Calibration, allowed_drop, overlooked_drop
from fastbert.exits.criteria import log_softmax
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES, MaxProbability
from fastbert.exits.recorded import RecordedExits, doubts_of

SIZES = (500, 872, 1_000)
ASKED = (0.005, 0.01)
RULES = ("before", "after")  # without care for few rows, and with it
OVER = 0.003  # more than this above what was asked is too much
RUNS = list(recorded_runs())


def main() -> None:
    """Draw, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--first", type=int, default=1_000)
    parser.add_argument("--splits", type=int, default=1_000)
    parser.add_argument("--agreement-splits", type=int, default=300)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    splits = range(options.first, options.first + options.splits)
    by_agreement = splits[: options.agreement_splits]
    with Pool(options.processes) as pool:
        for number, _ in enumerate(pool.imap_unordered(partial(draw, options.work), splits)):
            print(f"{number + 1} of {len(splits)} by accuracy", end="\r", flush=True)
        work = partial(draw_by_agreement, options.work)
        for number, _ in enumerate(pool.imap_unordered(work, by_agreement)):
            print(f"{number + 1} of {len(by_agreement)} by agreement", end="\r", flush=True)
    names = sorted({run.dataset for run in RUNS})
    cases = [(name, size, asked) for name in names for size in SIZES for asked in ASKED]
    accuracy = [judged(options.work, *case, splits) for case in cases]
    agreement = [judged_by_agreement(options.work, *case, by_agreement) for case in cases]
    write_result("small_dev", {"over": OVER, "accuracy": accuracy, "agreement": agreement})
    print(markdown(accuracy), markdown(agreement), sep="\n\n")


def draw(work: Path, split: int) -> None:
    """Write what a split shows of each set and size, unless it lies there already."""
    for number in _runs(split):
        dataset = RUNS[number].dataset
        for size in SIZES:
            path = work / f"{dataset}_{size}_{split}.npz"
            if not path.exists():
                dev, rest = settings_of(pool_of(number), dataset, size, split)
                np.savez(path, d=dev.astype(np.float32), r=rest.astype(np.float32))


def draw_by_agreement(work: Path, split: int) -> None:
    """Solve goals on rows without labels, as they are and without care, and write what comes."""
    for number in _runs(split):
        run, dataset = RUNS[number], RUNS[number].dataset
        logits = np.concatenate([run.dev.recorded.recorded, run.test.recorded.recorded], axis=1)
        lengths = np.concatenate([run.dev.lengths, run.test.lengths])
        doubts = doubts_of(MEASURES[DEFAULT_MEASURE](), RecordedExits(logits))
        answers = logits.argmax(axis=-1)
        for size in SIZES:
            path = work / f"{dataset}_{size}_{split}_agreement.npy"
            if path.exists():
                continue
            order = np.random.default_rng([split, size, len(dataset)]).permutation(len(lengths))
            dev, rest = order[:size], order[size:]
            kept, shape = RecordedExits(logits[:, dev]), run.dev.shape
            case = Calibration(kept, None, lengths[dev], shape, run.dev.task, MaxProbability())
            shown = []
            for asked in ASKED:
                plain = min(
                    (point for point in case.points if 1 - point.agreement <= asked + 1e-9),
                    key=lambda point: point.flops,
                )
                for point in (plain, case.solve(Goal(max_drop=asked))):
                    thresholds = np.array(point.thresholds, doubts.dtype)
                    layers = exit_layers_at(doubts[:, rest], thresholds)
                    given = answers[:, rest][layers - 1, np.arange(len(rest))]
                    shown.append(((given != answers[-1, rest]).mean(), layers.mean()))
            np.save(path, np.array(shown))


def _runs(split: int) -> list[int]:
    """Return the recording of each set whose seed a split is of."""
    seeds: dict[str, list[int]] = {}
    for number, run in enumerate(RUNS):
        seeds.setdefault(run.dataset, []).append(number)
    return [numbers[split % len(numbers)] for numbers in seeds.values()]


@cache
def pool_of(number: int) -> dict[str, Any]:
    """Return what dev and test of a recording together say of each exit's answers."""
    run = RUNS[number]
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

    These are the shares answered worse, answered better, expected to be lost by the teacher,
    changed, and the layers; elsewhere worse, better and the layers.
    """
    rows = pool["doubts"].shape[1]
    order = np.random.default_rng([split, size, len(dataset)]).permutation(rows)
    dev, rest = order[:size], order[size:]
    costs = RowCosts(pool["layer"][dev], pool["student"][:, dev])
    path = threshold_path(pool["doubts"][:, dev], 1 - pool["believed"][:, dev], costs)
    worse = np.maximum(pool["wrong"] - pool["wrong"][-1], 0)
    better = np.maximum(pool["wrong"][-1] - pool["wrong"], 0)
    expected = pool["believed"][-1] - pool["believed"]
    layers = np.repeat(np.arange(1.0, len(worse) + 1)[:, None], rows, axis=1)
    here = (worse, better, expected, pool["changed"], layers)
    there = (worse, better, layers)
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


def judged(work: Path, dataset: str, size: int, asked: float, splits: range) -> dict[str, Any]:
    """Return how often too much accuracy is lost on the rest, and the layers run there."""
    shown = np.empty((len(splits), len(RULES), 2))  # what is lost, and layers
    for number, split in enumerate(splits):
        with np.load(work / f"{dataset}_{size}_{split}.npz") as arrays:
            (worse, better, expected, changed, _), rest = arrays["d"], arrays["r"]
        measured = (worse - better).astype(np.float64)
        counted = measured + overlooked_drop(measured, expected, changed, size)
        good = (measured <= asked + 1e-8, counted <= allowed_drop(asked, size) + 1e-8)
        for rule, kept in enumerate(good):
            setting = np.flatnonzero(kept)[-1]  # the path rises in speed
            shown[number, rule] = rest[0, setting] - rest[1, setting], rest[2, setting]
    return cell_of(dataset, size, asked, shown)


def judged_by_agreement(
    work: Path, dataset: str, size: int, asked: float, splits: range
) -> dict[str, Any]:
    """Return how often too many answers of the rest are not the full model's, and the layers."""
    first = len(RULES) * ASKED.index(asked)
    shown = [
        np.load(work / f"{dataset}_{size}_{split}_agreement.npy")[first : first + len(RULES)]
        for split in splits
    ]
    return cell_of(dataset, size, asked, np.stack(shown))


def cell_of(dataset: str, size: int, asked: float, shown: np.ndarray) -> dict[str, Any]:
    """Return a row of the table from what is lost and the layers, [splits, rules, 2]."""
    cell: dict[str, Any] = {"dataset": dataset, "dev": size, "asked": asked, "splits": len(shown)}
    for number, rule in enumerate(RULES):
        lost, layers = shown[:, number].T
        cell[rule] = {
            "too_much": float(np.mean(lost > asked + OVER)),
            "mean_lost": float(lost.mean()),
            "layers": float(layers.mean()),
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
