"""What a run of the bench found, as tables for a terminal."""

from rich import box
from rich.table import Table

from fastbert.bench.plain import PIPELINE
from fastbert.bench.results import Bench, Measurement
from fastbert.tasks.metrics import spelled

NOTHING = "-"


def bench_tables(found: Bench) -> list[Table]:
    """Return throughput, latency, and the rates of products and models."""
    return [bulk_table(found), latency_table(found), rate_table(found)]


def bulk_table(found: Bench) -> Table:
    """Return what came of many texts at once, the fastest first."""
    rows = [row for row in found.contenders if row.p50_ms is None]
    texts, batch_size = found.rows["bulk"], rows[0].batch_size
    table = _table(
        f"In bulk: {texts:,} texts, batches of {batch_size}, {_threads(rows[0])}",
        "rows/s",
        "x pipeline",
        spelled(found.metric),
        "as plain",
        "layers",
        "bound",
        "share",
        "by tokens",
    )
    for row in sorted(rows, key=lambda row: -row.rows_per_second):
        table.add_row(
            row.name,
            f"{row.rows_per_second:,.1f}",
            _times_pipeline(found, row),
            *_quality(row),
            f"{row.mean_exit_layer:.2f}/{row.layers}",
            *_saving(row),
        )
    for failure in found.failures:
        table.add_row(failure.name, "failed")
    table.caption = (
        "medians of rounds in which all took turns; bound: layers / mean exit layer; share: how "
        "much of it shows in time against the same runtime at full depth; tokenising, which all "
        f"times include, alone reaches {found.tokenised_per_second:,.0f} rows/s; as plain: share "
        "answered like the plain model"
        + "".join(f"\n{failure.name} failed: {failure.reason}" for failure in found.failures)
    )
    return table


def latency_table(found: Bench) -> Table:
    """Return what came of one text at a time, the fastest first."""
    rows = [row for row in found.contenders if row.p50_ms is not None]
    table = _table(
        f"One text at a time: {found.rows['latency']:,} texts, {_threads(rows[0])}",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "x pipeline",
        spelled(found.metric),
        "as plain",
        "layers",
        "bound",
        "share",
        "by tokens",
    )
    for row in sorted(rows, key=lambda row: row.p50_ms or 0.0):
        table.add_row(
            row.name,
            *(f"{value:.2f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms) if value),
            _times_pipeline(found, row),
            *_quality(row),
            f"{row.mean_exit_layer:.2f}/{row.layers}",
            *_saving(row),
        )
    return table


def rate_table(found: Bench) -> Table:
    """Return the best matrix product of each precision, and how near the models come to it."""
    table = _table("Rates", "batch", "GOP/s", "of peak", "of own runtime's")
    for precision, rate in sorted(found.peak.items()):
        product = " x ".join(str(width) for width in rate.product)
        table.add_row(
            f"peak in {precision}: {rate.runtime}, {product}", "", f"{rate.gops:,.0f}", "", ""
        )
    for model in found.achieved:
        table.add_row(
            model.name,
            f"{model.rows} x {model.length}",
            f"{model.gops:,.0f}",
            _percent(model.share_of_peak),
            _percent(model.share_of_runtime_peak),
        )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    table.add_column("contender")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _threads(row: Measurement) -> str:
    return "1 thread" if row.threads == 1 else f"{row.threads} threads"


def _times_pipeline(found: Bench, row: Measurement) -> str:
    if row.name == PIPELINE:
        return "1.00x"
    ratio = found.ratio(row.name, PIPELINE, row.batch_size)
    return NOTHING if ratio is None else f"{ratio.median:.2f}x"


def _quality(row: Measurement) -> tuple[str, str]:
    """Return how much was right, and how much as the plain model has it."""
    shares = (row.accuracy, row.agreement)
    accuracy, agreement = (NOTHING if share is None else f"{share:.2%}" for share in shares)
    return accuracy, agreement


def _saving(row: Measurement) -> tuple[str, str, str]:
    """Return the bound and both shares of it, for what leaves early."""
    if row.share_of_saving is None:
        return NOTHING, NOTHING, NOTHING
    return (
        f"{row.bound:.2f}x",
        _percent(row.share_of_saving),
        _percent(row.share_of_saving_by_tokens),
    )


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.0%}"
