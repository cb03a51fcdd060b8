"""The section of quality.md on texts without labels, from what `unlabeled.py` measured."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastbert.exits.measures import DEFAULT_MEASURE

WAYS = {
    "few": "500 labelled texts",
    "few-and-further": "the same and 20,000 without labels",
    "into": "into MiniLM-6, from the texts of the table above",
    "into-and-further": "the same and 20,000 further ones",
}
AT = ("2", "3", "4", "6")


def read_ways(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the comparisons of each set and seed, by way."""
    found = {}
    for path in sorted(folder.glob("unlabeled_*_seed*.json")):
        if name := re.fullmatch(r"unlabeled_(.+)_seed(\d+)", path.stem):
            told = json.loads(path.read_text(encoding="utf-8"))
            found[f"{name[1]}, seed {name[2]}"] = told["ways"]
    return found


def further_texts(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the section; none where nothing was measured."""
    if not found:
        return
    yield "## With further texts, without labels\n"
    yield (
        "`python benchmarks/unlabeled.py WORK`. What is kept is of the full model that the same "
        "labels made; with our default measure.\n"
    )
    heads = " | ".join(f"{at}x" for at in AT)
    yield f"| set | learned from | contender | full | {heads} | default | points lost |"
    yield "| --- | --- | --- | ---: |" + " ---: |" * (len(AT) + 2)
    for name, ways in found.items():
        for way, what in WAYS.items():
            for row in ways.get(way, {"summary": ()})["summary"]:
                if row["measure"] == DEFAULT_MEASURE:
                    yield f"| {name} | {what} | {_cells(row)} |"
    yield ""


def _cells(row: dict[str, Any]) -> str:
    kept = [row["retention"][at] for at in AT]
    cells = [
        row["contender"],
        f"{row['full']:.2%}",
        *("-" if share is None else f"{100 * share:.2f}" for share in kept),
        f"{row['default_speedup']:.2f}x",
        f"{100 * row['default_drop']:+.2f}",
    ]
    return " | ".join(cells)
