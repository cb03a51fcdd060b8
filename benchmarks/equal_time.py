"""The sections of quality.md about time: what the reference is worth at the time of each other.

Times are those of `schemes.py --time RUNTIME`, of rounds in which all took turns. Between two
settings of the reference that follow each other in time texts are shared out, so that it takes just
as long as the other one; a setting that is slower and no better is left aside.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fastbert.report.comparison_table import NOTHING

Seeds = dict[int, dict[str, Any]]
Times = dict[str, dict[str, Seeds]]
"""What was timed, by runtime, set and seed."""
Settings = dict[str, dict[str, float] | None]
WAYS = ("alone_ms", "bulk_ms")


@dataclass(frozen=True)
class Timed:
    """A contender at a setting, beside the reference at the same time.

    Args:
        contender: Its name.
        setting: What it is set to.
        metric: What its answers are worth.
        ms: Milliseconds a text, alone and in batches.
        gains: What the reference's answers are worth more; None where it is never so fast.
    """

    contender: str
    setting: str
    metric: float
    ms: tuple[float, ...]
    gains: tuple[float | None, ...]


def read_times(folder: Path) -> Times:
    found: Times = {}
    for path in sorted(folder.glob("times_*_seed*_*.json")):
        if name := re.fullmatch(r"times_(.+)_seed(\d+)_([a-z0-9-]+)", path.stem):
            told = json.loads(path.read_text(encoding="utf-8"))
            of_runtime = found.setdefault(name[3].replace("-", ":"), {})
            of_runtime.setdefault(name[1], {})[int(name[2])] = told
    return found


def equal_time(found: Times, reference: str, order: Sequence[str]) -> Iterator[str]:
    """Yield the sections.

    Args:
        found: What was timed.
        reference: Whose settings are moved to the time of the others.
        order: The sets.
    """
    yield "## At equal time\n"
    if not found:
        yield "No times were measured yet.\n"
    for runtime, sets in found.items():
        told = next(iter(next(iter(sets.values())).values()))
        times = told["times"]
        yield f"### {runtime}\n"
        yield (
            f"{told['machine']['processor']}, {times['threads']} thread"
            f"{'s' if times['threads'] > 1 else ''}; medians of {times['rounds']} rounds in which "
            f"all took turns, {times['rows']['alone']} texts one at a time and "
            f"{times['rows']['bulk']} in batches of {times['batch_size']}. "
            f"Points: what {reference} is worth at the same time, less what the other is worth; "
            "as the mean over the sets, with on how many of them it is not worse.\n"
        )
        there = {name: sets[name] for name in order if name in sets}
        yield from _over_sets(there, reference)
        for name, seeds in there.items():
            yield from _of_set(name, seeds, reference)


def _over_sets(sets: dict[str, Seeds], reference: str) -> Iterator[str]:
    """Yield a table of each setting of each other, as means over sets and seeds."""
    gains: dict[tuple[str, str], list[tuple[float | None, ...]]] = {}
    for seeds in sets.values():
        for one in (one for told in seeds.values() for one in timed(told, reference)):
            if one.contender != reference:
                gains.setdefault((one.contender, one.setting), []).append(one.gains)
    yield "| against | at | points, one at a time | points, in batches |"
    yield "| --- | --- | ---: | ---: |"
    for (contender, setting), of_sets in gains.items():
        cells = " | ".join(map(_mean, zip(*of_sets, strict=True)))
        yield f"| {contender} | {setting} | {cells} |"
    yield ""


def _of_set(name: str, seeds: Seeds, reference: str) -> Iterator[str]:
    yield f"#### {name}\n"
    yield "| contender | at | metric | ms alone | points | ms in batches | points |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for seed, told in seeds.items():
        of_seed = f" (seed {seed})" if len(seeds) > 1 else ""
        for one in timed(told, reference):
            pairs = zip(one.ms, one.gains, strict=True)
            cells = " | ".join(f"{ms:.2f} | {points(gain)}" for ms, gain in pairs)
            yield f"| {one.contender}{of_seed} | {one.setting} | {one.metric:.2%} | {cells} |"
    yield ""


def timed(told: dict[str, Any], reference: str) -> Iterator[Timed]:
    """Yield each setting of each contender of a set and seed."""
    rows = told["times"]["summary"]
    ours = next(row["settings"] for row in rows if row["contender"] == reference)
    for row in rows:
        for setting, taken in _distinct(row["settings"]).items():
            ms, metric = tuple(taken[way] for way in WAYS), taken["metric"]
            worth = [worth_at(ours, way, taken[way]) for way in WAYS]
            if row["contender"] == reference:
                worth = [None for _ in WAYS]
            gains = tuple(None if each is None else each - metric for each in worth)
            yield Timed(row["contender"], setting, metric, ms, gains)


def _distinct(settings: Settings) -> dict[str, dict[str, float]]:
    """Return the settings that there are; one that several names have goes by the first."""
    found: dict[str, dict[str, float]] = {}
    for name, taken in settings.items():
        if taken is not None and taken not in found.values():
            found[name if name in ("full", "default") else f"{name}x"] = taken
    return found


def worth_at(settings: Settings, way: str, ms: float) -> float | None:
    """Return what settings are worth at a time; None where all of them take longer.

    Args:
        settings: With the milliseconds and the metric of each.
        way: Which milliseconds.
        ms: The time.
    """
    taken = sorted((one[way], one["metric"]) for one in settings.values() if one is not None)
    times, metrics = (np.array(column) for column in zip(*taken, strict=True))
    if ms < times[0]:
        return None
    return float(np.interp(ms, times, np.maximum.accumulate(metrics)))


def _mean(gains: Sequence[float | None]) -> str:
    known = [gain for gain in gains if gain is not None]
    if not known:
        return NOTHING
    not_worse = sum(gain >= 0 for gain in known)
    return f"{points(fmean(known))} ({not_worse} of {len(known)})"


def points(share: float | None) -> str:
    return NOTHING if share is None else f"{round(100 * share, 2) + 0.0:+.2f}"  # no -0.00
