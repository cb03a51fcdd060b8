"""The commands that let a model answer: evaluate, predict and calibrate."""

import logging
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastbert.calibration.goal import Goal
from fastbert.cli import library
from fastbert.cli.columns import LabelledColumns, NamedColumns
from fastbert.cli.goal import AskedGoal
from fastbert.cli.loading import load, read
from fastbert.cli.options import (
    BulkRun,
    Model,
    Run,
    Unlabeled,
    with_groups,
)
from fastbert.cli.show import say_what_became_of, show, show_json, show_speeds
from fastbert.data.read import source_name
from fastbert.running import Running

if TYPE_CHECKING:
    from fastbert.calibration.points import OperatingPoint

logger = logging.getLogger(__name__)


@with_groups
def evaluate(
    folder: Model,
    texts: Annotated[Path, typer.Argument(metavar="DATA", help="File of labelled texts.")],
    *,
    speed: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S",
            min=0,
            max=1,
            show_default="0 and the folder's default",
            help="Threshold from 0 (every layer) to 1; may be given several times.",
        ),
    ] = None,
    goal: AskedGoal,
    run: BulkRun,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array instead of a table.")
    ] = False,
    columns: LabelledColumns,
) -> None:
    """Measure quality, layers, cost and time.

    Labelled texts are classified once for each speed, or with the thresholds for a goal. If the
    model is calibrated, a warning says where these texts behave otherwise than the calibration's.
    """
    asked = goal.options(speed or None)
    classifier = load(folder, **run.options())
    examples = read(texts, columns.columns(), classifier.task)
    settings: list[float | OperatingPoint | None] = [*(speed or (0.0, None))]
    if asked:
        settings = [classifier.speed_for(**asked)]
    measured = library.evaluate(classifier, examples, settings, run.batch_size)
    table = [row.as_dict() for row in measured]
    if classifier.is_calibrated:
        criterion = classifier.criterion(max(speed) if speed else settings[-1])
        for line in library.drift_of(classifier, examples, criterion, run.batch_size).warnings():
            logger.warning("%s: %s", texts, line)
    if as_json:
        show_json(table)
    else:
        show_speeds(classifier.config.task, table, classifier.config.default)


@with_groups
def predict(
    folder: Model,
    texts: Annotated[
        str, typer.Argument(metavar="INPUT", help="File of texts, or - for standard input.")
    ],
    *,
    output: Annotated[
        str, typer.Option(metavar="FILE", help="File to write, or - for standard output.")
    ] = "-",
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=0,
            max=1,
            show_default="the folder's default",
            help="Threshold from 0 (every layer) to 1 (leave as early as possible).",
        ),
    ] = None,
    goal: AskedGoal,
    run: BulkRun,
    columns: NamedColumns,
) -> None:
    """Classify a stream of texts.

    Each row gets one JSON object with label, score, uncertainty, exit_layer and the row's id. One
    that cannot be read gets an error instead, and in the end the exit code is 1. If the input is
    damaged from some row on, the rows before it are written and the exit code is 2. After Ctrl-C
    no file is written.
    """
    asked = goal.options(speed)
    classifier = load(folder, **run.options())
    criterion = classifier.criterion(speed, **asked)
    if output != "-":
        _refuse_bad_place(output, texts)
    with library.tqdm(unit=" rows", leave=False, disable=True if output == "-" else None) as bar:
        found = library.predict_file(
            classifier,
            texts,
            output,
            criterion,
            run.batch_size,
            columns=columns.columns(),
            progress=bar.update,
        )
    say_what_became_of(found, source_name(texts))


def _refuse_bad_place(output: str, source: str) -> None:
    try:
        library.refuse_bad_place(output, source)
    except ValueError as error:
        raise ValueError(f"--output {error}") from error


@with_groups
def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder; it is written to.")],
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="DEV",
            help="File of labelled texts that were not trained on, the more the better.",
        ),
    ],
    *,
    unlabeled: Unlabeled = False,
    goal: AskedGoal,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="max-probability; set-probability",
            help="How doubt is measured: entropy (the paper's), top-entropy, max-probability, "
            "margin, energy, patience, confident-patience, stability, ensemble, "
            "summed-confidence or learned; of several labels binary-entropy, set-probability or "
            "worst-label.",
        ),
    ] = None,
    timed: Annotated[
        bool | None,
        typer.Option(
            "--time/--no-time",
            show_default="where an export answers",
            help="Also measure how long a layer and an exit take here, one text at a time: for "
            "--latency-ms, and so that exits that do not pay in time are not asked.",
        ),
    ] = None,
    run: Run,
    columns: LabelledColumns,
) -> None:
    """Record what every layer answers, so that a speed can be asked for by goal.

    The texts run through every layer once, and where an export answers some of them are timed.
    Afterwards `predict` and `evaluate` take goals such as
    `--max-drop 0.5%` or `--min-speedup 3`; a goal given here becomes the default of both. All this
    holds for the runtime and the precision that answered.
    """
    asked = goal.options()
    library.refuse_what_others_share(folder.expanduser())
    opened = library.open_folder(folder)
    task = None if unlabeled else opened.config.task
    examples = read(texts, columns.columns(), task)
    if run.runtime == "auto":  # so that it knows which of two exports is the faster one here
        library.time_exports(opened, Running(threads=run.threads))
    classifier = load(folder, **run.options())
    calibration = classifier.calibrate(
        [example.content for example in examples],
        None if unlabeled else [example.label for example in examples],
        measure=measure,
        batch_size=run.batch_size,
    )
    told = ""
    if timed or (timed is None and classifier.answerer.runtime != "torch"):
        began = time.monotonic()
        calibration = replace(calibration, times=library.part_times(classifier, examples))
        seconds = time.monotonic() - began
        told = f"Texts were timed one at a time, in {seconds:.0f} s; --no-time leaves that out.\n"
    classifier.save_calibration(calibration, texts.name, Goal(**asked) if asked else None)
    show(library.goal_table(calibration, classifier.default_goal))
    print(f"\n{told}Next: fastbert predict {shlex.quote(str(folder))} TEXTS.csv")
