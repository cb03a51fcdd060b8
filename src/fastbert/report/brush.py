"""What all figures share: colours, axes, labels, and how a figure becomes a file."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fastbert.report.analysis import Table

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


# Their files.


def picture(draw: Draw, table: Table, quality: str, format: str) -> bytes:
    """Return a figure as a file's content, `png` or `svg`, in light colours."""
    with style():
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
    with style():
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
def style() -> Iterator[None]:
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


def new_panels(
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


def rows_with(table: Table, **values: Any) -> Table:
    """Return the rows that have these values."""
    return [row for row in table if all(row[name] == value for name, value in values.items())]


def by_column(table: Table, name: str) -> Table:
    """Return the rows that have a value in a column, sorted by it."""
    return sorted((row for row in table if row[name] is not None), key=lambda row: float(row[name]))


def accuracies(rows: Table) -> list[float]:
    """Return the accuracies in percent; NaN where there is none."""
    return [np.nan if row["accuracy"] is None else 100 * row["accuracy"] for row in rows]


def as_percent(value: float, _: int | None = None) -> str:
    """Write a tick of an axis of percents."""
    return f"{value:g} %"


def as_times(value: float, _: int | None = None) -> str:
    """Write a tick of an axis of factors."""
    return f"{value:g}\N{MULTIPLICATION SIGN}"


def shortened_label(label: str, longest: int) -> str:
    """Leave out the middle of a long label: names of one kind often begin alike."""
    tail = longest // 3
    return label if len(label) <= longest else f"{label[: longest - tail - 1]}…{label[-tail:]}"


def percent_axis(axes: Axes) -> None:
    """Show at least `LEAST_SPAN` points."""
    bottom, top = axes.get_ylim()
    missing = max(0.0, LEAST_SPAN - (top - bottom)) / 2
    axes.set_ylim(bottom - missing, top + missing)
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))


def show_at_least(axes: Axes, span: float) -> None:
    """Give the horizontal axis some room, and at least a span: less is no news."""
    left, right = axes.get_xlim()
    missing = max(0.06 * (right - left), (span - (right - left)) / 2)
    axes.set_xlim(left - missing, right + missing)


def limit_axes(axes: Axes, ups: list[Any], percents: list[float]) -> None:
    """Give speed-ups a logarithmic axis, since they are ratios, and points room for labels."""
    known = [up for up in ups if up is not None]
    axes.set_xscale("log")
    axes.set_xlim(min(known) / 1.08, max(max(known), 1.3 * min(known)) * 1.12)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(_RATIOS))
    axes.xaxis.set_major_formatter(FuncFormatter(as_times))
    span = max(float(np.nanmax(percents) - np.nanmin(percents)), LEAST_SPAN)
    middle = float(np.nanmax(percents) + np.nanmin(percents)) / 2
    axes.set_ylim(middle - 0.62 * span, middle + 0.62 * span)
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))


def name_points(axes: Axes, rows: Table, name: str, colour: str) -> None:
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


def name_bar(axes: Axes, layer: int, share: float) -> None:
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


def layer_axis(axes: Axes, last: int) -> None:
    """Tick whole layers, the last one among them."""
    step = 1 if last <= 12 else 2 if last <= 24 else 4
    axes.xaxis.set_major_locator(FixedLocator(list(range(last, 0, -step))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda layer, _: f"{layer:.0f}"))


def split_stages(axes: Axes, table: Table) -> None:
    """Draw a line between the two stages where there are both."""
    stages = [len(rows_with(table, stage=stage)) for stage in ("teacher", "students")]
    if all(stages):
        axes.axvline(stages[0] + 0.5, color=LIGHT["line"], linewidth=1)
