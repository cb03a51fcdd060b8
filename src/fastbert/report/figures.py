"""The figures of a report, each drawn from its table."""

from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fastbert.report.analysis import FEW_ROWS, FOCUS_SPEED, MOST_CLASSES, Table
from fastbert.report.brush import (
    DEPTHS,
    LEAST_SPAN,
    LIGHT,
    LONGEST_LABEL,
    MARKERS,
    NARROW,
    WIDE,
    accuracies,
    as_percent,
    as_times,
    by_column,
    layer_axis,
    limit_axes,
    name_bar,
    name_points,
    new_panels,
    percent_axis,
    rows_with,
    shortened_label,
    show_at_least,
    split_stages,
)


def tradeoff(table: Table, quality: str, width: float) -> Figure:
    """Draw quality against FLOPs speed-up: the paper's criterion, calibrated points, plain cuts.

    The model card adds the default as a series of its own, `chosen`.
    """
    figure, [axes] = new_panels(1, width, height=3.6)
    limit_axes(axes, [row["speedup_flops"] for row in table], accuracies(table))
    series = {
        "cut": ("every row stops at one layer", "grey", "s:", 3.5),
        "speed": ("uncertainty below a speed", "blue", "o-", 4),
        "calibrated": ("calibrated", "orange", "D-", 5),
        "chosen": ("the default, chosen on held-out texts", "orange", "D", 6),
    }
    for name, (label, colour, style, size) in series.items():
        if rows := by_column(rows_with(table, series=name), "speedup_flops"):
            ups, percents = [row["speedup_flops"] for row in rows], accuracies(rows)
            axes.plot(ups, percents, style, color=LIGHT[colour], markersize=size, label=label)
    tenths = [
        row for row in rows_with(table, series="speed") if round(20 * row["setting"]) % 2 == 0
    ]
    name_points(axes, tenths, "speed {:g}", "blue")
    name_points(
        axes, rows_with(table, series="cut")[:-1], "layer {:g}", "grey"
    )  # the last is speed 0
    axes.set_title(quality, loc="left")
    axes.set_xlabel("times fewer FLOPs than the full model")
    figure.legend(loc="outside lower left", ncols=3 if width == WIDE else 1)
    return figure


def time_tradeoff(table: Table, quality: str, width: float) -> Figure:
    """Draw quality against the measured speed-up in time."""
    figure, [axes] = new_panels(1, width, height=2.9)
    rows = by_column([row for row in table if row["accuracy"] is not None], "speedup_time")
    ups = [row["speedup_time"] for row in rows]
    limit_axes(axes, ups, accuracies(rows))
    axes.plot(ups, accuracies(rows), "o-", color=LIGHT["blue"], markersize=5)
    points = [
        {**row, "setting": row["speed"], "speedup_flops": row["speedup_time"]} for row in rows
    ]
    name_points(axes, points, "speed {:g}", "blue")
    axes.set_title(quality, loc="left")
    axes.set_xlabel("times faster than speed 0, measured")
    return figure


def luha(table: Table, quality: str, width: float) -> Figure:
    """Draw quality by uncertainty for several exits, over the number of rows in each bin."""
    figure, [upper, lower] = new_panels(2, width, height=4.6, ratios=[3.0, 1.3], sharex=True)
    for index, (layer, group) in enumerate(groupby(table, key=lambda row: int(row["layer"]))):
        rows = list(group)
        teacher = rows[0]["exit"] == "teacher"
        colour = LIGHT["ink" if teacher else DEPTHS[index]]
        look: dict[str, Any] = {
            "color": colour,
            "marker": "X" if teacher else MARKERS[index],
            "markersize": 5,
            "linestyle": "--" if teacher else "-",
            "markeredgewidth": 0,
        }
        middles = [(row["from"] + row["to"]) / 2 for row in rows]
        percents = np.array(accuracies(rows))
        enough = np.array([row["rows"] >= FEW_ROWS for row in rows])
        upper.plot(middles, percents, alpha=0.25, **look)
        label = f"teacher, layer {layer}" if teacher else f"student, layer {layer}"
        upper.plot(middles, np.where(enough, percents, np.nan), label=label, **look)
        counts = np.array([row["rows"] for row in rows], dtype=float)
        lower.plot(middles, np.where(counts > 0, counts, np.nan), **{**look, "markersize": 3.5})
    lower.axhline(FEW_ROWS, color=LIGHT["grey"], linestyle=":", linewidth=1)
    lower.set_yscale("log")
    lower.yaxis.set_minor_locator(NullLocator())
    lower.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(9)]))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lower.set_xlim(0, 1)
    lower.xaxis.set_major_locator(
        FixedLocator(np.linspace(0, 1, 6 if width == NARROW else 11).tolist())
    )
    lower.set_title(f"rows (dotted: {FEW_ROWS}; bins with fewer are faint)", loc="left")
    lower.set_xlabel("uncertainty, in bins of 0.1")
    percent_axis(upper)
    upper.set_title(quality, loc="left")
    figure.legend(loc="outside lower left", ncols=3 if width == WIDE else 2)
    return figure


def exit_layers(table: Table, quality: str, width: float) -> Figure:
    """Draw after which layer how many rows leave, one panel for each setting."""
    settings = {name: list(rows) for name, rows in groupby(table, key=lambda row: row["setting"])}
    figure, panels = new_panels(
        len(settings), width, height=0.5 + 1.15 * len(settings), sharex=True, sharey=True
    )
    highest = max(row["share"] for row in table)
    for axes, (setting, rows) in zip(panels, settings.items(), strict=True):
        layers = [row["layer"] for row in rows]
        shares = [100 * row["share"] for row in rows]
        colour = LIGHT["orange" if rows[0]["series"] == "calibrated" else "blue"]
        bars = axes.bar(layers, shares, width=0.72, color=colour)
        bars[-1].set_facecolor(LIGHT["grey"])  # the teacher
        mean = float(np.average(layers, weights=shares))
        axes.axvline(mean, color=LIGHT["ink"], linewidth=1, linestyle=(0, (3, 2)), zorder=0.9)
        axes.set_title(f"{setting}: {mean:.1f} layers on average", loc="left")
        if len(layers) <= 12:
            for layer, share in zip(layers, shares, strict=True):
                if share >= 0.5:
                    name_bar(axes, layer, share)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(as_percent))
    panels[0].set_ylim(0, 118 * highest)
    layer_axis(panels[-1], layers[-1])
    panels[-1].set_xlabel(f"layer after which a row left ({layers[-1]}: the teacher)")
    return figure


def uncertainty_by_layer(table: Table, quality: str, width: float) -> Figure:
    """Draw the spread of uncertainty after each layer: 90 % of the rows, half of them, median."""
    names = {("uncertainty", 0.0): "uncertainty, all rows at every layer"}
    names["uncertainty", FOCUS_SPEED] = f"uncertainty, rows still there at speed {FOCUS_SPEED:g}"
    names["doubt", 0.0] = "calibrated doubt, all rows"
    groups = {
        key: list(rows)
        for key, rows in groupby(table, key=lambda row: (row["measure"], row["speed"]))
    }
    height = 0.5 + 1.75 * len(groups)
    figure, panels = new_panels(len(groups), width, height=height, sharex=True, sharey=True)
    for axes, (key, rows) in zip(panels, groups.items(), strict=True):
        colour = LIGHT["orange" if key[0] == "doubt" else "blue"]
        for row in rows:
            if row["rows"]:
                layer = row["layer"]
                axes.vlines(layer, row["p5"], row["p95"], color=colour, linewidth=1.2)
                axes.vlines(layer, row["p25"], row["p75"], color=colour, linewidth=8)
                axes.plot(layer, row["median"], "o", color=LIGHT["surface"], markeredgecolor=colour)
        if key[1] > 0:
            axes.axhline(key[1], color=LIGHT["ink"], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_title(names[key], loc="left")
        axes.set_ylim(-0.04, 1.04)
    last = max(row["layer"] for row in table)
    panels[0].set_xlim(0.3, last + 0.7)
    layer_axis(panels[-1], last)
    panels[-1].set_xlabel("layer")
    return figure


def training(table: Table, quality: str, width: float) -> Figure:
    """Draw quality and speed-up by epoch, through both stages."""
    curves = {
        "accuracy": (quality, FuncFormatter(as_percent), 100.0),
        "speedup_flops": (
            f"times fewer FLOPs, speed {FOCUS_SPEED:g}",
            FuncFormatter(as_times),
            1.0,
        ),
        "loss": ("loss", FuncFormatter(lambda value, _: f"{value:g}"), 1.0),
    }
    shown = [name for name in curves if any(row[name] is not None for row in table)]
    height = 0.7 + 1.45 * max(len(shown), 1)
    figure, panels = new_panels(max(len(shown), 1), width, height=height, sharex=True)
    for axes, name in zip(panels, shown, strict=False):
        title, formatter, scale = curves[name]
        for stage, colour, style in (("teacher", "grey", "s-"), ("students", "blue", "o-")):
            rows = [row for row in rows_with(table, stage=stage) if row[name] is not None]
            values = [scale * row[name] for row in rows]
            steps = [row["step"] for row in rows]
            axes.plot(steps, values, style, color=LIGHT[colour], markersize=5, label=stage)
        axes.set_title(title, loc="left")
        axes.margins(x=0.04, y=0.18)
        if name == "accuracy":
            percent_axis(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(formatter)
        split_stages(axes, table)
    panels[-1].xaxis.set_major_locator(FixedLocator([row["step"] for row in table]))
    epochs = {row["step"]: row["epoch"] for row in table}
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{epochs.get(step, 0):g}"))
    panels[-1].set_xlabel("epoch of the stage")
    names = {"teacher": "fine-tuning of the teacher", "students": "distillation of the students"}
    if shown:
        handles, stages = panels[0].get_legend_handles_labels()
        present = [stage for stage in stages if rows_with(table, stage=stage)]
        kept = [handle for handle, stage in zip(handles, stages, strict=True) if stage in present]
        labels = [names[stage] for stage in present]
        figure.legend(kept, labels, loc="outside lower left", ncols=2 if width == WIDE else 1)
    return figure


def per_class(table: Table, quality: str, width: float) -> Figure:
    """Draw the mean exit layer of each class beside how right its rows are answered."""
    rows = table[:MOST_CLASSES]
    height = 0.95 + 0.185 * max(len(rows), 3)
    figure, [left, right] = new_panels(2, width, height=height, columns=[1.6, 1.0], sharey=True)
    places = np.arange(len(rows))
    exits = [row["mean_exit_layer"] for row in rows]
    mean = float(np.average(exits, weights=[row["rows"] for row in rows]))
    left.hlines(places, mean, exits, color=LIGHT["line"], linewidth=1.2)
    left.axvline(mean, color=LIGHT["line"], linewidth=1)
    left.plot(exits, places, "o", color=LIGHT["blue"])
    teacher = [100 * row["teacher_accuracy"] for row in rows]
    right.plot(teacher, places, "o", color=LIGHT["surface"], markeredgecolor=LIGHT["ink"])
    right.plot(accuracies(rows), places, "o", color=LIGHT["blue"], markersize=4)
    noun, *_ = rows[0]
    names = [shortened_label(row[noun], LONGEST_LABEL[width]) for row in rows]
    left.set_yticks(places, names, parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    for axes in (left, right):
        axes.grid(visible=True, axis="both")
        axes.xaxis.set_major_locator(MaxNLocator(4 if width == WIDE else 2))
    show_at_least(left, 1.0)
    show_at_least(right, LEAST_SPAN)
    right.xaxis.set_major_formatter(FuncFormatter(as_percent))
    right.tick_params(labelleft=False)
    left.set_title("mean exit layer" if width == WIDE else "mean layer", loc="left")
    right.set_title(quality if width == WIDE else quality.partition(" with ")[0], loc="left")
    right.set_xlabel("ring: the teacher" if width == WIDE else "ring: teacher")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]  # panels sets a constrained one
    return figure
