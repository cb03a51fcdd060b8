"""The command that compares ways to a model: compare."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fastbert.cli import library
from fastbert.cli.columns import LabelledColumns
from fastbert.cli.learning import Together, resumable, stage_of
from fastbert.cli.loading import quiet_transformers
from fastbert.cli.options import (
    BOTH,
    FILES,
    BatchSize,
    Bf16,
    Dev,
    DistillEpochs,
    DistillLearningRate,
    Epochs,
    FurtherTexts,
    GradientAccumulation,
    LabelledTexts,
    LearningRate,
    MaxLength,
    Pretrained,
    Steps,
    Tolerance,
    with_groups,
)
from fastbert.cli.show import show_wide
from fastbert.extras import needs_extra

COMPARED = "What is compared"

MeasuredOn = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Labelled texts that all are measured on; they choose nothing.",
        rich_help_panel=FILES,
    ),
]
ComparisonFolder = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Folder for the answers of all, the table and the figure.",
        rich_help_panel=FILES,
    ),
]
KeepModels = Annotated[
    bool,
    typer.Option(
        "--keep-models", help="Write the model folder of each too.", rich_help_panel=FILES
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        metavar="RUNTIME",
        help="Measure how long each takes too, after all training: in torch, or exported for a "
        "runtime in a precision, such as openvino:int8; keeps the models.",
        rich_help_panel=COMPARED,
    ),
]
ResumeOrAdd = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a stopped comparison of the same --output, or add to it.",
        rich_help_panel=BOTH,
    ),
]
Schemes = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Schemes of train, and two to measure them by: plain, the full model with a whole "
        "budget, and cut-K, its first K layers. With commas.",
        rich_help_panel=COMPARED,
    ),
]
SeveralHeads = Annotated[
    list[str],
    typer.Option(
        metavar="KINDS",
        show_default="queries",
        help="Heads of the students, as in train; given several times, each scheme is trained "
        "with each.",
        rich_help_panel=COMPARED,
    ),
]
Measures = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        show_default="max-probability; set-probability",
        help="Measures of doubt, as in calibrate; they cost no training. With commas.",
        rich_help_panel=COMPARED,
    ),
]
Seeds = Annotated[
    str,
    typer.Option(
        metavar="NUMBERS",
        help="With each, all are trained once. With commas.",
        rich_help_panel=COMPARED,
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="the first one",
        help="What the others are set against.",
        rich_help_panel=COMPARED,
    ),
]


@dataclass(frozen=True)
class Compared:
    """What is compared."""

    schemes: Schemes = "paper,joint,exit-aware"
    measures: Measures = ""
    seeds: Seeds = "42"
    reference: Reference = None
    time: Time = None


@with_groups
@needs_extra("train", "training")
def compare(
    texts: LabelledTexts,
    dev: Dev,
    test: MeasuredOn,
    model: Pretrained,
    output: ComparisonFolder,
    *,
    unlabeled: FurtherTexts = None,
    keep_models: KeepModels = False,
    columns: LabelledColumns,
    max_length: MaxLength = 128,
    compared: Compared,
    heads: SeveralHeads = ["queries"],  # noqa: B006  # typer makes a list of its own
    epochs: Epochs = 3,
    learning_rate: LearningRate = 2e-5,
    distill_epochs: DistillEpochs = 8,
    distill_learning_rate: DistillLearningRate = 3e-3,
    together: Together,
    tolerance: Tolerance = 0.01,
    batch_size: BatchSize = 32,
    gradient_accumulation: GradientAccumulation = 1,
    bf16: Bf16 = None,
    resume: ResumeOrAdd = False,
) -> None:
    """Compare schemes, trained from one teacher.

    One table and one figure tell what each keeps at which speed-up.
    """
    quiet_transformers()
    steps = Steps(batch_size, gradient_accumulation, bf16=bf16)
    students = library.StudentSettings(
        heads[0],
        stage_of(distill_epochs, distill_learning_rate, steps),
        exits=together.stage(steps),
    )
    settings = students.scheme_settings(stage_of(epochs, learning_rate, steps), tolerance=tolerance)
    with resumable():
        found = library.compare(
            texts,
            dev=dev,
            test=test,
            model=model,
            output=output,
            contenders=library.contenders_named(_names(compared.schemes), settings, heads),
            measures=_names(compared.measures),
            seeds=_numbers(compared.seeds),
            settings=settings,
            reference=compared.reference,
            unlabeled=unlabeled,
            columns=columns.columns(),
            max_length=max_length,
            keep_models=keep_models,
            time=compared.time,
            resume=resume,
        )
    show_wide(library.comparison_table(found.as_dict()))
    print(f"\nWritten to {shlex.quote(str(output))}: comparison.md, .json and .png")


def _names(text: str) -> list[str]:
    """Read names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them."""
    try:
        return [int(number) for number in _names(text)]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not whole numbers with commas between") from None
