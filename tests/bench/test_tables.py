"""What a terminal and a figure show of a run, from made-up figures."""

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from fastbert.bench.figure import throughput_png
from fastbert.bench.results import Achieved, Bench, Failure, Measurement, Rate, Ratio
from fastbert.bench.tables import bench_tables

EARLY = Measurement(
    "FastBERT onnx int8, max_drop=0.005",
    "onnx",
    "int8",
    2,
    32,
    rows_per_second=1234.5,
    p50_ms=None,
    p95_ms=None,
    p99_ms=None,
    accuracy=0.9125,
    agreement=0.9875,
    mean_exit_layer=3.0,
    layers=12,
    share_of_saving=0.87,
    share_of_saving_by_tokens=0.93,
)
FULL = replace(
    EARLY,
    name="FastBERT onnx int8, full depth",
    rows_per_second=300.0,
    mean_exit_layer=12.0,
    share_of_saving=None,
    share_of_saving_by_tokens=None,
)
PIPELINE = replace(
    FULL, name="Hugging Face pipeline", runtime="torch", precision="fp32", rows_per_second=100.0
)


def alone(row: Measurement, p50_ms: float) -> Measurement:
    return replace(row, batch_size=1, p50_ms=p50_ms, p95_ms=2 * p50_ms, p99_ms=3 * p50_ms)


FOUND = Bench(
    machine={"cores": 2},
    versions={},
    rows={"bulk": 1_000, "latency": 200},
    rounds=3,
    tokenised_per_second=4321.0,
    products=(
        Rate("torch", "fp32", (2048, 2048, 2048), 150.0),
        Rate("onnx", "int8", (4096, 384, 1536), 1800.0),
        Rate("openvino", "int8", (4096, 384, 1536), 400.0),
    ),
    achieved=(Achieved(FULL.name, "onnx", "int8", 32, 128, 900.0, 0.5, None),),
    contenders=(
        PIPELINE,
        EARLY,
        FULL,
        alone(PIPELINE, 30.0),
        alone(EARLY, 2.5),
        alone(FULL, 8.0),
    ),
    ratios=(
        Ratio(EARLY.name, PIPELINE.name, 32, 12.3, (12.0, 12.3, 13.0)),
        Ratio(EARLY.name, PIPELINE.name, 1, 11.1, (11.0, 11.1, 11.2)),
    ),
)


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


def test_the_figure_is_a_picture() -> None:
    pytest.importorskip("matplotlib")
    assert throughput_png(FOUND.as_dict()).startswith(b"\x89PNG")


def test_without_labels_the_figure_shows_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[str] = []

    def picture(figure: object, rows: object, quality: str, kind: str) -> bytes:
        drawn.append(quality)
        return b""

    monkeypatch.setattr("fastbert.bench.figure.picture", picture)
    throughput_png(FOUND.as_dict())
    throughput_png(replace(FOUND, contenders=(replace(EARLY, accuracy=None),)).as_dict())
    assert drawn == ["accuracy", "agreement"]


def test_there_is_no_figure_without_labels_or_a_plain_model() -> None:
    pytest.importorskip("matplotlib")
    row = replace(EARLY, accuracy=None, agreement=None)
    with pytest.raises(ValueError, match="no labels"):
        throughput_png(replace(FOUND, contenders=(row,)).as_dict())
