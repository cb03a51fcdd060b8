"""The report as one HTML file, and its figures as files of their own.

The page holds everything it shows: no script, no style sheet, no font and no picture is loaded, and
a content policy in its head keeps it so. Texts and names come from users; the template escapes
them. Needs jinja2 and matplotlib.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastbert.files.whole_file import whole_file
from fastbert.report import analysis, brush, captions, figures
from fastbert.report.analysis import Table
from fastbert.report.data import ReportData
from fastbert.tasks.known import METRIC_COLUMNS
from fastbert.tasks.metrics import spelled
from fastbert.tasks.task import Metric

DARK = {
    "surface": "#161b22",
    "ink": "#e6eaf0",
    "muted": "#a3adba",
    "line": "#485260",
    "grid": "#272e38",
    "blue": "#6ea2ff",
    "orange": "#f0955a",
    "grey": "#929dab",
    "depth1": "#f0ae62",
    "depth2": "#f2809f",
    "depth3": "#cd92e8",
    "depth4": "#93a6ff",
}
_SHARES = {"agreement", "share", "max_drop"}.union(
    METRIC_COLUMNS, (f"teacher_{column}" for column in METRIC_COLUMNS)
)


@dataclass(frozen=True)
class Exhibit:
    """A figure with its numbers and its sentence.

    Args:
        name: Of its files and of its place in the page.
        title: Heading.
        quality: What the numbers under `accuracy` are called.
        column: The same where it is the name of a column.
        table: What is drawn; no figure if it is empty.
        draw: Draws it.
        describe: Says in a sentence what the table shows.
    """

    name: str
    title: str
    quality: str
    column: str
    table: Table
    draw: brush.Draw
    describe: Callable[[Table, str], str]

    @cached_property
    def caption(self) -> str:
        """The sentence under the figure."""
        return self.describe(self.table, self.quality)

    @cached_property
    def numbers(self) -> Table:
        """The table for readers: what is no accuracy is not called so."""
        return _called(self.table, self.column)

    @property
    def csv(self) -> str:
        """The numbers as CSV with a line of names; a missing value is empty."""
        return table_csv(self.numbers)

    @property
    def csv_address(self) -> str:
        """The CSV file as an address that holds it."""
        return f"data:text/csv;charset=utf-8,{quote(self.csv)}"

    def picture(self, format: str) -> bytes:
        """Return the figure as the content of a `png` or `svg` file."""
        return brush.picture(self.draw, self.table, self.quality, format)

    def svg(self, size: str) -> Markup:
        """Return the figure for the page, `wide` or `narrow`."""
        width = brush.WIDE if size == "wide" else brush.NARROW
        name = f"{self.name}-{size}"
        drawn = (self.draw, self.table, self.quality, width, name, self.title, self.caption)
        return Markup(brush.inline_svg(*drawn))  # its own labels are escaped by matplotlib


def write_report(report: ReportData, output: Path, figures: Path | None = None) -> None:
    """Write the report's page and, if a folder is given, each figure as PNG, SVG and CSV.

    Each file is written whole or not at all.

    Args:
        report: What to report.
        output: The HTML file; what was there is replaced.
        figures: A folder for the figures, made if it is not there.
    """
    shown = exhibits(report)
    page = render(report, shown)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        for exhibit in shown:
            _write(figures / f"{exhibit.name}.csv", exhibit.csv.encode())
            for format in ("png", "svg"):
                _write(figures / f"{exhibit.name}.{format}", exhibit.picture(format))
    output.parent.mkdir(parents=True, exist_ok=True)
    _write(output, page.encode())


def _timed(report: ReportData) -> Table:
    return [row for row in analysis.time_tradeoff(report) if row["accuracy"] is not None]


def _metric(report: ReportData) -> Metric:
    return report.metric


def _row_metric(report: ReportData) -> Metric:
    return report.row_metric


# Name, title, by what answers are judged there, what is drawn, what draws it, what says it in a
# sentence; in the order of the page.
_EXHIBITS: tuple[
    tuple[
        str,
        str,
        Callable[[ReportData], Metric],
        Callable[[ReportData], Table],
        brush.Draw,
        Callable[[Table, str], str],
    ],
    ...,
] = (
    (
        "tradeoff",
        "{quality} and FLOPs",
        _metric,
        analysis.tradeoff,
        figures.tradeoff,
        captions.tradeoff,
    ),
    (
        "time_tradeoff",
        "{quality} and measured time",
        _metric,
        _timed,
        figures.time_tradeoff,
        captions.time_tradeoff,
    ),
    (
        "luha",
        "The lower the uncertainty, the more often right",
        _row_metric,
        analysis.luha,
        figures.luha,
        captions.luha,
    ),
    (
        "exit_layers",
        "Where rows leave",
        _metric,
        analysis.exit_layers,
        figures.exit_layers,
        captions.exit_layers,
    ),
    (
        "uncertainty_by_layer",
        "Uncertainty after each layer",
        _metric,
        analysis.uncertainty_by_layer,
        figures.uncertainty_by_layer,
        captions.uncertainty_by_layer,
    ),
    ("training", "Training", _metric, analysis.training, figures.training, captions.training),
    (
        "per_class",
        "Which {nouns} leave late",
        _row_metric,
        analysis.per_class,
        figures.per_class,
        captions.per_class,
    ),
)


def exhibits(report: ReportData) -> list[Exhibit]:
    """Return the figures for which there is something to draw."""
    titled = {
        "quality": report.quality[:1].upper() + report.quality[1:],  # F1 keeps its capital
        "nouns": captions.several(report.task.noun),
    }
    all_of_them = [
        Exhibit(
            name,
            title.format(**titled),
            report.named(metric(report)),
            report.column(metric(report)),
            table(report),
            draw,
            describe,
        )
        for name, title, metric, table, draw, describe in _EXHIBITS
    ]
    return [exhibit for exhibit in all_of_them if exhibit.table]


def render(report: ReportData, shown: Sequence[Exhibit]) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("fastbert.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    environment.filters["words"] = words
    environment.filters["several"] = captions.several
    return environment.get_template("report.html.j2").render(
        report=report,
        exhibits=shown,
        glance=glance(report),
        points=_without([dict(point) for point in report.points], "thresholds"),
        thresholds=[_thresholds(point) for point in report.points],
        calibration=_printed(report.calibration or {}),
        guarantees=_same_keys(report.guarantees),
        timings=_same_keys(report.timings),
        examples=analysis.early_and_wrong(report),
        focus_speed=analysis.FOCUS_SPEED,
        light=brush.LIGHT,
        dark=DARK,
    )


def glance(report: ReportData) -> list[tuple[str, str]]:
    """Return the few figures to read first, each with what it is."""
    points = analysis.tradeoff(report)
    at = {row["setting"]: row for row in points if row["series"] == "speed"}
    focus = at[analysis.FOCUS_SPEED]
    facts = []
    if report.truth is not None:
        judged = f"{spelled(report.metric.column)} of the full model"
        facts.append((captions.percent(at[0.0]["accuracy"]), judged))
    facts += [
        (captions.percent(focus["accuracy"]), f"{report.quality} at speed {focus['setting']:g}"),
        (captions.times(focus["speedup_flops"]), f"fewer FLOPs at speed {focus['setting']:g}"),
        (
            f"{focus['mean_exit_layer']:.1f} of {report.num_layers}",
            f"layers on average at speed {focus['setting']:g}",
        ),
    ]
    kept = [row for row in report.guarantees if not row.get("refused") and row.get("speedup_flops")]
    if kept:
        best = max(kept, key=lambda row: float(row["speedup_flops"]))
        promise = (
            f"fewer FLOPs, losing at most {100 * best['max_drop']:g} % {words(best['metric'])} "
            f"at {100 * best['confidence']:g} % confidence"
        )
        facts.append((captions.times(best["speedup_flops"]), promise))
    return facts


def table_csv(table: Table) -> str:
    """Return a table as CSV with a line of names; a missing value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def cell(value: Any, column: str) -> str:
    """Write one value of a table for reading."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return _plain(value)
    if column in _SHARES:
        return captions.percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    if column.startswith("speedup"):
        return captions.times(value)
    return f"{value:.4g}"


def words(column: str) -> str:
    """Write a column's name for reading."""
    known = {
        "speedup_flops": "speed-up (FLOPs)",
        "speedup_time": "speed-up (time)",
    }
    return known.get(column, spelled(column))


def _called(table: Table, column: str) -> Table:
    """Call `accuracy` what it is; what says nothing new beside agreement is left out."""
    dropped = {"agreement", "teacher_accuracy"} if column == "agreement" else set()
    names = {"accuracy": column, "teacher_accuracy": f"teacher_{column}"}
    return [
        {names.get(name, name): value for name, value in row.items() if name not in dropped}
        for row in table
    ]


def _plain(value: Any) -> str:
    """Write a value of any kind on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _printed(values: Mapping[str, Any]) -> dict[str, str]:
    return {words(name): cell(value, name) for name, value in values.items()}


def _thresholds(point: Mapping[str, Any]) -> str:
    return _plain([round(float(threshold), 4) for threshold in point.get("thresholds", ())])


def _same_keys(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Give all rows the keys of any, missing values None, and write lists as text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        {
            name: _thresholds(row) if name == "thresholds" and name in row else row.get(name)
            for name in names
        }
        for row in rows
    ]


def _without(rows: Table, name: str) -> Table:
    return _same_keys([{key: row[key] for key in row if key != name} for row in rows])


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)
