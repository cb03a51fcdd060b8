"""Write the tables of quality.md, its figure and the README's table, from what was measured.

    python benchmarks/quality_page.py

It reads what `schemes.py` wrote. What stands in quality.md above the line `<!-- tables -->`, and in
the README outside its two lines, is written by hand and stays.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from equal_time import Times, equal_time, points, read_times
from further_texts import further_texts, read_ways
from machine import RESULTS

from fastbert.calibration.frontier import TARGETS
from fastbert.calibration.paired import Difference
from fastbert.exits.measures import DEFAULT_MEASURE
from fastbert.report.compared import comparison_png, series_of
from fastbert.report.comparison_table import BETTER, NOTHING, TIE, WORSE

PAGE = Path(__file__).parent / "quality.md"
LINE = "<!-- tables -->\n"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- quality -->\n", "<!-- /quality -->\n"
TITLE = "# What early exits keep\n\n"
AVERAGED = (
    "sst2",
    "book_review",
    "chnsenticorp",
    "ag_news",
    "mrpc",
    "sst5",
    "banking77",
    "thucnews_title",
)
APART = ("rte", "cola")
CHINESE = ("book_review", "chnsenticorp", "thucnews_title")
REFERENCE = "separate"
CONTENDERS = {
    "separate": "ours: each layer learns from the exit after it alone",
    "paper": "FastBERT, Liu et al. (ACL 2020), with its numbers and heads",
    "distill": "ours: the same recipe with our numbers and heads",
    "plain": "the full model, the whole budget, no exits",
    "joint": "ours: all parts learn together, deeper exits more",
    "SWEET": "Rotem et al. (ACL 2023)",
    "PABEE": "Zhou et al. (NeurIPS 2020)",
    "COSEE-like": "after COSEE (AAAI 2025)",
    "BERxiT": "Xin et al. (EACL 2021)",
    "DeeBERT": "Xin et al. (ACL 2020)",
    "exit-aware": "ours: an exit learns most from the rows that would leave near it",
    "alternating": "ours: every second step is the last exit's alone",
    "cut-6": "the first 6 layers, taught",
    "cut-4": "the first 4 layers, taught",
    "cut-3": "the first 3 layers, taught",
    "MiniLM-6": "another encoder of 6 layers, English only",
    "into-MiniLM-6": "ours: an adaptive model on that encoder, by the teacher's answers alone",
}
ENGLISH_ONLY = ("MiniLM-6", "into-MiniLM-6")
AT = [f"{target:g}" for target in TARGETS]

Row = dict[str, Any]
"""A row of the summary of one set and seed."""
Found = dict[str, dict[int, dict[str, Any]]]
"""What was measured, by set and by seed."""
Key = tuple[str, str | None]
"""A contender, and its measure of doubt; None where it has no exits."""


def main() -> None:
    """Write the page anew below the line, its figure, and the table of the README."""
    found = read(RESULTS)
    write(found, read_times(RESULTS), [*further_texts(read_ways(RESULTS))], PAGE)
    write_readme(found, README)


def write(found: Found, times: Times, ways: list[str], page: Path) -> None:
    before = page.read_text(encoding="utf-8") if page.exists() else f"{TITLE}{LINE}"
    by_hand = before.partition(LINE)[0]
    image = page.with_suffix(".png")
    sections = [
        *ran(found),
        *means(found, image.name),
        *equal_time(times, REFERENCE, AVERAGED),
        *ways,
        *each_set(found),
        *missing(found),
        *again(),
    ]
    tables = "\n".join(sections)
    page.write_text(f"{by_hand}{LINE}\n{tables}\n", encoding="utf-8")
    drawn = across(found)
    if drawn["summary"]:
        image.write_bytes(comparison_png(drawn))


def write_readme(found: Found, readme: Path) -> None:
    """Write the means of who has all sets into a README."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    at = [f"{target}x" for target in AT]
    rows = table(["", *at, "by default", "points lost"], readme_rows(found))
    text = f"{before}{begin}\n{chr(10).join(rows)}\n{END}{after}"
    readme.write_text(text, encoding="utf-8")


def readme_rows(found: Found) -> Iterator[list[str]]:
    for name, what in CONTENDERS.items():
        key = next(iter(keys_of(found, name)), None)  # with our default measure
        if key is not None and tuple(sets_of(found, key)) == AVERAGED:
            kept = [across_sets(found, key, kept_at(at), percent) for at in AT]
            speedup = across_sets(found, key, lambda row: row["default_speedup"], times)
            lost = across_sets(found, key, lambda row: row["default_drop"], points)
            yield [f"`{name}`, {what}", *kept, *([speedup, lost] if key[1] else [NOTHING] * 2)]


def read(folder: Path) -> Found:
    found: Found = {}
    for path in sorted(folder.glob("schemes_*_seed*.json")):
        if name := re.fullmatch(r"schemes_(.+)_seed(\d+)", path.stem):
            told = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(name[1], {})[int(name[2])] = told
    return found


# Which rows there are.


def rows_of(found: Found, name: str, key: Key) -> dict[int, Row]:
    """Return the rows of a contender with a measure on one set, by seed."""
    return {
        seed: row
        for seed, told in found.get(name, {}).items()
        for row in told["summary"]
        if (row["contender"], row["measure"]) == key
    }


def sets_of(found: Found, key: Key) -> list[str]:
    return [name for name in AVERAGED if rows_of(found, name, key)]


def names_of(found: Found) -> list[str]:
    """Return all contenders: those that are known, and whoever else took part."""
    there = (row["contender"] for told in every(found) for row in told["summary"])
    return [*dict.fromkeys([*CONTENDERS, *there])]


def every(found: Found) -> Iterator[dict[str, Any]]:
    for seeds in found.values():
        yield from seeds.values()


def keys_of(found: Found, contender: str, names: Iterable[str] = AVERAGED) -> list[Key]:
    """Return a contender with our default measure and, if it is another, its best one."""
    names = [name for name in names if name in found]
    there = [key for name in names for seed in found[name].values() for key in keys_in(seed)]
    keys = [key for key in dict.fromkeys(there) if key[0] == contender]
    known = {key: [area(found, name, key) for name in names] for key in keys}
    most = max((sum(one is not None for one in areas) for areas in known.values()), default=0)
    whole = [key for key in keys if sum(one is not None for one in known[key]) == most]
    best = max(whole, key=lambda key: mean(known[key]) or 0.0, default=None)
    default = [key for key in keys if key[1] in (DEFAULT_MEASURE, None)]
    return [*dict.fromkeys([*default, *([best] if best else [])])]


def keys_in(told: dict[str, Any]) -> list[Key]:
    return [(row["contender"], row["measure"]) for row in told["summary"]]


# Figures.


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def over_seeds(rows: Iterable[Row], figure: Callable[[Row], float | None]) -> float | None:
    """Return the mean over the seeds, if each has the figure."""
    values = [figure(row) for row in rows]
    return None if None in values else mean(values)


def area(found: Found, name: str, key: Key) -> float | None:
    return over_seeds(rows_of(found, name, key).values(), lambda row: row["area"])


def across_sets(
    found: Found, key: Key, figure: Callable[[Row], float | None], form: Callable[[float], str]
) -> str:
    """Return the mean over its sets, and of how many where not all have the figure."""
    values = [over_seeds(rows_of(found, name, key).values(), figure) for name in AVERAGED]
    there = [value for value in values if value is not None]
    if not there:
        return NOTHING
    return form(fmean(there)) + (
        f" ({len(there)})" if len(there) < len(sets_of(found, key)) else ""
    )


def against(found: Found, key: Key, figure: Callable[[Row], float | None]) -> Difference | None:
    """Return the difference to the reference, of the same sets and seeds; over sets, its error."""
    other = (REFERENCE, DEFAULT_MEASURE)
    better = []
    for name in AVERAGED:
        ours, others = rows_of(found, name, key), rows_of(found, name, other)
        seeds = ours.keys() & others.keys()
        pair = [over_seeds((rows[seed] for seed in seeds), figure) for rows in (ours, others)]
        if pair[0] is not None and pair[1] is not None:
            better.append(pair[0] - pair[1])
    if key == other or len(better) < 2:
        return None
    return Difference(fmean(better), float(np.std(better, ddof=1) / np.sqrt(len(better))))


def against_on(rows: dict[int, Row], told: dict[int, dict[str, Any]], at: str) -> Difference | None:
    """Return the difference to the reference on one set, paired by row; of all seeds."""
    versus = [row["versus"][at] for seed, row in rows.items()]
    if None in versus or any(told[seed]["reference"] != REFERENCE for seed in rows):
        return None
    better = [one["mean"] for one in versus]
    variance = fmean(one["error"] ** 2 for one in versus)  # the seeds share their rows
    if len(better) > 1:
        variance += float(np.var(better, ddof=1)) / len(better)
    return Difference(fmean(better), float(np.sqrt(variance)))


def mark(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return f" {TIE if difference.is_tie else BETTER if difference.mean > 0 else WORSE}"


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def times(speedup: float) -> str:
    return f"{speedup:.2f}x"


# The page.


def table(headings: list[str], rows: Iterable[list[str]], left: int = 1) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * left + " ---: |" * (len(headings) - left)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def ran(found: Found) -> Iterator[str]:
    yield "## What was run\n"
    headings = ["set", "train / dev / test rows", "tokens", "epochs of stage 1", "seeds"]
    rows = [ran_on(found, name) for name in (*AVERAGED, *APART)]
    yield from table([*headings, "minutes", "processor"], rows)
    yield "Minutes are those of stage 1 and of all contenders, of all seeds.\n"
    rows = [[name, told_of(found, name), CONTENDERS.get(name, "")] for name in names_of(found)]
    yield from table(["contender", "epochs by stage; heads", "what it is"], rows, left=3)


def ran_on(found: Found, name: str) -> list[str]:
    if name not in found:
        return [name, "not run yet", *[""] * 5]
    seeds = found[name]
    settings = next(iter(seeds.values()))["settings"]
    rows = settings["rows"]
    seconds = [each for told in seeds.values() for each in told.get("seconds", {}).values()]
    known = [each for each in seconds if each is not None]
    minutes = f"{sum(known) / 60:.0f}" if known else "not recorded"
    if known and len(known) < len(seconds):
        minutes += f" (without {len(seconds) - len(known)} that were stopped)"
    return [
        name,
        " / ".join(f"{rows[split]:,}" for split in ("train", "dev", "test")),
        str(settings["max_length"]),
        str(settings["teacher"]["settings"]["epochs"]),
        ", ".join(map(str, seeds)),
        minutes,
        "; ".join(dict.fromkeys(told["machine"]["processor"] for told in seeds.values())),
    ]


def told_of(found: Found, contender: str) -> str:
    """Return the epochs of each stage, and the heads, as they were on any set."""
    ways: dict[str, None] = {}
    for told in every(found):
        for one in told["settings"]["contenders"]:
            if one["name"] == contender:
                stages = one["stages"].items()
                epochs = " ".join(f"{name} {of['settings']['epochs']}" for name, of in stages)
                ways[f"{epochs}; {one['heads']}"] = None
    return " or ".join(ways) or "not run yet"


COLUMNS = ["S99", "default", "points lost", "at speed 0"]


def means(found: Found, image: str) -> Iterator[str]:
    yield f"## The mean of {len(AVERAGED)} sets\n"
    left_out = [key[0] for key in drawn_keys(found) if sets_of(found, key) != common(found)]
    if common(found):
        yield f"![Retention against times fewer FLOPs]({image})\n"
        yield f"The figure is of {', '.join(common(found))}, each contender with its best measure."
        yield f"Not in it, for sets that are missing: {', '.join(left_out) or 'nobody'}.\n"
    yield (
        "Retention is what is kept at exactly 2, 3, 4 and 6 times fewer FLOPs, in percent of the "
        "better full model; *area* its mean from 1.5 to 6 times. Each contender stands here with "
        f"our default measure, {DEFAULT_MEASURE}, and with the published one that has the largest "
        "area, which is chosen on test and so in its favour. Marks and ± are against "
        f"{REFERENCE} with {DEFAULT_MEASURE}, paired by set and seed, with the standard error over "
        f"sets: {BETTER} better and {WORSE} worse by more than two of them, {TIE} a tie. "
        "In brackets: over how many of its sets, where not all have the figure.\n"
    )
    at = [f"{target}x" for target in AT]
    headings = ["contender", "measure", "sets", *at, "area", f"against {REFERENCE}", *COLUMNS]
    rows = (row for name in names_of(found) for row in mean_rows(found, name))
    yield from table(headings, rows, left=2)
    yield (
        "S99: the most times fewer FLOPs that keep 99 %. Default: times fewer FLOPs at the default "
        "goal, at most 0.5 points lost on dev, and the points it loses on test. At speed 0: how "
        "the full depth has changed against the teacher of stage 1, in points.\n"
    )


def mean_rows(found: Found, contender: str) -> Iterator[list[str]]:
    keys = keys_of(found, contender)
    if not keys:
        yield [contender, "not run yet", f"0 of {len(AVERAGED)}", *[""] * (2 + len(AT + COLUMNS))]
    for key in keys:
        kept = [kept_at(at) for at in AT]
        whole = against(found, key, lambda row: row["area"])
        yield [
            contender,
            key[1] or NOTHING,
            f"{len(sets_of(found, key))} of {len(AVERAGED)}",
            *(across_sets(found, key, one, percent) + mark(against(found, key, one))
              for one in kept),
            across_sets(found, key, lambda row: row["area"], percent),
            f"{points(whole.mean)} ± {percent(whole.error)}{mark(whole)}" if whole else NOTHING,
            across_sets(found, key, lambda row: row["retained"]["0.99"], times),
            across_sets(found, key, lambda row: row["default_speedup"], times),
            across_sets(found, key, lambda row: row["default_drop"], points),
            across_sets(found, key, lambda row: row["full_change"], points),
        ]  # fmt: skip


def kept_at(at: str) -> Callable[[Row], float | None]:
    def kept(row: Row) -> float | None:
        value: float | None = row["retention"][at]
        return value

    return kept


def each_set(found: Found) -> Iterator[str]:
    yield "## Each set\n"
    yield (
        f"Marks are against {REFERENCE} with {DEFAULT_MEASURE}, paired by row of test: two "
        "standard errors, of the rows and, with several seeds, of the seeds.\n"
    )
    for name in AVERAGED:
        yield from of_set(found, name)
    yield "## Apart: RTE and CoLA\n"
    yield "They are not in the means.\n"
    for name in APART:
        yield from of_set(found, name)


def of_set(found: Found, name: str) -> Iterator[str]:
    yield f"### {name}\n"
    if name not in found:
        yield "not run yet\n"
        return
    told = found[name]
    metric = next(iter(told.values()))["metric"]
    at = [f"{target}x" for target in AT]
    headings = ["contender", "measure", "seeds", f"{metric} at speed 0", *at, *COLUMNS]
    rows = (row for contender in names_of(found) for row in set_rows(found, name, contender))
    yield from table(headings, rows, left=2)


def set_rows(found: Found, name: str, contender: str) -> Iterator[list[str]]:
    there = keys_of(found, contender) or keys_of(found, contender, APART)
    keys = [key for key in there if rows_of(found, name, key)]
    if not keys:
        yield [contender, why_missing(contender, name), "0", *[""] * (1 + len(AT + COLUMNS))]
    for key in keys:
        rows = rows_of(found, name, key)
        kept = [over_seeds(rows.values(), kept_at(at)) for at in AT]
        fastest = over_seeds(rows.values(), lambda row: row["retained"]["0.99"])
        yield [
            contender,
            key[1] or NOTHING,
            ", ".join(map(str, rows)),
            percent(fmean(row["full"] for row in rows.values())),
            *(NOTHING if share is None
              else percent(share) + mark(against_on(rows, found[name], at))
              for at, share in zip(AT, kept, strict=True)),
            NOTHING if fastest is None else times(fastest),
            times(fmean(row["default_speedup"] for row in rows.values())),
            points(fmean(row["default_drop"] for row in rows.values())),
            points(fmean(row["full_change"] for row in rows.values())),
        ]  # fmt: skip


def why_missing(contender: str, name: str) -> str:
    is_foreign = contender in ENGLISH_ONLY and name in CHINESE
    return "cannot read it" if is_foreign else "not run yet"


def missing(found: Found) -> Iterator[str]:
    yield "## Not run yet\n"
    seeds = sorted({seed for told in found.values() for seed in told})
    lines = []
    for name in (*AVERAGED, *APART):
        for seed in seeds:
            told = found.get(name, {}).get(seed)
            there = {row["contender"] for row in told["summary"]} if told else set()
            left = [
                contender
                for contender in names_of(found)
                if contender not in there and why_missing(contender, name) == "not run yet"
            ]
            if left:
                lines.append(f"- {name}, seed {seed}: {', '.join(left) if told else 'all'}")
    yield "\n".join(lines or (["Nothing is missing."] if seeds else ["- all of it"])) + "\n"


def again() -> Iterator[str]:
    yield "## Again\n"
    yield "```bash\npython benchmarks/schemes.py WORK"
    yield "python benchmarks/schemes.py WORK --time openvino:int8 --seeds 42"
    yield "python benchmarks/quality_page.py\n```"


# The figure.


def drawn_keys(found: Found) -> list[Key]:
    """Return each contender that took part with its best measure."""
    return [keys[-1] for name in names_of(found) if (keys := keys_of(found, name))]


def common(found: Found) -> list[str]:
    """Return the sets of the figure: those of the reference."""
    return sets_of(found, (REFERENCE, DEFAULT_MEASURE))


def across(found: Found) -> dict[str, Any]:
    """Return the means over the sets as one comparison, each set in the place of a seed."""
    sets = common(found)
    keys = [key for key in drawn_keys(found) if sets and sets_of(found, key) == sets]
    return {
        "metric": "quality",
        "summary": [
            {"contender": name, "measure": None, "exact": dict.fromkeys(AT)} for name, _ in keys
        ],
        "yardsticks": {name: {"metric": 1.0} for name in sets},
        "seeds": [
            {"contender": key[0], "measure": None, "seed": name, "curve": curve(found, name, key)}
            for key in keys
            for name in sets
        ],
    }


def curve(found: Found, name: str, key: Key) -> list[list[float]]:
    """Return speed-ups and retentions on one set, as means over its seeds."""
    told = [one for seed, one in found[name].items() if seed in rows_of(found, name, key)]
    [line] = series_of(
        {
            "summary": [{"contender": key[0], "measure": key[1], "exact": dict.fromkeys(AT)}],
            "yardsticks": {at: one for each in told for at, one in each["yardsticks"].items()},
            "seeds": [
                row
                for each in told
                for row in each["seeds"]
                if (row["contender"], row["measure"]) == key
            ],
        }
    )
    return [
        [float(speedup), kept / 100] for speedup, kept in zip(line.speedups, line.kept, strict=True)
    ]


if __name__ == "__main__":
    main()
