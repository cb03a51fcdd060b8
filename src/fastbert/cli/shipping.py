"""The commands for a finished model: export, bench, report and inspect."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastbert.calibration.goal import Goal
from fastbert.cli import library
from fastbert.cli.columns import LabelledColumns, TextColumns
from fastbert.cli.loading import (
    load,
    quiet_transformers,
    read,
    read_with_labels_if_any,
)
from fastbert.cli.options import (
    FILES,
    RUNNING,
    Model,
    Unlabeled,
    share,
    with_groups,
)
from fastbert.cli.show import show, show_json
from fastbert.extras import needs_extra
from fastbert.running import ANYHOW, Precision, Runtime


@with_groups
@needs_extra("export", "an export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder; it is written to.")],
    *,
    runtime: Annotated[
        Literal[Runtime, "auto"],
        typer.Option(
            help="What shall run the model, without torch; auto tries all that are installed, and "
            "keeps the one that is the fastest here."
        ),
    ] = "openvino",
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="fp32 answers like torch; bf16, for processors that have it, and int8 are faster.",
            show_default="fp32; with --runtime auto the fastest here",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="With --runtime onnx: also write the whole model as one file, "
            "DIR/onnx/adaptive.onnx, which exits early by itself wherever ONNX Runtime runs.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="built-in sentences",
            help="Texts on which the export is compared with torch; the more like those to come "
            "the better.",
        ),
    ] = None,
    columns: TextColumns,
) -> None:
    """Write files that run without torch.

    They lie in the model folder, in DIR/openvino or DIR/onnx, and `predict` uses them from then on;
    of two it uses the one that was the faster on this processor. An export whose answers differ
    from those of torch is refused.
    """
    if runtime == "auto" and adaptive:
        raise typer.BadParameter("the adaptive file is ONNX: ask for it with --runtime onnx")
    examples = None if data is None else read(data, columns.columns())
    quiet_transformers()
    compared: dict[str, Any] = {
        "texts": None if examples is None else [example.content for example in examples],
        **({} if data is None else {"source": data.name}),
    }
    if runtime == "auto":
        found = library.export_fastest(folder, precision=precision, **compared)
        show(library.export_times_table(found.times, found.name))
        manifest = found.manifest
    else:
        manifest = library.export_model(
            folder, runtime=runtime, precision=precision or "fp32", adaptive=adaptive, **compared
        )
    show(library.parity_table(manifest))
    library.time_exports(library.open_folder(folder), ANYHOW)
    place = shlex.quote(str(folder))
    print(f"\nNext: fastbert calibrate {place} DEV.csv --runtime {manifest.runtime}")
    print(f"      fastbert predict {place} TEXTS.csv --runtime {manifest.runtime}")


# What the bench times.

TimedRuntimes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        show_default="what the folder is exported for, else torch",
        help="Where this model runs: torch, onnx or openvino, or with a precision such as "
        "openvino:int8, which is exported for the run; may be given several times.",
        rich_help_panel=RUNNING,
    ),
]
TimedSpeeds = Annotated[
    list[float] | None,
    typer.Option(metavar="S", min=0, max=1, help="Threshold to time; may be given several times."),
]
TimedDrops = Annotated[
    list[float] | None,
    typer.Option(
        parser=share,
        metavar="SHARE",
        show_default="the folder's default",
        help="Goal to time: at most so much worse than the full model; may be given several times.",
    ),
]


@with_groups
@needs_extra("export", "the bench")
def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder.")],
    texts: Annotated[Path, typer.Argument(metavar="DATA", help="File of texts, labelled or not.")],
    *,
    runtime: TimedRuntimes = None,
    speed: TimedSpeeds = None,
    max_drop: TimedDrops = None,
    threads: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Processor threads of each runtime.", rich_help_panel=RUNNING
        ),
    ] = 1,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=2, help="Texts computed together, in bulk.")
    ] = 32,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Fewer texts and rounds, for a first look: 200, 40 one by one, 3."
        ),
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="1000", help="Texts timed in bulk, from all over DATA."
        ),
    ] = None,
    latency_rows: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="200", help="Texts timed one by one."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="5", help="Times that everyone has a turn."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object instead of tables.")
    ] = False,
    columns: LabelledColumns,
) -> None:
    """Time the model against plain runtimes on this machine.

    The same texts are answered by this model at the chosen speeds and at full depth, by a Hugging
    Face pipeline, and by the plain model in ONNX Runtime and OpenVINO, taking turns. Needs
    `fastbert-kit[export]`, and minutes.
    """
    quiet_transformers()
    measure = library.bench  # what is not installed is said at once
    opened = library.open_folder(folder)
    examples = read_with_labels_if_any(texts, columns.columns(), opened.config.task)
    result = measure(
        opened,
        examples,
        runtimes=runtime or (),
        settings=[*(Goal(max_drop=drop) for drop in max_drop or ()), *(speed or ())],
        threads=threads,
        batch_size=batch_size,
        **_amount(rows, latency_rows, rounds, quick=quick),
    )
    if as_json:
        show_json(result.as_dict())
    else:
        show(*library.bench_tables(result))


def _amount(
    rows: int | None, latency_rows: int | None, rounds: int | None, *, quick: bool
) -> dict[str, int]:
    """Return how much is timed; what is named goes before what is quick."""
    named = {"rows": rows, "latency_rows": latency_rows, "rounds": rounds}
    return (library.QUICK if quick else {}) | {
        name: number for name, number in named.items() if number is not None
    }


@with_groups
@needs_extra("report", "a report")
def report(
    folder: Model,
    *,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="HTML page to write.", rich_help_panel=FILES)
    ] = Path("report.html"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="the rows of the calibration",
            help="Texts to measure on.",
            rich_help_panel=FILES,
        ),
    ] = None,
    unlabeled: Unlabeled = False,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write each figure there, as PNG and SVG, and its numbers as CSV.",
            rich_help_panel=FILES,
        ),
    ] = None,
    columns: LabelledColumns,
) -> None:
    """Draw what a model does at which speed, as one HTML page.

    The page needs nothing else and can be passed on; with --data it quotes some of the texts.
    """
    write, gather = library.write_report, library.collect  # what is not installed is said at once
    classifier = load(folder)
    task = None if unlabeled else classifier.task
    examples = None if data is None else read(data, columns.columns(), task)
    write(gather(classifier, Path(folder).name, examples), output, figures)
    print(output)


@with_groups
def inspect(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Model folder.", show_default=False)
    ] = None,
    system: Annotated[
        bool,
        typer.Option(
            "--system",
            help="Show, in place of a folder, what a bug report needs: versions, processor, "
            "runtimes; no paths and no texts.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check a model folder and show what it holds."""
    if system == (folder is not None):
        raise typer.BadParameter("inspect takes either DIR, a model folder, or --system")
    if folder is None:
        facts, tables = library.system_facts(), library.system_tables
    else:
        facts, tables = library.folder_facts(library.open_folder(folder)), library.folder_tables
    if as_json:
        show_json(facts)
    else:
        show(*tables(facts))
