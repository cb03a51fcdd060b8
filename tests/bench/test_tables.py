"""What a terminal and a figure show of a run, from made-up figures."""

import re
from dataclasses import replace
from io import StringIO

from rich.console import Console

from fastbert.bench.results import Bench, Failure
from fastbert.bench.tables import bench_tables
from tests.bench.made_up import EARLY, FOUND, FULL, PIPELINE


def lines_of(found: Bench) -> list[list[str]]:
    """Return each line of the tables as its cells: columns stand two spaces apart at least."""
    console = Console(width=160, file=StringIO())
    with console.capture() as captured:
        for table in bench_tables(found):
            console.print(table)
    return [re.split(r" {2,}", line.strip()) for line in captured.get().splitlines()]


def test_tables_show_each_contender_the_fastest_first() -> None:
    cells = lines_of(FOUND)
    names = [line[0] for line in cells if line[0] in (EARLY.name, FULL.name, PIPELINE.name)]
    fastest_first = [EARLY.name, FULL.name, PIPELINE.name]
    assert names == [*fastest_first, *fastest_first, FULL.name]
    shown = [line[1:] for line in cells if line[0] == EARLY.name]
    assert shown == [
        ["1,234.5", "12.30x", "91.25%", "98.75%", "3.00/12", "4.00x", "87%", "93%"],
        ["2.50", "5.00", "7.50", "11.10x", "91.25%", "98.75%", "3.00/12", "4.00x", "87%", "93%"],
    ]
    assert ["100.0", "1.00x", "91.25%", "98.75%", "12.00/12", "-", "-", "-"] in [
        line[1:] for line in cells if line[0] == PIPELINE.name
    ]
    assert [FULL.name, "32 x 128", "900", "50%", "-"] in cells
    assert ["peak in int8: onnx, 4096 x 384 x 1536", "1,800"] in cells
    assert any("4,321 rows/s" in line[0] for line in cells)
    assert ["In bulk: 1,000 texts, batches of 32, 2 threads"] in cells


def test_what_is_not_known_is_a_dash() -> None:
    unlabelled = replace(
        FOUND, contenders=tuple(replace(row, accuracy=None) for row in FOUND.contenders), ratios=()
    )
    [bulk, _] = [line[1:] for line in lines_of(unlabelled) if line[0] == EARLY.name]
    assert bulk[1:4] == ["-", "-", "98.75%"]


def test_who_failed_has_a_row_and_a_reason() -> None:
    failed = replace(FOUND, failures=(Failure("FastBERT onnx int8", "not exported: 4 differ"),))
    cells = lines_of(failed)
    assert ["FastBERT onnx int8", "failed"] in cells
    assert ["FastBERT onnx int8 failed: not exported: 4 differ"] in cells


def test_quality_has_the_name_of_the_metric() -> None:
    by_f1 = [cell for line in lines_of(replace(FOUND, metric="micro_f1")) for cell in line]
    assert (by_f1.count("micro F1"), by_f1.count("accuracy")) == (2, 0)
    assert [cell for line in lines_of(FOUND) for cell in line].count("accuracy") == 2
