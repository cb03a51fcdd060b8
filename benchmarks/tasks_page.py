"""Write the tables of tasks.md from what tasks.py measured.

    python benchmarks/tasks_page.py

What stands in tasks.md above the line `<!-- tables -->` is written by hand and stays.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import RESULTS

from fastbert.tasks.metrics import spelled

PAGE = Path(__file__).parent / "tasks.md"
LINE = "<!-- tables -->\n"


def main() -> None:
    """Write the page anew below the line."""
    by_hand = PAGE.read_text(encoding="utf-8").partition(LINE)[0]
    found = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("tasks_*.json"))]
    tables = "\n".join(line for each in found for line in section(each))
    PAGE.write_text(f"{by_hand}{LINE}\n{tables}\n", encoding="utf-8")


def section(found: dict[str, Any]) -> Iterator[str]:
    """Yield what one data set and seed came to."""
    rows, metrics = found["rows"], list(found["teacher"]["full"])
    names = [spelled(metric) for metric in metrics]
    yield f"## {found['dataset']}, seed {found['seed']}\n"
    minutes = ", ".join(f"{name} {taken / 60:.0f}" for name, taken in found["seconds"].items())
    yield (
        f"{rows['train']:,} / {rows['dev']:,} / {rows['test']:,} rows, "
        f"{found['fine_tuning']['epochs']} epochs of stage 1; minutes: {minutes}; "
        f"{found['machine']['processor']}.\n"
    )
    yield f"| contender | measure | asked | {' | '.join(names)} | kept | FLOPs | layers |"
    yield "| --- | --- | ---: |" + " ---: |" * (len(names) + 3)
    yield _row("stage 1", "-", "-", found["teacher"]["full"], metrics, ["-", "1.00x", "12.00"])
    for name, told in found["contenders"].items():
        yield _row(name, "-", "-", told["full"], metrics, ["-", "1.00x", "12.00"])
        for measure, points in told.items():
            for point in points if isinstance(points, list) else ():
                kept = " ".join(f"{100 * point['kept'][metric]:.1f}" for metric in metrics)
                cost = [f"{point['speedup_flops']:.2f}x", f"{point['mean_exit_layer']:.2f}"]
                asked = f"{point['asked']:.0%}"
                yield _row(name, measure, asked, point["metrics"], metrics, [kept, *cost])
    yield ""


def _row(
    name: str,
    measure: str,
    asked: str,
    worth: dict[str, float],
    metrics: list[str],
    cells: list[str],
) -> str:
    figures = [f"{100 * worth[metric]:.1f}" for metric in metrics]
    return f"| {' | '.join([name, measure, asked, *figures, *cells])} |"


if __name__ == "__main__":
    main()
