"""Options that several commands share, each once, and groups of them.

A group is a frozen dataclass; a command takes it as one parameter. `with_groups` shows each field
to typer as an option of its own, where the group stands in the signature.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from fastbert.running import RunningOptions, RuntimeName

FILES, MODEL = "Files", "Model"
TEACHER, STUDENTS, BOTH = "Stage 1: the teacher", "Stage 2: the students", "Training"

Output = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Model folder to write; an earlier one is replaced as a whole.",
        rich_help_panel=FILES,
    ),
]
MaxLength = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Longest text in tokens; what is longer is cut.",
        rich_help_panel=MODEL,
    ),
]
HeadsOption = Annotated[
    str,
    typer.Option(
        "--heads",
        metavar="KINDS",
        help="Heads of the students: paper, queries or mean for all, or by depth, as in "
        "paper:3,queries. Sizes follow a slash: paper/mean, queries/4.",
        rich_help_panel=MODEL,
    ),
]
Epochs = Annotated[
    int, typer.Option(metavar="N", help="Passes over the texts.", rich_help_panel=TEACHER)
]
LearningRate = Annotated[
    float, typer.Option(metavar="RATE", help="Peak learning rate.", rich_help_panel=TEACHER)
]
DistillEpochs = Annotated[
    int, typer.Option(metavar="N", help="Passes of the students alone.", rich_help_panel=STUDENTS)
]
DistillLearningRate = Annotated[
    float, typer.Option(metavar="RATE", help="Peak learning rate there.", rich_help_panel=STUDENTS)
]
Divergence = Annotated[
    Literal["student-teacher", "teacher-student"],
    typer.Option(
        metavar="P-Q",
        help="Divergence D(P || Q) to minimise: student-teacher, as in the paper, or "
        "teacher-student, as in its authors' code.",
        rich_help_panel=STUDENTS,
    ),
]
CacheHiddenStates = Annotated[
    bool | None,
    typer.Option(
        "--cache-hidden-states/--no-cache-hidden-states",
        show_default="where it fits",
        help="Where the students alone learn, run the backbone once and keep on disk what they "
        "read: for each token 2 bytes x width x (layers - 1).",
        rich_help_panel=STUDENTS,
    ),
]
BatchSize = Annotated[
    int, typer.Option(metavar="N", help="Texts of one forward pass.", rich_help_panel=BOTH)
]
GradientAccumulation = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Batches whose gradients are added before a step.",
        rich_help_panel=BOTH,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Of new weights, dropout and the order of the texts.",
        rich_help_panel=BOTH,
    ),
]
Bf16 = Annotated[
    bool | None,
    typer.Option(
        "--bf16/--no-bf16",
        show_default="where the machine has it",
        help="Compute in bfloat16; weights stay float32.",
        rich_help_panel=BOTH,
    ),
]
ReportTo = Annotated[
    str,
    typer.Option(
        metavar="TRACKER",
        help="Where the Hugging Face Trainer reports losses, such as tensorboard.",
        rich_help_panel=BOTH,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a stopped run of the same --output and settings.",
        rich_help_panel=BOTH,
    ),
]
Model = Annotated[
    str, typer.Argument(metavar="DIR", help="Model folder, or its name on the Hugging Face Hub.")
]
RowsTogether = Annotated[
    int,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        help="Texts computed together. No answer depends on it.",
    ),
]
RUNNING = "Running"
Runtime = Annotated[
    RuntimeName,
    typer.Option(
        help="What computes: auto takes the best that `fastbert export` wrote and that is "
        "installed, else torch.",
        rich_help_panel=RUNNING,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        show_default="all cores; one where several batches share them out",
        help="Processor threads for one batch.",
        rich_help_panel=RUNNING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        show_default="so many that all cores are busy; 1 in torch",
        help="Batches computed at a time, each on --threads, or on one.",
        rich_help_panel=RUNNING,
    ),
]
SchemeName = Annotated[
    Literal["paper", "joint", "exit-aware", "alternating", "separate", "taught"],
    typer.Option(
        "--scheme",
        help="How the exits are trained: paper leaves the encoder as the teacher has it; the "
        "others let all parts learn together after that.",
        rich_help_panel=BOTH,
    ),
]
Unlabeled = Annotated[
    bool,
    typer.Option(
        "--unlabeled", help="Do without labels: the full model's answers take their place."
    ),
]


def share(text: str | float) -> float:
    """Read 0.005 or 0.5%; a default comes as a number."""
    if isinstance(text, float):
        return text
    number = text.removesuffix("%")
    try:
        return float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a share such as 0.005 nor 0.5%") from None


DefaultMaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        parser=share,
        metavar="SHARE",
        show_default="0.5%",
        help="How much worse than the full model the default may be: 0.5% or 0.005.",
        rich_help_panel=STUDENTS,
    ),
]


Tolerance = Annotated[
    float,
    typer.Option(
        parser=share,
        metavar="SHARE",
        show_default="1%",
        help="How much accuracy the full model may lose on dev while all parts learn; beyond it "
        "the run goes back to the teacher and on as paper.",
        rich_help_panel=BOTH,
    ),
]


@dataclass(frozen=True)
class Distilling:
    """What the students learn for, and how good the default has to be."""

    kl: Divergence = "student-teacher"
    cache_hidden_states: CacheHiddenStates = None
    max_drop: DefaultMaxDrop = 0.005


@dataclass(frozen=True)
class Steps:
    """The steps of training, in both stages."""

    batch_size: BatchSize = 32
    gradient_accumulation: GradientAccumulation = 1
    seed: Seed = 42
    bf16: Bf16 = None
    report_to: ReportTo = "none"


@dataclass(frozen=True)
class Run:
    """How a model is run, one batch at a time."""

    batch_size: RowsTogether = 32
    runtime: Runtime = "auto"
    threads: Threads = None

    def options(self) -> RunningOptions:
        """Return what `from_pretrained` takes."""
        return RunningOptions(runtime=self.runtime, threads=self.threads)


@dataclass(frozen=True)
class BulkRun(Run):
    """How a model is run, several batches at a time."""

    workers: Workers = None

    def options(self) -> RunningOptions:
        """Return what `from_pretrained` takes."""
        return {**super().options(), "workers": self.workers}


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer each field of a command's groups as an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    shown: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            shown += _options(groups[name])
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def called(**options: Any) -> None:
        for name, kind in groups.items():
            options[name] = kind(**{item.name: options.pop(item.name) for item in fields(kind)})
        command(**options)

    called.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]  # where typer looks for it
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _options(group: Any) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for item in fields(group):
        default = Parameter.empty if item.default is MISSING else item.default
        yield Parameter(
            item.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[item.name]
        )


# Of training alone.

LabelledTexts = Annotated[Path, typer.Argument(metavar="TRAIN", help="File of labelled texts.")]
Dev = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Labelled texts that choose the best epochs and the default thresholds.",
        rich_help_panel=FILES,
    ),
]
Pretrained = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Pretrained encoder: a folder or a name on the Hugging Face Hub.",
        rich_help_panel=MODEL,
    ),
]
Test = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Labelled texts for the table on the model card; without it dev serves.",
        rich_help_panel=FILES,
    ),
]
FurtherTexts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Further texts for the students, as many as there are.",
        rich_help_panel=FILES,
    ),
]
TeacherHeadOption = Annotated[
    Literal["pretrained", "paper"],
    typer.Option(
        help="Head of the teacher: the encoder family's own, or the paper's.",
        rich_help_panel=MODEL,
    ),
]
LabelSmoothing = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Share of the probability spread over all labels.",
        rich_help_panel=TEACHER,
    ),
]
