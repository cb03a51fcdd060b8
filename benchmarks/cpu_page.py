"""Write the tables of cpu.md from what the other scripts measured.

    python benchmarks/cpu_page.py

What stands in cpu.md above the line `<!-- tables -->` is written by hand and stays.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import RESULTS

PAGE = Path(__file__).parent / "cpu.md"
LINE = "<!-- tables -->\n"
DATASETS = ("sst2", "book_review")


def main() -> None:
    """Write the page anew below the line."""
    by_hand = PAGE.read_text(encoding="utf-8").partition(LINE)[0]
    tables = "\n".join([*contenders(), *rates(), *adaptive(), *starts(), *exactness()])
    PAGE.write_text(f"{by_hand}{LINE}\n{tables}\n", encoding="utf-8")


def read(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(pattern))]


def runs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for dataset in DATASETS:
        for found in read(f"cpu_{dataset}_*_threads*.json"):
            threads = str(found["bench"]["machine"]["threads"])
            measured = ", thresholds by measured times" if found["measured"] else ""
            yield dataset, threads + measured, found["bench"]


def contenders() -> Iterator[str]:
    for dataset, threads, bench in runs():
        yield f"## {dataset}, threads: {threads}\n"
        yield (
            "| contender | bulk: rows/s | x pipeline | accuracy | layers | share | share by tokens "
            "| alone: p50 ms | p95 | p99 | x pipeline | layers | share |"
        )
        yield "| --- |" + " ---: |" * 12
        bulk, single = (
            {row["name"]: row for row in bench["contenders"] if (row["batch_size"] == 1) == alone}
            for alone in (False, True)
        )
        pipeline = "Hugging Face pipeline"
        for name, row in sorted(bulk.items(), key=lambda item: -item[1]["rows_per_second"]):
            faster = row["rows_per_second"] / bulk[pipeline]["rows_per_second"]
            cells = [
                f"{row['rows_per_second']:,.0f}",
                f"{faster:.1f}",
                f"{row['accuracy']:.1%}",
                f"{row['mean_exit_layer']:.2f}",
                share(row["share_of_saving"]),
                share(row["share_of_saving_by_tokens"]),
            ]
            alone = single.get(name)
            cells += (
                [""] * 6
                if alone is None
                else [
                    f"{alone['p50_ms']:.1f}",
                    f"{alone['p95_ms']:.1f}",
                    f"{alone['p99_ms']:.1f}",
                    f"{single[pipeline]['p50_ms'] / alone['p50_ms']:.1f}",
                    f"{alone['mean_exit_layer']:.2f}",
                    share(alone["share_of_saving"]),
                ]
            )
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def rates() -> Iterator[str]:
    yield "## Share of the machine's own rate\n"
    yield "Full depth at 32 x 128 tokens, against the best matrix product of any runtime in that"
    yield "precision, and of its own runtime, measured in the same run.\n"
    yield "| data, threads | contender | GOP/s | of the best product | of its runtime's own |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for dataset, threads, bench in runs():
        for row in bench["achieved"]:
            own = row["share_of_runtime_peak"]
            yield (
                f"| {dataset}, {threads} | {row['name']} | {row['gops']:.0f} | "
                f"{row['share_of_peak']:.0%} | {'' if own is None else f'{own:.0%}'} |"
            )
    yield ""


def adaptive() -> Iterator[str]:
    yield "## The adaptive ONNX file\n"
    yield (
        "| data | precision | batch | layers | exit layers unlike the engine's "
        "| share over speed 0, by rows / tokens | over the plain model |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for found in read("adaptive_*.json"):
        for row in found["measurements"]:
            shares = [
                f"{row[f'share_over_{name}']:.2f} / {row[f'share_over_{name}_by_tokens']:.2f}"
                for name in ("speed 0", "plain")
            ]
            yield (
                f"| {found['dataset']} | {row['precision']} | {row['batch_size']} | "
                f"{row['mean_exit_layer']:.2f} | {row['exit_layers_unlike_engine']} of "
                f"{row['rows']} | {' | '.join(shares)} |"
            )
    yield ""


def starts() -> Iterator[str]:
    yield "## From a new process to the first answer\n"
    yield (
        "| export | compiled models kept | loaded, s | first answer, s | MiB "
        "| 1.6 x weights + 150 |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for found in read("cold_start.json"):
        for row in found["starts"]:
            yield (
                f"| {row['runtime']} {row['precision']} | "
                f"{'yes' if row['compiled_models_kept'] else ''} | {row['loaded_seconds']:.2f} | "
                f"{row['first_answer_seconds']:.2f} | {row['resident_mib']:.0f} | "
                f"{row['allowed_mib']:.0f} |"
            )
    yield ""


def exactness() -> Iterator[str]:
    yield "## Answers compared with torch\n"
    yield (
        "| data (rows of test) | export | accuracy, torch | accuracy | labels differ "
        "| exit layers differ at 0.5 / `max_drop` 0.5 % | logits, alone against batches |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for found in read("runtime_exactness_*.json"):
        for row in found["comparisons"]:
            elsewhere = [
                row[setting]["exit_layers_differ"] for setting in ("speed 0.5", "max_drop 0.005")
            ]
            yield (
                f"| {found['dataset']} ({found['rows']:,}) | {row['runtime']} {row['precision']} | "
                f"{row['accuracy_torch']:.2%} | {row['accuracy']:.2%} | {row['labels_differ']} | "
                f"{elsewhere[0]} / {elsewhere[1]} | {row['alone_against_batches']:.0e} |"
            )


if __name__ == "__main__":
    main()
