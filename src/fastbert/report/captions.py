"""One plain sentence for each figure of a report, computed from the figure's own table."""

from itertools import groupby
from typing import Any

from fastbert.report.analysis import FEW_ROWS, FOCUS_SPEED, MOST_CLASSES, Table


def tradeoff(table: Table, quality: str) -> str:
    """Say what the middle speed costs and saves, beside a plain cut of about the same cost."""
    full = next(row for row in table if row["series"] == "speed" and row["setting"] == 0)
    at = next(row for row in table if row["series"] == "speed" and row["setting"] == FOCUS_SPEED)
    cuts = [row for row in table if row["series"] == "cut"]
    cut = min(cuts, key=lambda row: abs(row["speedup_flops"] - at["speedup_flops"]))
    said = (
        f"At speed {FOCUS_SPEED:g} rows take {times(at['speedup_flops'])} fewer FLOPs than in the "
        f"full model and the {quality} is {percent(at['accuracy'])}, "
        f"{_against(at['accuracy'], full['accuracy'])} the full model's "
        f"{percent(full['accuracy'])}; "
        f"stopping every row at layer {cut['setting']}, the nearest in cost at "
        f"{times(cut['speedup_flops'])}, gives {percent(cut['accuracy'])}."
    )
    given = [row for row in table if row["series"] == "calibrated" and row["speedup_flops"]]
    if not given:
        return said
    fastest = max(given, key=lambda row: float(row["speedup_flops"]))
    reached = "" if fastest["accuracy"] is None else f" at {percent(fastest['accuracy'])}"
    fewer = times(fastest["speedup_flops"])
    return f"{said} The fastest calibrated point takes {fewer} fewer{reached}."


def time_tradeoff(table: Table, quality: str) -> str:
    """Say how fast the fastest measured run was."""
    fastest = max(table, key=lambda row: float(row["speedup_time"]))
    said = (
        f"The fastest run, at speed {fastest['speed']:g}, took {fastest['seconds']:.3g} seconds "
        f"and was {times(fastest['speedup_time'])} as fast as speed 0"
    )
    if fastest["speedup_flops"] is not None:
        said += f", with {times(fastest['speedup_flops'])} fewer FLOPs"
    if fastest["accuracy"] is not None:
        said += f" and {quality} {percent(fastest['accuracy'])}"
    return said + "."


def luha(table: Table, quality: str) -> str:
    """Say how right the most and the least certain answers of the first shown exit are."""
    layer, group = next(groupby(table, key=lambda row: row["layer"]))
    bins = [row for row in group if row["rows"] >= FEW_ROWS]
    if len(bins) < 2:
        return f"Too few rows: no two bins of layer {layer} hold {FEW_ROWS} of them."
    sure, unsure = bins[0], bins[-1]
    return (
        f"After layer {layer}, answers with uncertainty {_bin(sure)} have {quality} "
        f"{percent(sure['accuracy'])} ({count(sure['rows'])}), those with {_bin(unsure)} "
        f"{percent(unsure['accuracy'])} ({count(unsure['rows'])}); early exit pays "
        "where the curves fall."
    )


def exit_layers(table: Table, quality: str) -> str:
    """Say how many rows leave in the first half, and how many the teacher answers."""
    rows = [row for row in table if row["setting"] == f"speed {FOCUS_SPEED:g}"]
    half = len(rows) // 2
    early = sum(row["share"] for row in rows[:half])
    where = "after layer 1" if half == 1 else f"within the first {half} layers"
    return (
        f"At speed {FOCUS_SPEED:g}, {percent(early)} of the rows leave {where} and "
        f"{percent(rows[-1]['share'])} reach the teacher (grey bar). Dashed: the mean."
    )


def uncertainty_by_layer(table: Table, quality: str) -> str:
    """Say from where to where the median goes, and what the marks are."""
    rows = [row for row in table if row["measure"] == "uncertainty" and row["speed"] == 0]
    first, last = rows[0], rows[-1]
    return (
        f"The median uncertainty goes from {first['median']:.2f} after layer {first['layer']} to "
        f"{last['median']:.2f} after layer {last['layer']}. Dots are medians, thick bars hold the "
        "middle half of the rows, thin lines the middle nine tenths; dashed is the threshold."
    )


def training(table: Table, quality: str) -> str:
    """Say where each stage ended."""
    said = []
    for stage, group in groupby(table, key=lambda row: str(row["stage"])):
        rows = list(group)
        name = "Fine-tuning" if stage == "teacher" else "Distillation"
        ended = f"{name} ended after {len(rows)} epoch{'s' * (len(rows) > 1)}"
        if rows[-1]["accuracy"] is not None:
            ended += f" with {quality} {percent(rows[-1]['accuracy'])}"
            ended += f" at speed {FOCUS_SPEED:g}" if stage == "students" else ""
        if rows[-1]["speedup_flops"] is not None:
            ended += f" and {times(rows[-1]['speedup_flops'])} fewer FLOPs"
        said.append(ended + ".")
    return " ".join(said)


def per_class(table: Table, quality: str) -> str:
    """Say which class leaves last and which first."""
    last, first = table[0], table[-1]  # the table is sorted
    noun, *_ = last
    if first is last:
        return f"All rows belong to one {noun}, {last[noun]}."
    return (
        f"At speed {FOCUS_SPEED:g}, rows of {last[noun]} run longest, "
        f"{last['mean_exit_layer']:.1f} layers on average, and rows of {first[noun]} leave "
        f"first, after {first['mean_exit_layer']:.1f}."
        f"{_left_out(len(table), several(noun))}"
    )


def percent(share: float | int) -> str:
    """Write a share with one digit after the point."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def times(factor: float | int) -> str:
    """Write a factor with two digits after the point."""
    return f"{factor:.2f}\N{MULTIPLICATION SIGN}"


def count(rows: int) -> str:
    """Write a number of rows."""
    return f"{rows:,} row{'s' * (rows != 1)}"


def several(noun: str) -> str:
    """Return the plural of what a task calls its labels."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _left_out(rows: int, nouns: str) -> str:
    """Say that not all classes are drawn, if so."""
    if rows <= MOST_CLASSES:
        return ""
    return f" Drawn are the {MOST_CLASSES} of {rows} {nouns} that leave last."


def _bin(row: dict[str, Any]) -> str:
    return f"{row['from']:.1f} to {row['to']:.1f}"


def _against(share: float, full: float) -> str:
    points = 100 * (share - full)
    if abs(points) < 0.05:
        return "the same as"
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than"
