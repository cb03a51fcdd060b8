"""The accuracy–speed curve as a picture. Only what draws imports this: it needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

BLUE, GREY, DARK = "#1f6feb", "#8c959f", "#24292f"  # on white, legible on dark pages too
LEAST_SPAN = 2.0  # percent points of the vertical axis: less would make noise look like news
CLOSE = 0.035  # of the width and height: points nearer than this share a label


def draw_curve(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    chosen: float | None = None,
    quality: str = "accuracy",
) -> None:
    """Write the picture of `curve` as a PNG; arguments as there."""
    curve(rows, chosen=chosen, quality=quality).savefig(path, format="png")


def curve(
    rows: Sequence[Mapping[str, Any]], *, chosen: float | None = None, quality: str = "accuracy"
) -> Figure:
    """Draw quality against FLOPs speed-up, each point labelled with its speed.

    Args:
        rows: The measured table, with `speed`, `accuracy` and `speedup_flops`.
        chosen: The recommended speed, marked if it is among the rows.
        quality: What `accuracy` is called in the figure.
    """
    rows = sorted(rows, key=lambda row: (row["speedup_flops"], row["speed"]))
    ups = [row["speedup_flops"] for row in rows]
    percents = [100 * row["accuracy"] for row in rows]

    figure = Figure(figsize=(7.2, 4.0), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    _limit(axes, ups, percents)
    for row in rows:
        if row["speed"] == 0:  # the full model, to compare with
            axes.axhline(
                100 * row["accuracy"], color=GREY, linewidth=1, linestyle=(0, (4, 4)), zorder=1
            )
    axes.plot(ups, percents, color=BLUE, linewidth=2, marker="o", markersize=7)
    for row, up, percent in zip(rows, ups, percents, strict=True):
        if row["speed"] == chosen:
            axes.plot(up, percent, "o", color="white", markersize=13, markeredgecolor=BLUE)
            axes.plot(up, percent, "o", color=BLUE, markersize=7)
    _label(axes, [float(row["speed"]) for row in rows], ups, percents)
    marked = any(row["speed"] == chosen for row in rows)
    _dress(axes, f"{quality} (ring: the speed chosen on held-out texts)" if marked else quality)
    return figure


def _limit(axes: Axes, ups: Sequence[float], percents: Sequence[float]) -> None:
    """Leave room for labels around the points."""
    width = max(max(ups) - min(ups), 0.5)
    axes.set_xlim(min(ups) - 0.08 * width, max(ups) + 0.2 * width)
    span = max(max(percents) - min(percents), LEAST_SPAN)
    middle = (max(percents) + min(percents)) / 2
    axes.set_ylim(middle - 0.7 * span, middle + 0.7 * span)


def _label(
    axes: Axes,
    speeds: Sequence[float],
    ups: Sequence[float],
    percents: Sequence[float],
) -> None:
    """Write each speed beside its point; points that nearly coincide share one label."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    groups: list[list[int]] = []
    for index in range(len(speeds)):
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and (ups[index] - ups[last]) / (right - left) < CLOSE
            and abs(percents[index] - percents[last]) / (top - bottom) < CLOSE
        ):
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        names = ", ".join(f"{speed:g}" for speed in sorted(speeds[index] for index in group))
        axes.annotate(
            f"speed {names}" if group is groups[0] else names,  # the first says what all are
            (ups[group[0]], percents[group[0]]),
            xytext=(3, 11),
            textcoords="offset points",
            fontsize=12,
            color=DARK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=1.5,  # over the dashed line, under the curve
        ).set_in_layout(False)


def _dress(axes: Axes, title: str) -> None:
    axes.set_xlabel("times fewer FLOPs than the full model", fontsize=12, color=DARK)
    axes.set_title(title, loc="left", fontsize=13, color=DARK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.tick_params(labelsize=12, color=GREY, labelcolor=DARK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
