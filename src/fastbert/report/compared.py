"""A comparison as one figure: what contenders keep against their cost. It needs matplotlib."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fastbert.report.brush import LIGHT, WIDE, as_percent, as_times, picture

COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#a23b72", "#6b4c9a", "#8a6d00", "#1b222c", "#3b8ea5")
DASHES = ("-", "--", "-.", ":")  # so that colours are not all that tells lines apart
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
SHOWN_TO = 8.0  # times fewer FLOPs
LEAST_KEPT = 75.0  # percent; what falls lower leaves the figure
TICKS = (1, 1.5, 2, 3, 4, 6, 8)
LINE = 0.052  # height of a label, as a share of the axes


@dataclass(frozen=True)
class Series:
    """A line of the figure, or a point of it.

    Args:
        label: What it is called.
        number: Its place in the summary, which gives it its looks.
        speedups: Rising, from left to right.
        kept: In percent of the full model, as the mean over the seeds.
        marked: At which speed-ups it has a marker.
    """

    label: str
    number: int
    speedups: Float[np.ndarray, " points"]
    kept: Float[np.ndarray, " points"]
    marked: tuple[float, ...]

    def at(self, speedup: float) -> float:
        """Return what is kept there."""
        return float(np.interp(np.log(speedup), np.log(self.speedups), self.kept))


def comparison_png(found: Mapping[str, Any]) -> bytes:
    """Return the figure of a comparison as a PNG file's content.

    Args:
        found: What `Comparison.as_dict` gave, or its JSON.
    """
    return picture(
        lambda _, quality, width: draw(found, quality, width), [], found["metric"], "png"
    )


def draw(found: Mapping[str, Any], quality: str, width: float = WIDE) -> Figure:
    """Draw what is kept against times fewer FLOPs, each line with its name at its end.

    Args:
        found: What `Comparison.as_dict` gave, or its JSON.
        quality: What is kept of the full model.
        width: In inches.
    """
    panels = [(list(series_of(found)), "times fewer FLOPs than the full model")]
    if "times" in found:
        panels.append((list(timed_series_of(found)), "times faster than the full model, measured"))
    height = len(panels) * (1.9 + max(2.4, 0.2 * len(panels[0][0])))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(panels), 2, width_ratios=[3.6, 1.0], squeeze=False)
    for (axes, names), (lines, label) in zip(grid, panels, strict=True):
        _limit(axes, lines)
        for line in lines:
            _draw_line(axes, line)
        _name_ends(axes, names, lines)
        axes.set_title(f"{quality} kept, of the full model's on test", loc="left")
        axes.set_xlabel(label)
    if "times" in found:
        grid[1][0].set_title(f"{quality} kept, one text at a time by the clock", loc="left")
    return figure


def series_of(found: Mapping[str, Any]) -> Iterator[Series]:
    """Yield what is drawn, in the order of the summary.

    A curve ends where that of any seed does.
    """
    summary = found["summary"]
    measures = {row["measure"] for row in summary if row["measure"] is not None}
    for number, row in enumerate(summary):
        name, measure = row["contender"], row["measure"]
        label = f"{name}, {measure}" if measure is not None and len(measures) > 1 else name
        curves = [
            (
                np.maximum.accumulate([speedup for speedup, _ in one["curve"]]),
                [100 * metric / found["yardsticks"][str(one["seed"])]["metric"]
                 for _, metric in one["curve"]],
            )
            for one in found["seeds"]
            if (one["contender"], one["measure"]) == (name, measure)
        ]  # fmt: skip
        first = max(speedups[0] for speedups, _ in curves)
        last = min(speedups[-1] for speedups, _ in curves)
        grid = np.geomspace(first, last, 200) if last > first else np.array([first])
        kept = np.mean(
            [np.interp(np.log(grid), np.log(speedups), kept) for speedups, kept in curves], axis=0
        )
        marked = [float(target) for target in row["exact"] if first <= float(target) <= last]
        yield Series(label, number, grid, kept, tuple(marked) if len(grid) > 1 else (float(first),))


def timed_series_of(found: Mapping[str, Any]) -> Iterator[Series]:
    """Yield what was kept at which measured speed-up, in the order of the summary.

    Of settings that are equally fast the best is drawn; what a runtime refused has none.
    """
    for line, row in zip(series_of(found), found["times"]["summary"], strict=True):
        taken = [one for one in row["settings"].values() if one is not None]
        kept: dict[float, float] = {}
        for one in taken:
            faster, share = one["alone_faster"], 100 * one["retention"]
            kept[faster] = max(share, kept.get(faster, share))
        rising = sorted(kept)
        shares = np.array([kept[faster] for faster in rising])
        if rising:
            yield Series(line.label, line.number, np.array(rising), shares, tuple(rising))


def _limit(axes: Axes, lines: Sequence[Series]) -> None:
    """Choose the part that is shown, and its ticks."""
    right = min(SHOWN_TO, max(6.6, *(line.speedups[-1] * 1.05 for line in lines)))
    seen = np.concatenate([line.kept[line.speedups <= right] for line in lines])
    bottom, top = max(float(seen.min()), LEAST_KEPT), max(float(seen.max()), 100.0)
    room = 0.05 * max(top - bottom, 2.0)
    axes.set_xscale("log")
    axes.set_xlim(min(0.96, *(line.speedups[0] / 1.04 for line in lines)), right)
    axes.set_ylim(bottom - room, top + room)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(as_times))
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.axhline(100, color=LIGHT["line"], linewidth=1.2, zorder=1)
    axes.axhline(99, color=LIGHT["line"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)


def _draw_line(axes: Axes, line: Series) -> None:
    colour, marker = _look(line.number)
    if len(line.speedups) > 1:
        dash = DASHES[line.number // len(COLOURS) % len(DASHES)]
        axes.plot(line.speedups, line.kept, dash, color=colour, linewidth=1.8)
    places = list(line.marked)
    axes.plot(
        places, [line.at(place) for place in places], marker,
        color=colour, markersize=6 if len(line.speedups) > 1 else 8,
        markeredgecolor=LIGHT["surface"], markeredgewidth=0.8, linestyle="none",
    )  # fmt: skip
    if len(line.speedups) == 1:
        axes.annotate(
            line.label, (places[0], line.kept[0]), textcoords="offset points",
            xytext=(6, 5) if line.kept[0] >= 99.5 else (6, -11),  # under the curves

            color=LIGHT["ink"], fontsize=9,
            bbox={"facecolor": LIGHT["surface"], "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
        ).set_in_layout(False)  # fmt: skip


def _look(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def _name_ends(axes: Axes, names: Axes, lines: Sequence[Series]) -> None:
    """Write each name beside the end of its curve, and lead from one to the other.

    Args:
        axes: Where the lines are.
        names: An empty part of the figure, right of them.
        lines: All of them.
    """
    names.set_axis_off()
    names.set_xlim(0, 1)
    names.set_ylim(*axes.get_ylim())
    (bottom, top), right = axes.get_ylim(), axes.get_xlim()[1]
    curves = [line for line in lines if len(line.speedups) > 1]
    ends = [_end(line, right, bottom) for line in curves]
    heights = spread([(kept - bottom) / (top - bottom) for _, kept in ends], LINE)
    for line, end, height in zip(curves, ends, heights, strict=True):
        colour, marker = _look(line.number)
        level = bottom + height * (top - bottom)
        names.plot([0.06], [level], marker, color=colour, markersize=6, clip_on=False)
        names.text(0.12, level, line.label, va="center", ha="left", color=LIGHT["ink"], fontsize=9)
        axes.annotate(
            "", xy=end, xytext=(0.0, level), textcoords=names.transData,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.55},
            annotation_clip=False,
        ).set_in_layout(False)  # fmt: skip


def _end(line: Series, right: float, bottom: float) -> tuple[float, float]:
    """Return where a curve leaves the figure or ends."""
    shown = (line.speedups <= right) & (line.kept >= bottom)
    place = int(np.flatnonzero(shown)[-1]) if shown.any() else 0
    return float(line.speedups[place]), max(float(line.kept[place]), bottom)


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Return places that are at least so far apart, in the same order and near where they were.

    Those that are too near become a group around their own mean.
    """
    order = sorted(range(len(places)), key=lambda one: places[one])
    groups: list[list[int]] = []
    for one in order:
        groups.append([one])
        while len(groups) > 1 and _low(groups[-1], places, apart) < apart + _high(
            groups[-2], places, apart
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = list(places)
    for group in groups:
        lowest = _low(group, places, apart)
        for number, one in enumerate(group):
            moved[one] = lowest + number * apart
    return moved


def _low(group: Sequence[int], places: Sequence[float], apart: float) -> float:
    return sum(places[one] for one in group) / len(group) - apart * (len(group) - 1) / 2


def _high(group: Sequence[int], places: Sequence[float], apart: float) -> float:
    return _low(group, places, apart) + apart * (len(group) - 1)
