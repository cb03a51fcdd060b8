"""A comparison as one table, of cells that a terminal and Markdown show alike."""

from collections.abc import Mapping
from typing import Any

NOTHING = "-"
BETTER, WORSE, TIE = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}", "="


def headings(found: Mapping[str, Any]) -> list[str]:
    """Return what the columns are called."""
    row = found["summary"][0]
    at = [f"{target}x" for target in row["exact"]]
    fastest = [f"S{100 * float(share):g}" for share in row["retained"]]
    change = "change"
    return [
        "contender",
        "measure",
        found["metric"],
        change,
        *at,
        *fastest,
        "area",
        "default",
        "drop",
        *(_time_headings(found) if "times" in found else []),
    ]


def cells(found: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each contender and measure."""
    rows = [_cells(row) for row in found["summary"]]
    if "times" not in found:
        return rows
    times = found["times"]["summary"]
    return [row + _time_cells(one["settings"]) for row, one in zip(rows, times, strict=True)]


def caption(found: Mapping[str, Any]) -> str:
    """Return in words what the columns are."""
    seeds = len(found["yardsticks"])
    rows = found["settings"].get("rows", {}).get("test")
    on = f"{rows:,} texts of test" if rows else "test"
    return (
        f"On {on}, {seeds} seed{'s' if seeds > 1 else ''}; thresholds are chosen on dev. "
        f"{found['metric']}: of all layers, and its change against the teacher of stage 1. "
        "2x and so on: what is kept, in percent of the better full model, at exactly so many times "
        f"fewer FLOPs; {BETTER} better and {WORSE} worse than {found['reference']} by more than "
        f"two standard errors, {TIE} neither. S99: the most times fewer FLOPs that keep 99 %. "
        "Area: what is kept, as the mean from 1.5 to 6 times fewer FLOPs. Default: times fewer "
        "FLOPs for a drop of at most 0.5 points on dev, and the drop on test, in points."
        f"{_time_caption(found['times']) if 'times' in found else ''}"
    )


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with what the columns are."""
    names = headings(found)
    lines = [names, ["---", "---", *["---:"] * (len(names) - 2)], *cells(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# Comparison\n\n{table}\n\n{caption(found)}\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["contender"],
        row["measure"] or NOTHING,
        f"{row['full']:.2%}",
        _points(row["full_change"], "+"),
        *(_kept(row["retention"][at], row["versus"][at]) for at in row["exact"]),
        *(_times(speedup) for speedup in row["retained"].values()),
        NOTHING if row["area"] is None else f"{100 * row['area']:.2f}",
        _times(row["default_speedup"]),
        _points(row["default_drop"]),
    ]


def _time_headings(found: Mapping[str, Any]) -> list[str]:
    settings = found["times"]["summary"][0]["settings"]
    return ["ms", *(f"t {_setting(name)}" for name in settings if name != "full")]


def _setting(name: str) -> str:
    return name if name == "default" else f"{name}x"


def _time_cells(settings: Mapping[str, Any]) -> list[str]:
    full = settings["full"]
    return [
        f"{full['alone_ms']:.2f} / {full['bulk_ms']:.2f}" if full else NOTHING,
        *(_faster(taken) for name, taken in settings.items() if name != "full"),
    ]


def _faster(taken: Mapping[str, float] | None) -> str:
    if taken is None:
        return NOTHING
    return f"{taken['alone_faster']:.2f}x / {taken['bulk_faster']:.2f}x"


def _time_caption(times: Mapping[str, Any]) -> str:
    threads = times["threads"]
    return (
        f" Measured in {times['runtime']} on {threads} thread{'s' if threads > 1 else ''}, one "
        f"text at a time / in batches of {times['batch_size']}: ms, milliseconds a text through "
        f"all layers; t default, t 2x and so on, times faster than all layers of {times['full']} "
        "at the thresholds that dev chose for the default and for at least so many times fewer "
        "FLOPs."
    )


def _kept(retention: float | None, versus: Mapping[str, Any] | None) -> str:
    if retention is None:
        return NOTHING
    if versus is None:
        return f"{100 * retention:.2f}"
    mark = TIE if versus["is_tie"] else BETTER if versus["mean"] > 0 else WORSE
    return f"{100 * retention:.2f} {mark}"


def _times(speedup: float | None) -> str:
    return NOTHING if speedup is None else f"{speedup:.2f}x"


def _points(share: float, sign: str = "") -> str:
    return f"{round(100 * share, 2) + 0.0:{sign}.2f}"  # no -0.00
