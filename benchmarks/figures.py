"""The README's figure: the report's trade-off, from recorded answers on test.

    python benchmarks/figures.py

Thresholds are chosen on dev for goals that are spread over the whole range.
"""

from pathlib import Path

import numpy as np
from recorded import Run, recorded_runs, with_measure

from fastbert.calibration.goal import Goal
from fastbert.exits.measures import DEFAULT_MEASURE
from fastbert.report import brush, figures
from fastbert.report.analysis import tradeoff
from fastbert.report.data import ReportData

DATASET, SEED = "thucnews_title", 42
SAVINGS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "tradeoff.png"


def main() -> None:
    """Draw it."""
    [run] = [run for run in recorded_runs() if (run.dataset, run.seed) == (DATASET, SEED)]
    table = tradeoff(report_of(run))
    IMAGE.write_bytes(brush.picture(figures.tradeoff, table, "accuracy", "png"))
    print(IMAGE)


def report_of(run: Run) -> ReportData:
    """Return what the report draws, with the thresholds that dev chose, read on test."""
    calibrated = with_measure(run, DEFAULT_MEASURE)
    points = []
    for saving in SAVINGS:
        chosen = calibrated.dev.solve(Goal(saving=saving))
        point = calibrated.test.point(np.array(chosen.thresholds, np.float32))
        points.append(
            {
                "thresholds": list(point.thresholds),
                "accuracy": point.accuracy,
                "macro_f1": point.macro_f1,
                "agreement": point.agreement,
                "mean_exit_layer": point.mean_exit_layer,
                "speedup_flops": point.speedup_flops,
            }
        )
    return ReportData(
        name=run.dataset,
        task=run.test.task,
        num_layers=run.test.shape.num_layers,
        recorded=run.test.recorded,
        truth=run.test.truth,
        lengths=run.test.lengths,
        shape=run.test.shape,
        points=points,
    )


if __name__ == "__main__":
    main()
