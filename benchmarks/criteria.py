"""All exit criteria on the same recorded answers, and what thresholds for each exit are worth.

    python benchmarks/criteria.py

Reads `results/logits_*.npz` and writes `results/criteria.json` and `criteria.md`. Settings are
drawn and chosen on dev; test is read along the finished curve. Cost is in FLOPs, true count,
students included. Between the settings of a curve, accuracy is interpolated over cost.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from machine import write_result
from recorded import Run, fewest_layers, recorded_runs, speed_curve, with_measure
from scipy.optimize import isotonic_regression
from tqdm import tqdm

from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.exits.measures import DEFAULT_MEASURE
from fastbert.tasks.single_label import SingleLabel

SPEEDUPS = (1.5, 2.0, 3.0, 4.0)
AREA = np.linspace(1 / 6, 1.0, 101)  # of the full model's cost: from 6 times faster to all of it
MAX_DROP = 0.005
SAVINGS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Curve:
    """Accuracy over cost on test, from cheap to dear; cost as a share of the full model's."""

    cost: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def of(cls, points: Sequence[OperatingPoint]) -> "Curve":
        cost = np.array([1 / point.speedup_flops for point in points])
        accuracy = np.array([point.accuracy for point in points])
        order = np.argsort(cost, kind="stable")
        return cls(cost[order], accuracy[order])

    def accuracy_at(self, cost: Any) -> Any:
        return np.interp(cost, self.cost, self.accuracy)

    def cost_of(self, accuracy: float) -> float:
        """Return what an accuracy costs, on the curve made monotone."""
        smooth = isotonic_regression(self.accuracy).x
        enough = int(np.searchsorted(smooth, accuracy - 1e-12))
        return float(self.cost[min(enough, len(smooth) - 1)])

    def smoothed(self) -> "Curve":
        return Curve(self.cost, isotonic_regression(self.accuracy).x)


def main() -> None:
    """Compare, and write the tables."""
    runs = recorded_runs()
    names = SingleLabel.measures
    figures = [figures_of(run, name) for run in tqdm(runs, disable=None) for name in names]
    gains = [gain_of(run, name) for run in runs for name in names]
    result = {
        "curves": figures,
        "gains": gains,
        "savings": [savings_of(run, name) for run in runs for name in shown(winner(figures))],
    }
    write_result("criteria", result)
    page = Path(__file__).parent / "criteria.md"
    page.write_text(markdown(result), encoding="utf-8")


def figures_of(run: Run, name: str) -> dict[str, Any]:
    """Return accuracy at several speed-ups, with thresholds for each exit and with equal ones."""
    run = with_measure(run, name)
    curves = {
        "path": Curve.of(on_test(run, run.dev.points)),
        "equal": Curve.of(equal_points(run)),
    }
    full = run.test.points[0].accuracy
    assert full is not None
    figures: dict[str, Any] = {"dataset": run.dataset, "seed": run.seed, "criterion": name}
    figures["full"] = full
    for kind, curve in curves.items():
        lost = [100 * (full - curve.accuracy_at(1 / speedup)) for speedup in SPEEDUPS]
        figures[kind] = {
            "lost": [float(points) for points in lost],
            "area": float(curve.accuracy_at(AREA).mean()),
        }
    return figures


def on_test(run: Run, points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return what settings drawn on dev give on test."""
    return [run.test.point(np.array(point.thresholds, np.float32)) for point in points]


def equal_points(run: Run) -> list[OperatingPoint]:
    """Return one threshold for all exits, at quantiles of the doubt on dev."""
    quantiles = np.quantile(run.dev.doubts, np.linspace(0, 1, 150), method="lower")
    thresholds = np.unique([0.0, *quantiles, 1.0]).astype(np.float32)
    students = len(run.dev.doubts)
    return [run.test.point(np.full(students, threshold)) for threshold in thresholds]


def gain_of(run: Run, name: str) -> dict[str, Any]:
    """Compare with the paper's criterion at its single best speed, both chosen on dev.

    At equal test accuracy: the paper's curve and ours are made monotone, and each is read at the
    accuracy that the paper's speed has on its curve.
    """
    baseline = paper_point(run)
    paper = Curve.of(equal_points(run))
    ours_run = with_measure(run, name)
    ours = Curve.of(on_test(ours_run, ours_run.dev.points))
    accuracy = float(paper.smoothed().accuracy_at(1 / baseline.speedup_flops))
    chosen = ours_run.dev.solve(Goal(max_drop=MAX_DROP))
    at_test = ours_run.test.point(np.array(chosen.thresholds, np.float32))
    return {
        "dataset": run.dataset,
        "seed": run.seed,
        "criterion": name,
        "full": run.test.points[0].accuracy,
        "paper": {"accuracy": baseline.accuracy, "speedup": baseline.speedup_flops},
        "ours": {"accuracy": at_test.accuracy, "speedup": at_test.speedup_flops},
        "flops_ratio": ours.cost_of(accuracy) / paper.cost_of(accuracy),
    }


def paper_point(run: Run) -> OperatingPoint:
    """Return on test the paper's criterion at the speed that dev chose."""
    assert run.dev.truth is not None
    speed = fewest_layers(speed_curve(run.dev.recorded, run.dev.truth), MAX_DROP)
    return run.test.point(np.full(len(run.dev.doubts), speed, np.float32))


def savings_of(run: Run, name: str) -> dict[str, Any]:
    """Return which share of the achievable saving of layers `saving` achieves on test."""
    run = with_measure(run, name)

    def layers_at(saving: float) -> float:
        chosen = run.dev.solve(Goal(saving=saving))
        return run.test.point(np.array(chosen.thresholds, np.float32)).mean_exit_layer

    slowest, fastest = layers_at(0.0), layers_at(1.0)
    achieved = {
        str(saving): (slowest - layers_at(saving)) / (slowest - fastest) for saving in SAVINGS
    }
    return {"dataset": run.dataset, "seed": run.seed, "criterion": name, "achieved": achieved}


# The page.


def winner(figures: Sequence[dict[str, Any]]) -> str:
    """Return the criterion with the largest mean area, with thresholds for each exit."""
    areas = by_criterion(figures, lambda row: row["path"]["area"])
    return max(areas, key=lambda name: fmean(areas[name]))


def by_criterion(figures: Sequence[dict[str, Any]], value: Any) -> dict[str, list[float]]:
    """Return a value of each criterion for each data set, as the mean over the seeds."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in figures:
        cells[row["criterion"]][row["dataset"]].append(value(row))
    return {name: [fmean(seeds) for seeds in sets.values()] for name, sets in cells.items()}


def markdown(result: dict[str, Any]) -> str:
    """Return the page."""
    figures, gains = result["curves"], result["gains"]
    datasets = sorted({row["dataset"] for row in figures})
    seeds = len({row["seed"] for row in figures})
    best = winner(figures)
    areas = by_criterion(figures, lambda row: row["path"]["area"])
    ranked = sorted(areas, key=lambda name: -fmean(areas[name]))
    sections = [
        "# Exit criteria compared",
        f"By `benchmarks/criteria.py` on {len(datasets)} data sets ({', '.join(datasets)}), "
        f"{seeds} seeds of the students each, raw figures in `results/criteria.json`. Thresholds "
        "are drawn on dev; all figures are of test. Speed-ups are of FLOPs, true count, students "
        "included.",
        "## All criteria",
        "Points of accuracy lost against the full model, mean over the data sets; ± is the "
        "standard deviation over seeds, averaged. *Area* is the mean accuracy over costs from a "
        "sixth of the full model's to all of it. First with thresholds for each exit, then "
        "with one for all.",
        verdict(areas, figures),
        criteria_table(figures, ranked, "path"),
        criteria_table(figures, ranked, "equal"),
        "## By data set",
        "Points lost at 2 times fewer FLOPs, thresholds for each exit, mean over seeds.",
        dataset_table(figures, ranked, datasets),
        "## Against the paper's criterion with one speed",
        f"The paper's speed is the fastest that loses at most {100 * MAX_DROP:g} points on dev. "
        "*FLOPs* is what our thresholds need for the same test accuracy, as a share of the "
        "paper's, both curves made monotone. *Chosen* is what `max_drop` chose on dev, read on "
        "test: points lost and speed-up.",
        *(gain_table(gains, name, datasets) for name in shown(best)),
        "## Does `saving` mean the same everywhere?",
        "Share of the achievable saving of layers that test gets, smallest and largest over the "
        "seeds.",
        savings_table(result["savings"], datasets),
    ]
    return "\n\n".join(sections) + "\n"


def shown(best: str) -> list[str]:
    """Return the criteria that are looked at closely."""
    return list(dict.fromkeys((DEFAULT_MEASURE, best, "entropy")))


def verdict(areas: dict[str, list[float]], figures: Sequence[dict[str, Any]]) -> str:
    """Say who won, by how much, and what that means for the default."""
    area = {name: 100 * fmean(values) for name, values in areas.items()}
    ranked = sorted(area, key=lambda name: -area[name])
    seeds: dict[str, list[float]] = defaultdict(list)
    for row in figures:
        if row["criterion"] == ranked[0]:
            seeds[row["dataset"]].append(100 * row["path"]["area"])
    noise = fmean(stdev(values) for values in seeds.values())
    unfitted = next(name for name in ranked if name != "learned")
    return (
        f"The winner is **{ranked[0]}**: its area is {area[ranked[0]] - area[ranked[1]]:.2f} "
        f"points ahead of {ranked[1]}; over seeds it varies by {noise:.2f}. The best criterion "
        f"that needs no fitting is {unfitted}. The default is **{DEFAULT_MEASURE}**, "
        f"{area[ranked[0]] - area[DEFAULT_MEASURE]:.2f} behind the winner and "
        f"{area[DEFAULT_MEASURE] - area['entropy']:.2f} ahead of the paper's entropy: a learned "
        "criterion has to run every student and takes rows away from a promise."
    )


def criteria_table(figures: Sequence[dict[str, Any]], ranked: Sequence[str], kind: str) -> str:
    title = "thresholds for each exit" if kind == "path" else "one threshold"
    head = " | ".join(f"lost at {speedup:g} x" for speedup in SPEEDUPS)
    lines = [f"| {title} | {head} | area |", "| --- " + "| ---: " * (len(SPEEDUPS) + 1) + "|"]
    for name in ranked:
        cells = []
        for place in range(len(SPEEDUPS)):
            mean = fmean(by_criterion(figures, lambda row, at=place: row[kind]["lost"][at])[name])
            cells.append(f"{mean:.2f} ± {spread(figures, name, kind, place):.2f}")
        area = 100 * fmean(by_criterion(figures, lambda row: row[kind]["area"])[name])
        lines.append(f"| {name} | {' | '.join(cells)} | {area:.2f} |")
    return "\n".join(lines)


def spread(figures: Sequence[dict[str, Any]], name: str, kind: str, place: int) -> float:
    """Return the standard deviation over seeds, averaged over the data sets."""
    cells: dict[str, list[float]] = defaultdict(list)
    for row in figures:
        if row["criterion"] == name:
            cells[row["dataset"]].append(row[kind]["lost"][place])
    return fmean(stdev(values) for values in cells.values())


def dataset_table(
    figures: Sequence[dict[str, Any]], ranked: Sequence[str], datasets: Sequence[str]
) -> str:
    lost = by_criterion(figures, lambda row: row["path"]["lost"][1])
    full = by_criterion(figures, lambda row: 100 * row["full"])[ranked[0]]
    lines = [f"| | {' | '.join(datasets)} |", "| --- " + "| ---: " * len(datasets) + "|"]
    lines.append(f"| full model | {' | '.join(f'{value:.1f} %' for value in full)} |")
    lines += [
        f"| {name} | {' | '.join(f'{value:.2f}' for value in lost[name])} |" for name in ranked
    ]
    return "\n".join(lines)


def gain_table(gains: Sequence[dict[str, Any]], name: str, datasets: Sequence[str]) -> str:
    rows = [row for row in gains if row["criterion"] == name]
    lines = [
        f"| {name} | paper: lost, speed-up | chosen: lost, speed-up | FLOPs at equal accuracy |",
        "| --- | ---: | ---: | ---: |",
    ]
    ratios = []
    for dataset in datasets:
        of_set = [row for row in rows if row["dataset"] == dataset]
        cells = []
        for who in ("paper", "ours"):
            lost = fmean(100 * (row["full"] - row[who]["accuracy"]) for row in of_set)
            cells.append(f"{lost:.2f}, {fmean(row[who]['speedup'] for row in of_set):.2f} x")
        of_seeds = [row["flops_ratio"] for row in of_set]
        ratios.append(fmean(of_seeds))
        seeds = ", ".join(f"{ratio:.2f}" for ratio in of_seeds)
        lines.append(f"| {dataset} | {' | '.join(cells)} | {ratios[-1]:.2f} ({seeds}) |")
    lines.append(f"| mean | | | **{fmean(ratios):.2f}** |")
    return "\n".join(lines)


def savings_table(savings: Sequence[dict[str, Any]], datasets: Sequence[str]) -> str:
    lines = [
        f"| | {' | '.join(f'saving {saving:g}' for saving in SAVINGS)} |",
        "| --- " + "| ---: " * len(SAVINGS) + "|",
    ]
    names = list(dict.fromkeys(row["criterion"] for row in savings))
    for name in names:
        for dataset in datasets:
            rows = [r for r in savings if (r["criterion"], r["dataset"]) == (name, dataset)]
            cells = []
            for saving in SAVINGS:
                achieved = [row["achieved"][str(saving)] for row in rows]
                cells.append(f"{min(achieved):.2f} to {max(achieved):.2f}")
            lines.append(f"| {dataset}, {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
