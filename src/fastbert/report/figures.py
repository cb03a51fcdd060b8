"""The figures of a report, each drawn from its table alone. They need matplotlib.

| file | shows | in Liu et al., FastBERT (ACL 2020) |
| --- | --- | --- |
| `tradeoff` | quality against FLOPs speed-up | Figure 3 |
| `time_tradeoff` | quality against measured speed-up | - |
| `luha` | accuracy by uncertainty | Figure 4 |
| `exit_layers` | where rows leave | Figure 5 |
| `uncertainty_by_layer` | uncertainty after each layer | Figure 6 |
| `training` | curves by epoch | Figure 7 |
| `per_class` | which classes leave late | - |

A figure is drawn at a width, so that the page can show another one on a small screen instead of
shrinking the letters. Colours come from `LIGHT`; as each is written in one way only, an SVG in the
page has them replaced by CSS variables of the same names (`inline_svg`) and follows the reader's
light or dark.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fastbert.report.analysis import FEW_ROWS, FOCUS_SPEED, MOST_CLASSES, Table

Draw = Callable[[Table, str, float], Figure]
"""From a table, the name of its quality and a width in inches to a figure."""

WIDE, NARROW = 7.6, 3.7  # inches
LIGHT = {
    "surface": "#ffffff",
    "ink": "#1b222c",
    "muted": "#566171",
    "line": "#b9c1cc",
    "grid": "#e7eaee",
    "blue": "#2460c8",
    "orange": "#c04f0a",
    "grey": "#75808f",
    "depth1": "#d17b1f",
    "depth2": "#c9406c",
    "depth3": "#8d3cae",
    "depth4": "#4257c4",
}
DEPTHS = ["depth1", "depth2", "depth3", "depth4"]
MARKERS = ["o", "s", "^", "D"]
LEAST_SPAN = 2.0  # percent points of a vertical axis: less would make noise look like news
LONGEST_LABEL = {WIDE: 36, NARROW: 20}  # characters
_RATIOS = [0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96]
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "SimHei")


# The figures.


def tradeoff(table: Table, quality: str, width: float) -> Figure:
    """Draw quality against FLOPs speed-up: the paper's criterion, calibrated points, plain cuts.

    The model card adds the default as a series of its own, `chosen`.
    """
    figure, [axes] = _panels(1, width, height=3.6)
    _limit(axes, [row["speedup_flops"] for row in table], _percents(table))
    series = {
        "cut": ("every row stops at one layer", "grey", "s:", 3.5),
        "speed": ("uncertainty below a speed", "blue", "o-", 4),
        "calibrated": ("calibrated", "orange", "D-", 5),
        "chosen": ("the default, chosen on held-out texts", "orange", "D", 6),
    }
    for name, (label, colour, style, size) in series.items():
        if rows := _sorted(_where(table, series=name), "speedup_flops"):
            ups, percents = [row["speedup_flops"] for row in rows], _percents(rows)
            axes.plot(ups, percents, style, color=LIGHT[colour], markersize=size, label=label)
    tenths = [row for row in _where(table, series="speed") if round(20 * row["setting"]) % 2 == 0]
    _name_points(axes, tenths, "speed {:g}", "blue")
    _name_points(
        axes, _where(table, series="cut")[:-1], "layer {:g}", "grey"
    )  # the last is speed 0
    axes.set_title(quality, loc="left")
    axes.set_xlabel("times fewer FLOPs than the full model")
    figure.legend(loc="outside lower left", ncols=3 if width == WIDE else 1)
    return figure


def time_tradeoff(table: Table, quality: str, width: float) -> Figure:
    """Draw quality against the measured speed-up in time."""
    figure, [axes] = _panels(1, width, height=2.9)
    rows = _sorted([row for row in table if row["accuracy"] is not None], "speedup_time")
    ups = [row["speedup_time"] for row in rows]
    _limit(axes, ups, _percents(rows))
    axes.plot(ups, _percents(rows), "o-", color=LIGHT["blue"], markersize=5)
    points = [
        {**row, "setting": row["speed"], "speedup_flops": row["speedup_time"]} for row in rows
    ]
    _name_points(axes, points, "speed {:g}", "blue")
    axes.set_title(quality, loc="left")
    axes.set_xlabel("times faster than speed 0, measured")
    return figure


def luha(table: Table, quality: str, width: float) -> Figure:
    """Draw accuracy by uncertainty for several exits, over the number of rows in each bin."""
    figure, [upper, lower] = _panels(2, width, height=4.6, ratios=[3.0, 1.3], sharex=True)
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
        percents = np.array(_percents(rows))
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
    _percent_axis(upper)
    upper.set_title(quality, loc="left")
    figure.legend(loc="outside lower left", ncols=3 if width == WIDE else 2)
    return figure


def exit_layers(table: Table, quality: str, width: float) -> Figure:
    """Draw after which layer how many rows leave, one panel for each setting."""
    settings = {name: list(rows) for name, rows in groupby(table, key=lambda row: row["setting"])}
    figure, panels = _panels(
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
                    _name_bar(axes, layer, share)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    panels[0].set_ylim(0, 118 * highest)
    _layer_axis(panels[-1], layers[-1])
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
    figure, panels = _panels(len(groups), width, height=height, sharex=True, sharey=True)
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
    _layer_axis(panels[-1], last)
    panels[-1].set_xlabel("layer")
    return figure


def training(table: Table, quality: str, width: float) -> Figure:
    """Draw quality and speed-up by epoch, through both stages."""
    curves = {
        "accuracy": (quality, FuncFormatter(_percent), 100.0),
        "speedup_flops": (f"times fewer FLOPs, speed {FOCUS_SPEED:g}", FuncFormatter(_times), 1.0),
        "loss": ("loss", FuncFormatter(lambda value, _: f"{value:g}"), 1.0),
    }
    shown = [name for name in curves if any(row[name] is not None for row in table)]
    height = 0.7 + 1.45 * max(len(shown), 1)
    figure, panels = _panels(max(len(shown), 1), width, height=height, sharex=True)
    for axes, name in zip(panels, shown, strict=False):
        title, formatter, scale = curves[name]
        for stage, colour, style in (("teacher", "grey", "s-"), ("students", "blue", "o-")):
            rows = [row for row in _where(table, stage=stage) if row[name] is not None]
            values = [scale * row[name] for row in rows]
            steps = [row["step"] for row in rows]
            axes.plot(steps, values, style, color=LIGHT[colour], markersize=5, label=stage)
        axes.set_title(title, loc="left")
        axes.margins(x=0.04, y=0.18)
        if name == "accuracy":
            _percent_axis(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(formatter)
        _split_stages(axes, table)
    panels[-1].xaxis.set_major_locator(FixedLocator([row["step"] for row in table]))
    epochs = {row["step"]: row["epoch"] for row in table}
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{epochs.get(step, 0):g}"))
    panels[-1].set_xlabel("epoch of the stage")
    names = {"teacher": "fine-tuning of the teacher", "students": "distillation of the students"}
    if shown:
        handles, stages = panels[0].get_legend_handles_labels()
        present = [stage for stage in stages if _where(table, stage=stage)]
        kept = [handle for handle, stage in zip(handles, stages, strict=True) if stage in present]
        labels = [names[stage] for stage in present]
        figure.legend(kept, labels, loc="outside lower left", ncols=2 if width == WIDE else 1)
    return figure


def per_class(table: Table, quality: str, width: float) -> Figure:
    """Draw the mean exit layer of each class beside how often it is answered right."""
    rows = table[:MOST_CLASSES]
    height = 0.95 + 0.185 * max(len(rows), 3)
    figure, [left, right] = _panels(2, width, height=height, columns=[1.6, 1.0], sharey=True)
    places = np.arange(len(rows))
    exits = [row["mean_exit_layer"] for row in rows]
    mean = float(np.average(exits, weights=[row["rows"] for row in rows]))
    left.hlines(places, mean, exits, color=LIGHT["line"], linewidth=1.2)
    left.axvline(mean, color=LIGHT["line"], linewidth=1)
    left.plot(exits, places, "o", color=LIGHT["blue"])
    teacher = [100 * row["teacher_accuracy"] for row in rows]
    right.plot(teacher, places, "o", color=LIGHT["surface"], markeredgecolor=LIGHT["ink"])
    right.plot(_percents(rows), places, "o", color=LIGHT["blue"], markersize=4)
    names = [_short(row["class"], LONGEST_LABEL[width]) for row in rows]
    left.set_yticks(places, names, parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    for axes in (left, right):
        axes.grid(visible=True, axis="both")
        axes.xaxis.set_major_locator(MaxNLocator(4 if width == WIDE else 2))
    _show_at_least(left, 1.0)
    _show_at_least(right, LEAST_SPAN)
    right.xaxis.set_major_formatter(FuncFormatter(_percent))
    right.tick_params(labelleft=False)
    left.set_title("mean exit layer" if width == WIDE else "mean layer", loc="left")
    right.set_title(quality if width == WIDE else quality.partition(" ")[0], loc="left")
    right.set_xlabel("ring: the teacher" if width == WIDE else "ring: teacher")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]  # _panels sets a constrained one
    return figure


# Their files.


def picture(draw: Draw, table: Table, quality: str, format: str) -> bytes:
    """Return a figure as a file's content, `png` or `svg`, in light colours."""
    with _style():
        return _saved(draw(table, quality, WIDE), format)


def inline_svg(
    draw: Draw, table: Table, quality: str, width: float, name: str, title: str, description: str
) -> str:
    """Return a figure as an SVG element for a page that holds several.

    Args:
        draw: Which figure.
        table: Its numbers.
        quality: What its `accuracy` is called.
        width: In inches.
        name: Put before every id of the element: it must be no other's.
        title: What the figure shows, for those who cannot see it.
        description: What can be seen there.
    """
    with _style():
        svg = _saved(draw(table, quality, width), "svg").decode()
    svg = svg[svg.index("<svg") :]  # no XML declaration and no document type
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # would style the whole page
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for variable, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{variable})")
    ids = f'aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    words = f'<title id="{name}-title">{escape(title)}</title>'
    words += f'<desc id="{name}-desc">{escape(description)}</desc>'
    return re.sub(
        r"^<svg ([^>]*)>", lambda found: f'<svg role="img" {ids} {found[1]}>{words}', svg
    ).strip()


def _saved(figure: Figure, format: str) -> bytes:
    buffer = io.BytesIO()
    undated = {"Date": None} if format == "svg" else None
    figure.savefig(buffer, format=format, dpi=150, metadata=undated)
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw with the report's look, whatever a user's matplotlibrc says."""
    known = set(font_manager.get_font_names())
    look: dict[Any, Any] = {  # the keys are of a type that lists them all
        "figure.facecolor": LIGHT["surface"],
        "savefig.facecolor": "auto",
        "axes.facecolor": "none",
        "axes.edgecolor": LIGHT["line"],
        "axes.labelcolor": LIGHT["muted"],
        "axes.titlecolor": LIGHT["ink"],
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.formatter.use_mathtext": False,
        "grid.color": LIGHT["grid"],
        "grid.linewidth": 0.8,
        "text.color": LIGHT["ink"],
        "xtick.color": LIGHT["line"],
        "ytick.color": LIGHT["line"],
        "xtick.labelcolor": LIGHT["muted"],
        "ytick.labelcolor": LIGHT["muted"],
        "font.size": 9,
        "font.family": [name for name in _FONTS if name in known],
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "svg.fonttype": "none",  # text stays text: to be searched, and set in the page's font
        "svg.hashsalt": "fastbert",  # the same figure has the same ids
    }
    with rc_context({}), warnings.catch_warnings():
        # A class may be called by any script; a box in the PNG is all that a missing glyph does.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        rcdefaults()
        rcParams.update(look)
        yield


# What they share.


def _panels(
    count: int,
    width: float,
    *,
    height: float,
    ratios: list[float] | None = None,
    columns: list[float] | None = None,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels one under the other or, given their widths, side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(
        1 if columns else count,
        count if columns else 1,
        height_ratios=ratios,
        width_ratios=columns,
        sharex=sharex,
        sharey=sharey,
        squeeze=False,
    )
    return figure, list(axes.flat)


def _where(table: Table, **values: Any) -> Table:
    return [row for row in table if all(row[name] == value for name, value in values.items())]


def _sorted(table: Table, name: str) -> Table:
    return sorted((row for row in table if row[name] is not None), key=lambda row: float(row[name]))


def _percents(rows: Table) -> list[float]:
    return [np.nan if row["accuracy"] is None else 100 * row["accuracy"] for row in rows]


def _percent(value: float, _: int | None = None) -> str:
    return f"{value:g} %"


def _times(value: float, _: int | None = None) -> str:
    return f"{value:g}\N{MULTIPLICATION SIGN}"


def _short(label: str, longest: int) -> str:
    """Leave out the middle of a long label: names of one kind often begin alike."""
    tail = longest // 3
    return label if len(label) <= longest else f"{label[: longest - tail - 1]}…{label[-tail:]}"


def _percent_axis(axes: Axes) -> None:
    """Show at least `LEAST_SPAN` points."""
    bottom, top = axes.get_ylim()
    missing = max(0.0, LEAST_SPAN - (top - bottom)) / 2
    axes.set_ylim(bottom - missing, top + missing)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _show_at_least(axes: Axes, span: float) -> None:
    """Give the horizontal axis some room, and at least a span: less is no news."""
    left, right = axes.get_xlim()
    missing = max(0.06 * (right - left), (span - (right - left)) / 2)
    axes.set_xlim(left - missing, right + missing)


def _limit(axes: Axes, ups: list[Any], percents: list[float]) -> None:
    """Give speed-ups a logarithmic axis, since they are ratios, and points room for labels."""
    known = [up for up in ups if up is not None]
    axes.set_xscale("log")
    axes.set_xlim(min(known) / 1.08, max(max(known), 1.3 * min(known)) * 1.12)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(_RATIOS))
    axes.xaxis.set_major_formatter(FuncFormatter(_times))
    span = max(float(np.nanmax(percents) - np.nanmin(percents)), LEAST_SPAN)
    middle = float(np.nanmax(percents) + np.nanmin(percents)) / 2
    axes.set_ylim(middle - 0.62 * span, middle + 0.62 * span)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _name_points(axes: Axes, rows: Table, name: str, colour: str) -> None:
    """Write settings over (blue) or under (grey) their points, in order, where there is room.

    The first says in words what all are.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    letter = 0.09 / figure.get_figwidth()  # width of one, as a share of the figure's
    left, right = np.log(axes.get_xlim())
    last = None  # where the latest label is, and how long
    for row in rows:
        text = name.format(row["setting"]) if last is None else f"{row['setting']:g}"
        place = (np.log(row["speedup_flops"]) - left) / (right - left)
        if last is not None and abs(place - last[0]) < letter * (last[1] + len(text) + 2) / 2:
            continue
        last = place, len(text)
        axes.annotate(
            text,
            (row["speedup_flops"], 100 * row["accuracy"]),
            xytext=(0, 6 if colour == "blue" else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if colour == "blue" else "top",
            fontsize=8,
            color=LIGHT[colour],
            bbox={"facecolor": LIGHT["surface"], "edgecolor": "none", "pad": 0.5},
            zorder=1.5,  # over the grid, under the curves
        ).set_in_layout(False)


def _name_bar(axes: Axes, layer: int, share: float) -> None:
    """Write a bar's percents over it."""
    axes.text(
        layer,
        share + 2,
        f"{share:.0f}",
        ha="center",
        va="bottom",
        fontsize=7.5,
        color=LIGHT["muted"],
        bbox={"facecolor": LIGHT["surface"], "edgecolor": "none", "pad": 0.5},
    )


def _layer_axis(axes: Axes, last: int) -> None:
    """Tick whole layers, the last one among them."""
    step = 1 if last <= 12 else 2 if last <= 24 else 4
    axes.xaxis.set_major_locator(FixedLocator(list(range(last, 0, -step))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda layer, _: f"{layer:.0f}"))


def _split_stages(axes: Axes, table: Table) -> None:
    """Draw a line between the two stages where there are both."""
    stages = [len(_where(table, stage=stage)) for stage in ("teacher", "students")]
    if all(stages):
        axes.axvline(stages[0] + 0.5, color=LIGHT["line"], linewidth=1)
