"""The commands and their options.

Defaults stand here a second time, because help must not wait for torch, which the library's own
settings need; the tests compare the two.
"""

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from fastbert.data.checks import count_empty
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.errors import DataError
from fastbert.extras import needs_extra
from fastbert.tasks.labels import check_labels

if TYPE_CHECKING:
    from fastbert.calibration.goal import GoalOptions
    from fastbert.calibration.points import OperatingPoint
    from fastbert.classifier import FastBertClassifier
    from fastbert.folder.config import DefaultPoint
    from fastbert.training.stage import StageSettings

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
logger = logging.getLogger(__name__)


class InterruptedRunError(Exception):
    """^C was pressed, and there is something to say about it."""


# Options that several commands share.

FILES, COLUMNS, MODEL = "Files", "Columns of the files", "Model"
TEACHER, STUDENTS, BOTH = "Stage 1: the teacher", "Stage 2: the students", "Training"
GOAL = "Goal, in place of a speed"

TextColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the text.", rich_help_panel=COLUMNS)
]
PairColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column of the second text of a pair. The default is read where it is there.",
        rich_help_panel=COLUMNS,
    ),
]
LabelColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the label.", rich_help_panel=COLUMNS)
]
IdColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column of the row's id, repeated in the answer where it is there.",
        rich_help_panel=COLUMNS,
    ),
]
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
Pooling = Annotated[
    Literal["first", "mean"],
    typer.Option(
        help="What a student reads of its attention: the first token, as in the paper, or the "
        "mean over the tokens.",
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
    int, typer.Option(metavar="N", help="Passes over the texts.", rich_help_panel=STUDENTS)
]
DistillLearningRate = Annotated[
    float, typer.Option(metavar="RATE", help="Peak learning rate.", rich_help_panel=STUDENTS)
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
    bool,
    typer.Option(
        "--cache-hidden-states",
        help="Run the backbone once and keep on disk what the students read: for each token "
        "2 bytes x width x (layers - 1).",
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
    Literal["auto", "torch", "openvino", "onnx"],
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
        show_default="all cores",
        help="Processor threads for one batch.",
        rich_help_panel=RUNNING,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Batches computed at a time. For bulk, as many workers as cores with --threads 1 are "
        "faster than one with all cores.",
        rich_help_panel=RUNNING,
    ),
]
Unlabeled = Annotated[
    bool,
    typer.Option(
        "--unlabeled", help="Do without labels: the full model's answers take their place."
    ),
]


def _share(text: str | float) -> float:
    """Read 0.005 or 0.5%; a default comes as a number."""
    if isinstance(text, float):
        return text
    number = text.removesuffix("%")
    try:
        return float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a share such as 0.005 nor 0.5%") from None


MaxDrop = Annotated[
    float | None,
    typer.Option(
        parser=_share,
        metavar="SHARE",
        help="At most so much worse than the full model: 0.5% or 0.005.",
        rich_help_panel=GOAL,
    ),
]
DefaultMaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        parser=_share,
        metavar="SHARE",
        show_default="0.5%",
        help="How much worse than the full model the default may be: 0.5% or 0.005.",
        rich_help_panel=STUDENTS,
    ),
]
DropMetric = Annotated[
    Literal["accuracy", "f1", "agreement"] | None,
    typer.Option(
        help="Of what --max-drop speaks: accuracy, macro F1, or agreement with the full model, "
        "which needs no labels.",
        show_default="accuracy, without labels agreement",
        rich_help_panel=GOAL,
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        parser=_share,
        metavar="SHARE",
        help="With --max-drop: how sure it shall be for texts to come, such as 95%.",
        rich_help_panel=GOAL,
    ),
]
MinSpeedup = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="At least X times fewer FLOPs than the full model.",
        rich_help_panel=GOAL,
    ),
]
MaxMeanLayers = Annotated[
    float | None,
    typer.Option(metavar="N", help="At most N layers a text on average.", rich_help_panel=GOAL),
]
MaxFlops = Annotated[
    float | None,
    typer.Option(
        metavar="N", help="At most N FLOPs a text on average, such as 2e9.", rich_help_panel=GOAL
    ),
]
LatencyMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="At most so many milliseconds a text on average, one at a time, by the times of "
        "`fastbert calibrate --time`.",
        rich_help_panel=GOAL,
    ),
]
Saving = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="From 0 (every layer) to 1 (the fastest there is): such a share of the layers that "
        "can be saved.",
        rich_help_panel=GOAL,
    ),
]


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(version("fastbert-kit"))
        raise typer.Exit
    return wanted


@app.callback()
def fastbert(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and stop."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Text classifiers that stop reading layers as soon as they are sure.

    Files of texts are .csv, .tsv, .jsonl (each also packed, as .csv.gz) or .parquet.

    The exit code is 0 if all went well, 1 if something failed, 2 for wrong usage or bad input, and
    130 after Ctrl-C. Errors and warnings are single lines on standard error.
    """


@app.command()
@needs_extra("train", "training")
def train(
    texts: Annotated[Path, typer.Argument(metavar="TRAIN", help="File of labelled texts.")],
    dev: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Labelled texts that choose the best epochs and the default thresholds.",
            rich_help_panel=FILES,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Pretrained encoder: a folder or a name on the Hugging Face Hub.",
            rich_help_panel=MODEL,
        ),
    ],
    output: Output,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled texts for the table on the model card; without it dev serves.",
            rich_help_panel=FILES,
        ),
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Further texts for the students, as many as there are.",
            rich_help_panel=FILES,
        ),
    ] = None,
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
    max_length: MaxLength = 128,
    teacher_head: Annotated[
        Literal["pretrained", "paper"],
        typer.Option(
            help="Head of the teacher: the encoder family's own, or the paper's.",
            rich_help_panel=MODEL,
        ),
    ] = "pretrained",
    pooling: Pooling = "first",
    epochs: Epochs = 3,
    learning_rate: LearningRate = 2e-5,
    label_smoothing: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the probability spread over all labels.",
            rich_help_panel=TEACHER,
        ),
    ] = 0.0,
    distill_epochs: DistillEpochs = 5,
    distill_learning_rate: DistillLearningRate = 2e-4,
    kl: Divergence = "student-teacher",
    cache_hidden_states: CacheHiddenStates = False,
    max_drop: DefaultMaxDrop = 0.005,
    batch_size: BatchSize = 32,
    gradient_accumulation: GradientAccumulation = 1,
    seed: Seed = 42,
    bf16: Bf16 = None,
    report_to: ReportTo = "none",
    resume: Resume = False,
) -> None:
    """Train a classifier from labelled texts.

    First the teacher learns from the labels, then the students learn from the teacher.
    """
    _quiet_transformers()
    from fastbert.recipes.run import StudentSettings
    from fastbert.recipes.train import train
    from fastbert.shape import StudentShape

    def stage(epochs: int, learning_rate: float) -> "StageSettings":
        return _stage(
            epochs, learning_rate, batch_size, gradient_accumulation, seed, bf16, report_to
        )

    students = StudentSettings(
        StudentShape(pooling),
        stage(distill_epochs, distill_learning_rate),
        kl,
        cache_hidden_states,
    )
    with _resumable():
        classifier = train(
            texts,
            dev=dev,
            model=model,
            output=output,
            test=test,
            unlabeled=unlabeled,
            columns=Columns(text_column, pair_column, label_column),
            max_length=max_length,
            teacher_head=teacher_head,
            fine_tuning=stage(epochs, learning_rate),
            label_smoothing=label_smoothing,
            students=students,
            max_drop=max_drop,
            resume=resume,
        )
    _show_trained(classifier, output)


@app.command()
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
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    max_length: MaxLength = 128,
    pooling: Pooling = "first",
    epochs: DistillEpochs = 5,
    learning_rate: DistillLearningRate = 2e-4,
    kl: Divergence = "student-teacher",
    cache_hidden_states: CacheHiddenStates = False,
    max_drop: DefaultMaxDrop = 0.005,
    batch_size: BatchSize = 32,
    gradient_accumulation: GradientAccumulation = 1,
    seed: Seed = 42,
    bf16: Bf16 = None,
    report_to: ReportTo = "none",
    resume: Resume = False,
) -> None:
    """Add students to a fine-tuned classifier.

    They learn from its answers, so no labels are needed. At speed 0 its answers stay as they are.
    """
    if str(texts) == "-":
        raise typer.BadParameter("texts are read several times, so TEXTS must be a file")
    _quiet_transformers()
    from fastbert.recipes.distill import distill
    from fastbert.recipes.run import StudentSettings
    from fastbert.shape import StudentShape

    stage = _stage(epochs, learning_rate, batch_size, gradient_accumulation, seed, bf16, report_to)
    with _resumable():
        classifier = distill(
            checkpoint,
            texts,
            output=output,
            columns=Columns(text_column, pair_column),
            max_length=max_length,
            students=StudentSettings(StudentShape(pooling), stage, kl, cache_hidden_states),
            max_drop=max_drop,
            resume=resume,
        )
    _show_trained(classifier, output)


@app.command()
def evaluate(
    folder: Model,
    texts: Annotated[Path, typer.Argument(metavar="DATA", help="File of labelled texts.")],
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
    max_drop: MaxDrop = None,
    metric: DropMetric = None,
    confidence: Confidence = None,
    min_speedup: MinSpeedup = None,
    max_mean_layers: MaxMeanLayers = None,
    max_flops: MaxFlops = None,
    latency_ms: LatencyMs = None,
    saving: Saving = None,
    batch_size: RowsTogether = 32,
    runtime: Runtime = "auto",
    threads: Threads = None,
    workers: Workers = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array instead of a table.")
    ] = False,
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
) -> None:
    """Measure quality, layers, cost and time.

    Labelled texts are classified once for each speed, or with the thresholds for a goal. If the
    model is calibrated, a warning says where these texts behave otherwise than the calibration's.
    """
    goal = _goal(
        max_drop=max_drop,
        metric=metric,
        confidence=confidence,
        min_speedup=min_speedup,
        max_mean_layers=max_mean_layers,
        max_flops=max_flops,
        latency_ms=latency_ms,
        saving=saving,
        speed=speed or None,
    )
    examples = _read(texts, Columns(text_column, pair_column, label_column), labeled=True)
    classifier = _load(folder, runtime, threads, workers)
    check_labels(examples, classifier.labels)
    from fastbert.evaluation import drift_of, evaluate

    settings: list[float | OperatingPoint | None] = [*(speed or (0.0, None))]
    if goal:
        settings = [classifier.speed_for(**goal)]
    table = [row.as_dict() for row in evaluate(classifier, examples, settings, batch_size)]
    if classifier.is_calibrated:
        criterion = classifier.criterion(max(speed) if speed else settings[-1])
        for line in drift_of(classifier, examples, criterion, batch_size).warnings():
            logger.warning("%s: %s", texts, line)
    if as_json:
        _print_json(table)
    else:
        _print_speeds(table, classifier.config.default)


@app.command()
def predict(
    folder: Model,
    texts: Annotated[
        str, typer.Argument(metavar="INPUT", help="File of texts, or - for standard input.")
    ],
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
    max_drop: MaxDrop = None,
    metric: DropMetric = None,
    confidence: Confidence = None,
    min_speedup: MinSpeedup = None,
    max_mean_layers: MaxMeanLayers = None,
    max_flops: MaxFlops = None,
    latency_ms: LatencyMs = None,
    saving: Saving = None,
    batch_size: RowsTogether = 32,
    runtime: Runtime = "auto",
    threads: Threads = None,
    workers: Workers = 1,
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    id_column: IdColumn = Columns.id,
) -> None:
    """Classify a stream of texts.

    Each row gets one JSON object with label, score, uncertainty, exit_layer and the row's id. One
    that cannot be read gets an error instead, and in the end the exit code is 1. If the input is
    damaged from some row on, the rows before it are written and the exit code is 2. After Ctrl-C
    no file is written.
    """
    goal = _goal(
        max_drop=max_drop,
        metric=metric,
        confidence=confidence,
        min_speedup=min_speedup,
        max_mean_layers=max_mean_layers,
        max_flops=max_flops,
        latency_ms=latency_ms,
        saving=saving,
        speed=speed,
    )
    classifier = _load(folder, runtime, threads, workers)
    from fastbert.bulk.files import predict_file

    predict_file(
        classifier,
        texts,
        output,
        Columns(text_column, pair_column, id=id_column),
        criterion=classifier.criterion(speed, **goal),
        batch_size=batch_size,
    )


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder; it is written to.")],
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="DEV",
            help="File of labelled texts that were not trained on, the more the better.",
        ),
    ],
    unlabeled: Unlabeled = False,
    max_drop: MaxDrop = None,
    metric: DropMetric = None,
    confidence: Confidence = None,
    min_speedup: MinSpeedup = None,
    max_mean_layers: MaxMeanLayers = None,
    max_flops: MaxFlops = None,
    latency_ms: LatencyMs = None,
    saving: Saving = None,
    measure: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How doubt is measured: entropy (the paper's), top-entropy, max-probability, "
            "margin, energy, patience, confident-patience, stability, ensemble, "
            "summed-confidence or learned.",
        ),
    ] = "max-probability",
    timed: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Also measure how long a layer and an exit take here, one text at a time: for "
            "--latency-ms, and so that exits that do not pay in time are not asked.",
        ),
    ] = False,
    batch_size: RowsTogether = 32,
    runtime: Runtime = "auto",
    threads: Threads = None,
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
) -> None:
    """Record what every layer answers, so that a speed can be asked for by goal.

    The texts run through every layer once. Afterwards `predict` and `evaluate` take goals such as
    `--max-drop 0.5%` or `--min-speedup 3`; a goal given here becomes the default of both. All this
    holds for the runtime and the precision that answered.
    """
    from fastbert.folder.write import refuse_what_others_share

    goal = _goal(
        max_drop=max_drop,
        metric=metric,
        confidence=confidence,
        min_speedup=min_speedup,
        max_mean_layers=max_mean_layers,
        max_flops=max_flops,
        latency_ms=latency_ms,
        saving=saving,
    )
    columns = Columns(text_column, pair_column, label_column)
    examples = _read(texts, columns, labeled=not unlabeled)
    refuse_what_others_share(folder.expanduser())
    classifier = _load(folder, runtime, threads)
    if not unlabeled:
        check_labels(examples, classifier.labels)
    from fastbert.calibration.goal import Goal
    from fastbert.cli.tables import goal_table
    from fastbert.evaluation import part_times

    calibration = classifier.calibrate(
        [example.content for example in examples],
        None if unlabeled else [str(example.label) for example in examples],
        measure=measure,
        batch_size=batch_size,
    )
    if timed:
        calibration = replace(calibration, times=part_times(classifier, examples))
    classifier.save_calibration(calibration, texts.name, Goal(**goal) if goal else None)
    _print(goal_table(calibration, classifier.default_goal))
    print(f"\nNext: fastbert predict {shlex.quote(str(folder))} TEXTS.csv")


@app.command()
@needs_extra("export", "an export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder; it is written to.")],
    runtime: Annotated[
        Literal["openvino", "onnx"],
        typer.Option(help="What shall run the model, without torch."),
    ] = "openvino",
    precision: Annotated[
        Literal["fp32", "bf16", "int8"],
        typer.Option(
            help="fp32 answers like torch; bf16, for processors that have it, and int8 are faster."
        ),
    ] = "fp32",
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
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
) -> None:
    """Write files that run without torch.

    They lie in the model folder, in DIR/openvino or DIR/onnx, and `predict` uses them from then on.
    An export whose answers differ from those of torch is refused.
    """
    columns = Columns(text_column, pair_column)
    examples = None if data is None else _read(data, columns, labeled=False)
    _quiet_transformers()
    from fastbert.cli.tables import parity_table
    from fastbert.export.export import export_model

    manifest = export_model(
        folder,
        runtime=runtime,
        precision=precision,
        adaptive=adaptive,
        texts=None if examples is None else [example.content for example in examples],
        source="built-in sentences" if data is None else data.name,
    )
    _print(parity_table(manifest))
    place = shlex.quote(str(folder))
    print(f"\nNext: fastbert calibrate {place} DEV.csv --runtime {runtime}")
    print(f"      fastbert predict {place} TEXTS.csv --runtime {runtime}")


@app.command()
@needs_extra("export", "the bench")
def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Model folder.")],
    texts: Annotated[Path, typer.Argument(metavar="DATA", help="File of texts, labelled or not.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="what the folder is exported for, else torch",
            help="Where this model runs: torch, onnx or openvino, or with a precision such as "
            "openvino:int8, which is exported for the run; may be given several times.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    speed: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S", min=0, max=1, help="Threshold to time; may be given several times."
        ),
    ] = None,
    max_drop: Annotated[
        list[float] | None,
        typer.Option(
            parser=_share,
            metavar="SHARE",
            show_default="the folder's default",
            help="Goal to time: at most so much worse than the full model; may be given several "
            "times.",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Processor threads of each runtime.", rich_help_panel=RUNNING
        ),
    ] = 1,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=2, help="Texts computed together, in bulk.")
    ] = 32,
    rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Texts timed in bulk, from all over DATA.")
    ] = 1000,
    latency_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Texts timed one by one.")
    ] = 200,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Times that everyone has a turn.")
    ] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object instead of tables.")
    ] = False,
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
) -> None:
    """Time the model against plain runtimes on this machine.

    The same texts are answered by this model at the chosen speeds and at full depth, by a Hugging
    Face pipeline, and by the plain model in ONNX Runtime and OpenVINO, taking turns. Needs
    `fastbert-kit[export]`, and minutes.
    """
    columns = Columns(text_column, pair_column, label_column)
    _quiet_transformers()
    from fastbert.bench.run import bench
    from fastbert.bench.tables import bench_tables
    from fastbert.calibration.goal import Goal
    from fastbert.folder.read import open_folder

    opened = open_folder(folder)
    examples = _read_with_labels_if_any(texts, columns, opened.config.labels)
    result = bench(
        opened,
        examples,
        runtimes=runtime or (),
        settings=[*(Goal(max_drop=drop) for drop in max_drop or ()), *(speed or ())],
        threads=threads,
        batch_size=batch_size,
        rows=rows,
        latency_rows=latency_rows,
        rounds=rounds,
    )
    if as_json:
        _print_json(result.as_dict())
    else:
        _print(*bench_tables(result))


@app.command()
@needs_extra("report", "a report")
def report(
    folder: Model,
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
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
) -> None:
    """Draw what a model does at which speed, as one HTML page.

    The page needs nothing else and can be passed on; with --data it quotes some of the texts.
    """
    from fastbert.report.collect import collect
    from fastbert.report.page import write_report

    columns = Columns(text_column, pair_column, label_column)
    examples = None if data is None else _read(data, columns, labeled=not unlabeled)
    classifier = _load(folder)
    if examples and not unlabeled:
        check_labels(examples, classifier.labels)
    write_report(collect(classifier, Path(folder).name, examples), output, figures)
    print(output)


@app.command()
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
    from fastbert.cli.tables import folder_facts, folder_tables, system_tables
    from fastbert.folder.read import open_folder
    from fastbert.system import system_facts

    if system == (folder is not None):
        raise typer.BadParameter("inspect takes either DIR, a model folder, or --system")
    facts = system_facts() if folder is None else folder_facts(open_folder(folder))
    if as_json:
        _print_json(facts)
    else:
        _print(*(system_tables(facts) if folder is None else folder_tables(facts)))


@app.command()
@needs_extra("demo", "the demo")
def demo(
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
    text_column: TextColumn = Columns.text,
    pair_column: PairColumn = Columns.pair,
    label_column: LabelColumn = Columns.label,
    seed: Seed = 42,
) -> None:
    """Train, measure and try a classifier.

    It takes minutes and needs no data: real texts and weights come with `fastbert-kit[demo]`.
    """
    _quiet_transformers()
    from fastbert.demo import run_demo

    columns = Columns(text_column, pair_column, label_column)
    with _resumable("fastbert demo"):
        run_demo(output, model=model, data=data, columns=columns, seed=seed)


def _goal(*, speed: object = None, **options: Any) -> "GoalOptions":
    """Return the goal that was asked for, if any.

    Raises:
        ValueError: It is no goal, or there is a speed as well.
    """
    goal = {name: value for name, value in options.items() if value is not None}
    if goal:
        from fastbert.calibration.goal import Goal

        if speed is not None:
            raise ValueError("--speed and a goal exclude each other; give one of them")
        Goal(**goal)  # before the model is loaded
    return cast("GoalOptions", goal)


def _read(texts: Path, columns: Columns, *, labeled: bool) -> list[Example]:
    examples = load_examples(texts, columns, needs_label=labeled)
    if empty := count_empty(examples):
        logger.warning("%s: %d of %d texts are empty", texts, empty, len(examples))
    return examples


def _read_with_labels_if_any(texts: Path, columns: Columns, labels: Sequence[str]) -> list[Example]:
    """Return the rows, with labels if all have one of these or the column was named."""
    if str(texts) == "-":  # can be read once
        return _read(texts, columns, labeled=False)
    try:
        examples = _read(texts, columns, labeled=True)
        check_labels(examples, labels)
    except DataError as error:
        if columns.label != Columns.label:
            raise
        examples = _read(texts, columns, labeled=False)
        logger.warning("no accuracy is shown: %s", error)
    return examples


def _stage(
    epochs: int,
    learning_rate: float,
    batch_size: int,
    gradient_accumulation: int,
    seed: int,
    bf16: bool | None,
    report_to: str,
) -> "StageSettings":
    from fastbert.training.stage import StageSettings

    settings = StageSettings(
        epochs,
        learning_rate,
        batch_size,
        gradient_accumulation,
        seed=seed,
        report_to=report_to,
    )
    return settings if bf16 is None else replace(settings, bf16=bf16)


def _load(
    folder: str | Path,
    runtime: Literal["auto", "torch", "openvino", "onnx"] = "auto",
    threads: int | None = None,
    workers: int = 1,
) -> "FastBertClassifier":
    from fastbert.folder.names import EXPORT_SUFFIXES, MANIFEST_FILE

    exported = any(Path(folder, name, MANIFEST_FILE).is_file() for name in EXPORT_SUFFIXES)
    if runtime == "torch" or not exported:
        _quiet_transformers()
    from fastbert.classifier import FastBertClassifier

    return FastBertClassifier.from_pretrained(
        folder, runtime=runtime, threads=threads, workers=workers
    )


def _quiet_transformers() -> None:
    """Keep what transformers says while loading to itself; downloads still show their bars."""
    if find_spec("transformers") is None:  # a runtime may do without
        return
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each retry without a network
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    enable_progress_bars()


@contextmanager
def _resumable(how: str = "the same command with --resume") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"interrupted; {how} goes on from the last checkpoint") from error


def _show_trained(classifier: "FastBertClassifier", output: Path) -> None:
    _print_speeds(classifier.config.evaluation, classifier.config.default)
    print(f"\nNext: fastbert predict {shlex.quote(str(output))} TEXTS.csv")


def _print_speeds(table: Sequence[Mapping[str, Any]], default: "DefaultPoint | None") -> None:
    from fastbert.cli.tables import speed_table

    _print(speed_table(table, default))


def _print(*tables: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(*tables)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
