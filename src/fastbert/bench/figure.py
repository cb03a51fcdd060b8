"""Throughput against quality or agreement, in the report's look. It needs matplotlib."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fastbert.bench.contenders import OURS
from fastbert.report.analysis import Table
from fastbert.report.brush import (
    LEAST_SPAN,
    LIGHT,
    WIDE,
    picture,
)
from fastbert.tasks.known import METRIC_COLUMNS
from fastbert.tasks.metrics import spelled

MARKERS = {"torch": "o", "onnx": "s", "openvino": "D"}
COLOURS = {"leaves early": "orange", "full depth": "blue", "plain": "grey"}
LABEL_OFFSETS = (7, -7, 16, -16)  # in points: runtimes agree, so their points stand in one line


def throughput_png(found: Mapping[str, Any]) -> bytes:
    """Return the figure of a run as a PNG file's content; without labels agreement is drawn.

    Args:
        found: What `Bench.as_dict` gave, or its JSON.

    Raises:
        ValueError: There were no labels and nothing to agree with.
    """
    rows = [row for row in found["contenders"] if row["p50_ms"] is None]
    for quality in (*METRIC_COLUMNS, "agreement"):
        if all(row.get(quality) is not None for row in rows):
            return picture(throughput, rows, quality, "png")
    raise ValueError("the figure needs accuracies, and these texts had no labels")


def throughput(table: Table, quality: str, width: float) -> Figure:
    """Draw quality against rows a second; numbers lead from the points to the names.

    Args:
        table: The measurements in bulk, by name.
        quality: The column of a metric, or `agreement`.
        width: In inches.
    """
    rows = sorted(table, key=lambda row: -float(row["rows_per_second"]))
    columns = 2 if width == WIDE else 1
    figure = Figure(figsize=(width, 3.0 + 0.19 * len(rows) / columns), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows, start=1):
        colour = LIGHT[COLOURS[_kind(row)]]
        speed, percent = row["rows_per_second"], 100 * row[quality]
        label = f"{number}  {row['name']}"
        axes.plot(speed, percent, MARKERS[row["runtime"]], color=colour, markersize=6, label=label)
        offset = LABEL_OFFSETS[number % len(LABEL_OFFSETS)]
        axes.annotate(
            str(number),
            (speed, percent),
            xytext=(0, offset),
            textcoords="offset points",
            ha="center",
            va="bottom" if offset > 0 else "top",
            fontsize=8,
            color=colour,
        )
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    percents = [100 * row[quality] for row in rows]
    span = max(max(percents) - min(percents), LEAST_SPAN)
    middle = (max(percents) + min(percents)) / 2
    axes.set_ylim(middle - 0.7 * span, middle + 0.7 * span)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_title(spelled(quality), loc="left")
    axes.set_xlabel(
        f"rows a second, batches of {rows[0]['batch_size']}, threads: {rows[0]['threads']}"
    )
    figure.legend(loc="outside lower left", ncols=columns)
    return figure


def _kind(row: Mapping[str, Any]) -> str:
    if not row["name"].startswith(OURS):
        return "plain"
    return "full depth" if row["share_of_saving"] is None else "leaves early"
