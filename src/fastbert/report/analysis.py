"""The numbers of a report: what was recorded, as one table behind each figure.

Every table is a list of rows with the same keys, which is what the CSV files hold, what the figures
draw and what the sentences quote. Shares are between 0 and 1. Nothing here draws or runs a model.

What answers are judged by has the key `accuracy`, whatever the task judges by: figures and
sentences take its name from `ReportData.named`, CSV files and tables from `ReportData.column`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fastbert.calibration.path import exit_layers_at
from fastbert.exits.criteria import watched_exits
from fastbert.report.data import ReportData
from fastbert.tasks.metrics import agreement, scores
from fastbert.tasks.task import Decisions

Table = list[dict[str, Any]]

CURVE_SPEEDS = tuple(round(step / 20, 2) for step in range(21))
PAPER_SPEEDS = (0.3, 0.5, 0.8)  # those of the paper's figures
FOCUS_SPEED = 0.5  # of what is shown at one speed only, as in the paper
BINS = 10  # of uncertainty, 0.1 wide
FEW_ROWS = 10  # in a bin: too few to say anything
MOST_CLASSES = 80  # drawn; the table has all
MOST_EXAMPLES = 20
LONGEST_EXAMPLE = 240  # characters
MOST_POINTS = 3  # calibrated points that get a histogram of their own
QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


# The figures' tables.


def tradeoff(report: ReportData) -> Table:
    """Return quality and cost of every way to go faster that the record can tell.

    Series: `speed` is the paper's criterion, `calibrated` the points as calibration gave them,
    `cut` the plain shallower model that stops every row at one layer.
    """
    return [
        *(_speed_point(report, speed) for speed in CURVE_SPEEDS),
        *(
            _given_point(report, number, point)
            for number, point in enumerate(report.points, start=1)
        ),
        *(_cut_point(report, layer) for layer in range(1, report.num_layers + 1)),
    ]


def time_tradeoff(report: ReportData) -> Table:
    """Return the measured runs with their speed-up in time over speed 0.

    Empty where speed 0 was not measured: then there is nothing to compare with.
    """
    full = next((timing for timing in report.timings if timing["speed"] == 0), None)
    if full is None:
        return []
    return [
        {
            "speed": float(timing["speed"]),
            "accuracy": timing.get(report.metric.column),
            "seconds": timing["seconds"],
            "rows_per_second": timing.get("rows_per_second"),
            "speedup_time": full["seconds"] / timing["seconds"],
            "speedup_flops": timing.get("speedup_flops"),
        }
        for timing in sorted(report.timings, key=lambda timing: float(timing["speed"]))
    ]


def luha(report: ReportData) -> Table:
    """Return how right the exits are by how uncertain they are, in bins 0.1 wide.

    Without labels the teacher is left out: it always agrees with itself.
    """
    return [
        row
        for layer in shown_layers(report.num_layers)
        if layer < report.num_layers or report.truth is not None
        for row in _luha_bins(report, layer)
    ]


def exit_layers(report: ReportData) -> Table:
    """Return after which layer how many rows leave, at the paper's speeds and calibrated points."""
    settings = {
        f"speed {speed:g}": ("speed", report.at_speed(speed).exit_layer) for speed in PAPER_SPEEDS
    }
    for name, point in _shown_points(report).items():
        settings[name] = ("calibrated", _point_exit_layers(report, point))
    return [
        {"series": series, "setting": setting, "layer": layer, "rows": count, "share": share}
        for setting, (series, exits) in settings.items()
        for layer, count, share in _histogram(exits, report.num_layers)
    ]


def uncertainty_by_layer(report: ReportData) -> Table:
    """Return how uncertainty is spread after each layer, and the calibrated doubt if it is known.

    At speed 0 every row reaches every layer; at the other speed the rows that are still there.
    """
    table = []
    for speed in (0.0, FOCUS_SPEED):
        reached = report.at_speed(speed).exit_layer
        for layer, values in enumerate(report.uncertainties, start=1):
            table.append(_spread("uncertainty", speed, layer, values[reached >= layer]))
    for layer, values in enumerate(() if report.doubts is None else report.doubts, start=1):
        table.append(_spread("doubt", 0.0, layer, values))
    return table


def training(report: ReportData) -> Table:
    """Return the training curves; `step` counts the epochs through both stages."""
    first, *_ = report.task.metrics  # the history calls them as goals do
    epochs = [
        (stage, epoch)
        for stage in ("teacher", "students")
        for epoch in report.history.get(stage, ())
    ]
    return [
        {
            "stage": stage,
            "step": step,
            "epoch": epoch["epoch"],
            "loss": epoch.get("loss"),
            "accuracy": epoch.get(first),
            "mean_exit_layer": epoch.get("mean_exit_layer"),
            "speedup_flops": epoch.get("speedup_flops"),
        }
        for step, (stage, epoch) in enumerate(epochs, start=1)
    ]


def per_class(report: ReportData) -> Table:
    """Return where the rows of each class leave, the latest class first; absent ones are left out.

    Without labels a row's class is the teacher's answer. The first column is called as the task
    calls its labels, of which a row may have several.
    """
    result = report.at_speed(FOCUS_SPEED)
    right = 1 - report.task.losses(report.task.decide(result.logits), report.expected)
    teacher_right = 1 - report.task.losses(report.answers[-1], report.expected)
    noun = report.task.noun
    table = [
        {
            noun: label,
            "rows": int(mine.sum()),
            "mean_exit_layer": float(result.exit_layer[mine].mean()),
            "accuracy": float(right[mine].mean()),
            "teacher_accuracy": float(teacher_right[mine].mean()),
        }
        for label, mine in zip(report.labels, report.task.rows_of(report.expected).T, strict=True)
        if mine.any()
    ]
    return sorted(table, key=lambda row: (-row["mean_exit_layer"], row[noun]))


def early_and_wrong(report: ReportData) -> Table:
    """Return rows that a student answered wrong, the most certain first, at most 20."""
    result = report.at_speed(FOCUS_SPEED)
    answers = report.task.decide(result.logits)
    doubt = report.uncertainties[result.exit_layer - 1, np.arange(report.rows)]
    wrong = np.flatnonzero(
        (report.task.losses(answers, report.expected) > 0) & (result.exit_layer < report.num_layers)
    )
    chosen = wrong[np.argsort(doubt[wrong], kind="stable")][:MOST_EXAMPLES]
    return [
        {
            "row": row + 1,
            "text": None if report.texts is None else shortened(report.texts[row]),
            "label": report.task.told(report.expected[row]),
            "answer": report.task.told(answers[row]),
            "teacher": report.task.told(report.answers[-1, row]),
            "exit_layer": int(result.exit_layer[row]),
            "uncertainty": float(doubt[row]),
        }
        for row in chosen.tolist()
    ]


# What they are made of.


def shown_layers(num_layers: int) -> list[int]:
    """Return up to four students' layers, evenly spread, and the teacher's."""
    students = np.linspace(1, num_layers - 1, min(4, num_layers - 1)).round().astype(int)
    return [*sorted(set(students.tolist())), num_layers]


def shortened(text: str) -> str:
    """Return a text on one line that fits a table."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_EXAMPLE else words[: LONGEST_EXAMPLE - 1] + "…"


def _quality(report: ReportData, answers: Decisions) -> dict[str, Any]:
    return _judged(report, scores(report.task, answers, report.expected)) | {
        "agreement": agreement(report.task, answers, report.answers[-1])
    }


def _judged(report: ReportData, worth: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures by the task's metrics; the one that is judged by first, and as `accuracy`."""
    others = [metric.column for metric in report.task.metrics.values() if metric != report.metric]
    return {
        "accuracy": worth.get(report.metric.column),
        **{column: worth.get(column) for column in others},
    }


def _speed_point(report: ReportData, speed: float) -> dict[str, Any]:
    result = report.at_speed(speed)
    watched = watched_exits(report.speed_criterion(speed), report.num_layers)
    return {
        "series": "speed",
        "setting": speed,
        **_quality(report, report.task.decide(result.logits)),
        "mean_exit_layer": float(result.exit_layer.mean()),
        "speedup_flops": report.shape.speedup(result.exit_layer, report.lengths, watched),
    }


def _cut_point(report: ReportData, layer: int) -> dict[str, Any]:
    """Return what stopping every row at a layer gives; only that exit's classifier is run."""
    exits = np.full(report.rows, layer)
    return {
        "series": "cut",
        "setting": layer,
        **_quality(report, report.answers[layer - 1]),
        "mean_exit_layer": float(layer),
        "speedup_flops": report.shape.speedup(exits, report.lengths, [layer]),
    }


def _given_point(report: ReportData, number: int, point: Mapping[str, Any]) -> dict[str, Any]:
    names = ["agreement", "mean_exit_layer", "speedup_flops"]
    figures = _judged(report, point) | {name: point.get(name) for name in names}
    if report.truth is None and figures["agreement"] is not None:
        figures["accuracy"] = figures["agreement"]  # to be compared with the other series
    return {"series": "calibrated", "setting": number, **figures}


def _luha_bins(report: ReportData, layer: int) -> Table:
    values = report.uncertainties[layer - 1]
    right = 1 - report.task.losses(report.answers[layer - 1], report.expected)
    numbers = np.minimum((values * BINS).astype(int), BINS - 1)  # uncertainty 1 is in the last bin
    table = []
    for number in range(BINS):
        inside = numbers == number
        table.append(
            {
                "layer": layer,
                "exit": "teacher" if layer == report.num_layers else "student",
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "rows": int(inside.sum()),
                "accuracy": float(right[inside].mean()) if inside.any() else None,
            }
        )
    return table


def _shown_points(report: ReportData) -> dict[str, Mapping[str, Any]]:
    """Return a few calibrated points, evenly spread, that can be replayed: it takes the doubts."""
    if report.doubts is None or not report.points:
        return {}
    numbers = np.linspace(0, len(report.points) - 1, min(MOST_POINTS, len(report.points)))
    return {
        f"calibrated point {number + 1}": report.points[number]
        for number in numbers.round().astype(int).tolist()
    }


def _point_exit_layers(report: ReportData, point: Mapping[str, Any]) -> Int[np.ndarray, " rows"]:
    """Return where rows leave at a calibrated point: the first doubt below its threshold."""
    assert report.doubts is not None
    return exit_layers_at(report.doubts, np.array(point["thresholds"], float))


def _histogram(exits: Int[np.ndarray, " rows"], num_layers: int) -> list[tuple[int, int, float]]:
    counts = np.bincount(exits, minlength=num_layers + 1)[1:].tolist()
    return [(layer, count, count / len(exits)) for layer, count in enumerate(counts, start=1)]


def _spread(
    measure: str, speed: float, layer: int, values: Float[np.ndarray, " reached"]
) -> dict[str, Any]:
    row = {"measure": measure, "speed": speed, "layer": layer, "rows": len(values)}
    if not len(values):
        return {**row, "mean": None, **dict.fromkeys(QUANTILES)}
    quantiles = np.quantile(values.astype(float), list(QUANTILES.values())).tolist()
    return {**row, "mean": float(values.mean()), **dict(zip(QUANTILES, quantiles, strict=True))}
