"""The commands that make a model: train, distill and demo."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastbert.cli import library
from fastbert.cli.columns import LabelledColumns, TextColumns
from fastbert.cli.growing import FirstEpochs, FirstLearningRate, Growing
from fastbert.cli.loading import quiet_transformers
from fastbert.cli.options import (
    FILES,
    MODEL,
    STUDENTS,
    Dev,
    DistillEpochs,
    Distilling,
    DistillLearningRate,
    Epochs,
    FurtherTexts,
    HeadsOption,
    LabelledTexts,
    LabelSmoothing,
    LearningRate,
    MaxLength,
    Output,
    Pretrained,
    Resume,
    SchemeName,
    Seed,
    Steps,
    TeacherHeadOption,
    Test,
    Tolerance,
    with_groups,
)
from fastbert.cli.show import show_trained
from fastbert.extras import needs_extra

if TYPE_CHECKING:
    from fastbert.recipes.run import StudentSettings
    from fastbert.training.stage import StageSettings


class InterruptedRunError(Exception):
    """^C was pressed, and there is something to say about it."""


ExitEpochs = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Passes in which all parts learn; --scheme paper has none.",
        rich_help_panel=STUDENTS,
    ),
]
ExitLearningRate = Annotated[
    float,
    typer.Option(
        metavar="RATE", help="Peak learning rate of the encoder there.", rich_help_panel=STUDENTS
    ),
]


@dataclass(frozen=True)
class Together:
    """How all parts learn, in the schemes where the encoder learns from the exits."""

    exit_epochs: ExitEpochs = 3
    exit_learning_rate: ExitLearningRate = 5e-5

    def stage(self, steps: Steps) -> "StageSettings":
        """Return the settings of that stage; the students' rate has no option."""
        usual: StageSettings = library.SchemeSettings().exits
        asked = stage_of(self.exit_epochs, self.exit_learning_rate, steps)
        return replace(asked, students_learning_rate=usual.students_learning_rate)


@with_groups
@needs_extra("train", "training")
def train(
    texts: LabelledTexts,
    dev: Dev,
    model: Pretrained,
    output: Output,
    *,
    test: Test = None,
    unlabeled: FurtherTexts = None,
    columns: LabelledColumns,
    max_length: MaxLength = 128,
    teacher_head: TeacherHeadOption = "pretrained",
    heads: HeadsOption = "queries",
    epochs: Epochs = 3,
    learning_rate: LearningRate = 2e-5,
    label_smoothing: LabelSmoothing = 0.0,
    distill_epochs: DistillEpochs = 8,
    distill_learning_rate: DistillLearningRate = 3e-3,
    together: Together,
    distilling: Distilling,
    scheme: SchemeName = "separate",
    tolerance: Tolerance = 0.01,
    steps: Steps,
    resume: Resume = False,
) -> None:
    """Train a classifier from labelled texts.

    First the teacher learns from the labels, then the students warm up on its frozen encoder, then
    all parts learn together. With --scheme paper the encoder stays as the teacher has it.
    """
    quiet_transformers()
    students = replace(
        _students(heads, distill_epochs, distill_learning_rate, distilling, steps),
        exits=together.stage(steps),
    )
    with resumable():
        classifier = library.train(
            texts,
            dev=dev,
            model=model,
            output=output,
            test=test,
            unlabeled=unlabeled,
            columns=columns.columns(),
            max_length=max_length,
            teacher_head=teacher_head,
            fine_tuning=stage_of(epochs, learning_rate, steps),
            label_smoothing=label_smoothing,
            students=students,
            scheme=scheme,
            tolerance=tolerance,
            max_drop=distilling.max_drop,
            resume=resume,
        )
    show_trained(classifier, output)


@with_groups
@needs_extra("train", "training")
def distill(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Fine-tuned classifier: a folder or a name on the Hugging Face Hub.",
        ),
    ],
    texts: Annotated[
        Path, typer.Argument(metavar="TEXTS", help="File of texts; no labels needed.")
    ],
    output: Output,
    *,
    columns: TextColumns,
    max_length: MaxLength = 128,
    heads: HeadsOption = "queries",
    epochs: FirstEpochs = None,
    learning_rate: FirstLearningRate = None,
    distilling: Distilling,
    growing: Growing,
    steps: Steps,
    resume: Resume = False,
) -> None:
    """Add students to a fine-tuned classifier.

    They learn from its answers, so no labels are needed. At speed 0 its answers stay as they are.
    With --into it teaches a new model on another, smaller encoder instead: first the last exit,
    then all of them.
    """
    if str(texts) == "-":
        raise typer.BadParameter("texts are read several times, so TEXTS must be a file")
    growing.refuse_the_other_way(distilling)
    quiet_transformers()
    students = library.StudentSettings(heads)
    if growing.into is None:
        passes = 8 if epochs is None else epochs
        rate = 3e-3 if learning_rate is None else learning_rate
        students = _students(heads, passes, rate, distilling, steps)
    with resumable():
        classifier = library.distill(
            checkpoint,
            texts,
            output=output,
            columns=columns.columns(),
            max_length=max_length,
            students=students,
            max_drop=distilling.max_drop,
            resume=resume,
            **growing.options(epochs, learning_rate, distilling, steps),
        )
    show_trained(classifier, output)


@with_groups
@needs_extra("demo", "the demo")
def demo(
    *,
    output: Output = Path("fastbert-demo"),
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="all-MiniLM-L6-v2, as installed",
            help="Pretrained encoder: a folder or a name on the Hugging Face Hub.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="BBC News, as installed",
            help="File of labelled texts.",
            rich_help_panel=FILES,
        ),
    ] = None,
    columns: LabelledColumns,
    seed: Seed = 42,
) -> None:
    """Train, measure and try a classifier.

    It takes minutes and needs no data: real texts and weights come with `fastbert-kit[demo]`.
    """
    quiet_transformers()
    with resumable("fastbert demo"):
        library.run_demo(output, model=model, data=data, columns=columns.columns(), seed=seed)


def _students(
    heads: str,
    epochs: int,
    learning_rate: float,
    distilling: Distilling,
    steps: Steps,
) -> "StudentSettings":
    return library.StudentSettings(
        heads,
        stage_of(epochs, learning_rate, steps),
        distilling.kl,
        distilling.cache_hidden_states,
    )


def stage_of(epochs: int, learning_rate: float, steps: Steps) -> "StageSettings":
    """Return the settings of a stage."""
    settings = library.StageSettings(
        epochs,
        learning_rate,
        steps.batch_size,
        steps.gradient_accumulation,
        seed=steps.seed,
        report_to=steps.report_to,
    )
    return settings if steps.bf16 is None else replace(settings, bf16=steps.bf16)


@contextmanager
def resumable(how: str = "the same command with --resume") -> Iterator[None]:
    """Say after ^C how a command goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"interrupted; {how} goes on from the last checkpoint") from error
