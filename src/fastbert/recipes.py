"""From a file of texts to a model folder: both stages, the choice of a speed, the model card.

A run keeps its checkpoints in `OUTPUT.training` until the model folder is written, so it can be
stopped at any moment and resumed. The folder itself appears at the end, whole.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from transformers import AutoTokenizer, set_seed

from fastbert.calibration_record import add_calibration
from fastbert.classifier import FastBertClassifier
from fastbert.data import (
    Columns,
    Example,
    check_labels,
    count_empty,
    duplicates_between,
    label_names,
    load_examples,
    read_examples,
)
from fastbert.errors import BackboneError, DataError, TrainingError
from fastbert.evaluation import evaluate
from fastbert.folder import (
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    EarlyExitConfig,
    StudentLayout,
    refuse_what_is_not_ours,
    seal,
    staged_folder,
)
from fastbert.goals import DEFAULT_MAX_DROP, LEAST_ROWS, Calibration, Goal, OperatingPoint
from fastbert.nn.model import FastBertModel, Layout, teacher_to_train, trained_teacher
from fastbert.report.card import write_card
from fastbert.text import TextEncoder
from fastbert.training.distill import DISTILLATION, Direction
from fastbert.training.distill import distill as distill_students
from fastbert.training.fine_tune import FINE_TUNING, fine_tune
from fastbert.training.stage import StageSettings

logger = logging.getLogger(__name__)

SHOWN_SPEEDS = (0.0, 0.1, 0.3, 0.5, 0.8)  # in the table on the model card, with the default
HELD_OUT_EVERY = 10  # of texts without labels one in so many is held out, up to
HELD_OUT_AT_MOST = 2_000


@dataclass(frozen=True)
class StudentSettings:
    """What the students look like and how they are distilled.

    Args:
        layout: Width, attention heads and pooling.
        stage: Epochs, learning rate and the like.
        direction: Which Kullback-Leibler divergence is minimised.
        cache_hidden_states: Run the backbone once and keep what the students read on disk.
    """

    layout: StudentLayout = field(default_factory=StudentLayout)
    stage: StageSettings = DISTILLATION
    direction: Direction = "student-teacher"
    cache_hidden_states: bool = False


def train(
    train: str | Path,
    *,
    dev: str | Path,
    model: str | Path,
    output: str | Path,
    test: str | Path | None = None,
    unlabeled: str | Path | None = None,
    columns: Columns | None = None,
    max_length: int = 128,
    layout: Layout = "pretrained",
    fine_tuning: StageSettings = FINE_TUNING,
    label_smoothing: float = 0.0,
    students: StudentSettings | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    resume: bool = False,
) -> FastBertClassifier:
    """Train a FastBERT classifier from labelled texts and write its model folder.

    Args:
        train: File of labelled texts.
        dev: File of labelled texts that choose the best epochs and calibrate the model.
        model: The pretrained encoder: a local folder or a Hub name.
        output: The model folder to write.
        test: File of labelled texts for the table on the model card; without it dev serves.
        unlabeled: File of further texts for the students to learn from.
        columns: What the columns of the files are called.
        max_length: Longest sequence in tokens; longer texts are cut.
        layout: `pretrained` gives the teacher the family's own head, `paper` the paper's.
        fine_tuning: Settings of stage 1.
        label_smoothing: Share of the probability that stage 1 spreads over all classes.
        students: What the students look like, and the settings of stage 2.
        max_drop: How much worse than the full model the default may be, as a share.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: A file cannot be used.
        BackboneError: The encoder cannot be used.
        TrainingError: There is a stopped run, one of other settings, or the loss is not a number.
    """
    columns, students = columns or Columns(), students or StudentSettings()
    default = Goal(max_drop=max_drop)
    examples = load_examples(train, columns, needs_label=True)
    dev_examples = load_examples(dev, columns, needs_label=True)
    test_examples = load_examples(test, columns, needs_label=True) if test else None
    labels = label_names(examples)
    check_labels(dev_examples, labels)
    check_labels(test_examples or [], labels)
    _warn_about(train, examples, {str(dev): dev_examples, str(test): test_examples or []})

    set_seed(fine_tuning.seed)
    teacher = teacher_to_train(model, labels, layout, students.layout)
    fastbert = FastBertModel(teacher, students.layout)
    run = Run.open(
        output,
        {
            "train": str(train),
            "dev": str(dev),
            "unlabeled": unlabeled and str(unlabeled),
            "rows": [len(examples), len(dev_examples)],
            "model": str(model),
            "max_length": max_length,
            "layout": layout,
            "label_smoothing": label_smoothing,
            "fine_tuning": asdict(fine_tuning),
            "students": asdict(students),
        },
        resume=resume,
    )
    encoder = run.encoder(model, fastbert, max_length)
    if not run.has_teacher(fastbert):
        history = fine_tune(
            teacher,
            encoder,
            examples,
            dev_examples,
            labels,
            run.folder / "teacher",
            fine_tuning,
            label_smoothing=label_smoothing,
            resume=resume,
        )
        run.keep_teacher(fastbert, history)

    def texts() -> Iterator[Example]:
        further = read_examples(unlabeled, columns, needs_label=False) if unlabeled else ()
        return chain(examples, further)

    return run.finish(
        fastbert, encoder, layout, students, texts, dev_examples, test_examples, default
    )


def distill(
    checkpoint: str | Path,
    texts: str | Path,
    *,
    output: str | Path,
    columns: Columns | None = None,
    max_length: int = 128,
    students: StudentSettings | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    resume: bool = False,
) -> FastBertClassifier:
    """Give a classifier that somebody has fine-tuned its students, from texts without labels.

    One text in ten, at most 2,000, is held out: these choose the best epoch and calibrate the
    model, by agreement with the teacher. At speed 0 the answers are the checkpoint's own.

    Args:
        checkpoint: A `*ForSequenceClassification` model: a local folder or a Hub name.
        texts: File of texts, of any size: it is streamed.
        output: The model folder to write.
        columns: What the columns of the file are called.
        max_length: Longest sequence in tokens; longer texts are cut.
        students: What the students look like, and the settings of stage 2.
        max_drop: How much worse than the full model the default may be, as a share.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: The file cannot be used.
        BackboneError: The checkpoint has no trained head, or its family is not known.
        TrainingError: There is a stopped run, one of other settings, or the loss is not a number.
    """
    columns, students = columns or Columns(), students or StudentSettings()
    default = Goal(max_drop=max_drop)
    settings = {
        "texts": str(texts),
        "model": str(checkpoint),
        "max_length": max_length,
        "students": asdict(students),
    }
    set_seed(students.stage.seed)
    fastbert = FastBertModel(trained_teacher(checkpoint), students.layout)
    run = Run.open(output, settings, resume=resume)
    encoder = run.encoder(checkpoint, fastbert, max_length)

    def read(held_out: bool) -> Iterator[Example]:
        for row, example in enumerate(read_examples(texts, columns, needs_label=False)):
            number, place = divmod(row, HELD_OUT_EVERY)
            if held_out == (place == HELD_OUT_EVERY - 1 and number < HELD_OUT_AT_MOST):
                yield example

    held_out = list(read(True))
    if not held_out:
        raise DataError(
            f"{texts}: at least {HELD_OUT_EVERY} texts are needed, to hold one out on which the "
            "speed is chosen"
        )
    return run.finish(
        fastbert, encoder, "pretrained", students, lambda: read(False), held_out, None, default
    )


@dataclass(frozen=True)
class Run:
    """The working folder of a training run, from its first step to the finished model folder."""

    output: Path
    settings: dict[str, Any]
    resumed: bool

    @property
    def folder(self) -> Path:
        """Where everything lies until the model folder is written."""
        return self.output.with_name(f"{self.output.name}.training")

    @classmethod
    def open(cls, output: str | Path, settings: dict[str, Any], *, resume: bool) -> "Run":
        """Start a run, or go on with the one that was stopped.

        Raises:
            FolderError: Something else than a model folder lies at `output`.
            TrainingError: There is a stopped run and `resume` is not asked for, or it had other
                settings.
        """
        refuse_what_is_not_ours(Path(output).expanduser())
        settings = json.loads(json.dumps(settings))  # as they will be read
        run = cls(Path(output).expanduser(), settings, resume)
        record = run.folder / "run.json"
        if not run.has_begun():  # else a mistyped option would have to be resumed
            shutil.rmtree(run.folder, ignore_errors=True)
            run.folder.mkdir(parents=True)
            record.write_text(json.dumps(settings, indent=1), encoding="utf-8")
            return run
        if not resume:
            raise TrainingError(
                f"{run.folder}: holds a run that was stopped; go on with --resume, or delete it"
            )
        before = json.loads(record.read_text(encoding="utf-8"))
        for key, value in settings.items():
            if before.get(key) != value:
                raise TrainingError(
                    f"{run.folder}: the stopped run had {key} {before.get(key)}, not {value}; "
                    "resume with the same settings, or delete it"
                )
        return run

    def has_begun(self) -> bool:
        """Return whether there is training to go on with."""
        finished = (self.folder / "teacher.safetensors").exists()
        return finished or any(self.folder.glob("*/checkpoint-*"))

    def encoder(self, checkpoint: str | Path, model: FastBertModel, max_length: int) -> TextEncoder:
        """Write the checkpoint's tokeniser into the run, and read it as serving will.

        Raises:
            BackboneError: The model has no position for so many tokens.
        """
        if max_length > model.backbone.max_length:
            raise BackboneError(
                f"{checkpoint}: reads at most {model.backbone.max_length} tokens, "
                f"max_length is {max_length}"
            )
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        tokenizer.save_pretrained(self.folder / "tokenizer")
        return TextEncoder.from_folder(self.folder / "tokenizer", max_length)

    def has_teacher(self, model: FastBertModel) -> bool:
        """Load the teacher that stage 1 finished, if it has."""
        weights = self.folder / "teacher.safetensors"
        if weights.exists():
            load_model(model.teacher, weights)
        return weights.exists()

    def keep_teacher(self, model: FastBertModel, history: list[dict[str, float]]) -> None:
        """Write down that stage 1 is finished, and free the space of its checkpoints."""
        self._teacher_history.write_text(json.dumps(history), encoding="utf-8")
        staged = self.folder / "teacher.part"
        save_model(model.teacher, str(staged))
        staged.rename(self.folder / "teacher.safetensors")
        shutil.rmtree(self.folder / "teacher")

    @property
    def _held_out_from(self) -> str:
        """The file of the held-out texts, by a name that may be published."""
        return Path(self.settings.get("dev") or self.settings["texts"]).name

    @property
    def _teacher_history(self) -> Path:
        return self.folder / "teacher.history.json"

    def finish(
        self,
        model: FastBertModel,
        encoder: TextEncoder,
        layout: Layout,
        students: StudentSettings,
        texts: Callable[[], Iterable[Example]],
        held_out: Sequence[Example],
        test: Sequence[Example] | None,
        default: Goal,
    ) -> FastBertClassifier:
        """Distil the students, calibrate, measure, and write the model folder."""
        history = {}
        if self._teacher_history.exists():
            history["teacher"] = json.loads(self._teacher_history.read_text(encoding="utf-8"))
        history["students"] = distill_students(
            model,
            encoder,
            texts,
            sum(1 for _ in texts()),
            held_out,
            self.folder / "students",
            students.stage,
            direction=students.direction,
            cache_hidden_states=students.cache_hidden_states,
            resume=self.resumed,
        )
        config = EarlyExitConfig(
            layout=layout,
            labels=model.labels,
            num_layers=model.num_exits,
            max_length=encoder.max_length,
            students=students.layout,
            training=_without_places(self.settings) | {"history": history},
        )
        with staged_folder(self.output) as stage:
            model.save(stage)
            for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):  # no chat template
                shutil.copy2(self.folder / "tokenizer" / name, stage)
            config = seal(stage, config)
            classifier = FastBertClassifier.from_pretrained(stage, runtime="torch")
            calibration = _calibration(classifier, held_out)
            point = None
            if calibration is not None:
                config = add_calibration(stage, config, calibration, self._held_out_from, default)
                point = calibration.solve(default)
            rows = _measured(classifier, test or held_out, point)
            config = seal(stage, replace(config, evaluation=rows))
            write_card(stage, config, split="test" if test else "dev")
        shutil.rmtree(self.folder)
        return FastBertClassifier.from_pretrained(self.output)


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as a published folder may tell them: files and folders by name only.

    A folder's name ends in a slash, so that it is not taken for a name on the Hub.
    """

    def told(value: Any) -> Any:
        if not isinstance(value, str) or not Path(value).exists():
            return value
        return f"{Path(value).name}/" if Path(value).is_dir() else Path(value).name

    return {key: told(value) for key, value in settings.items()}


def _calibration(classifier: FastBertClassifier, held_out: Sequence[Example]) -> Calibration | None:
    """Return what all exits answer about the held-out texts; None if they are too few to tell."""
    if len(held_out) < LEAST_ROWS:
        logger.warning(
            "%d held-out texts are too few to choose thresholds, so every layer is run by default; "
            "calibrate with at least %d", len(held_out), LEAST_ROWS,
        )  # fmt: skip
        return None
    labels = [str(example.label) for example in held_out if example.label is not None]
    if labels and (unseen := set(classifier.labels) - set(labels)):
        logger.warning(
            "%d of %d classes have no dev text, such as %s, so the default is chosen by agreement "
            "with the full model", len(unseen), len(classifier.labels), min(unseen),
        )  # fmt: skip
        labels = []
    return classifier.calibrate([example.content for example in held_out], labels or None)


def _measured(
    classifier: FastBertClassifier, examples: Sequence[Example], point: OperatingPoint | None
) -> list[dict[str, Any]]:
    """Return the table of the model card; where nobody labelled a text, the teacher has."""
    if any(example.label is None for example in examples):
        answers = classifier.predict([example.content for example in examples], 0.0)
        examples = [
            replace(example, label=answer.label)
            for example, answer in zip(examples, answers, strict=True)
        ]
    settings: list[float | OperatingPoint | None] = [*SHOWN_SPEEDS]
    if point is not None:
        settings.append(point)
    return [row.as_dict() for row in evaluate(classifier, examples, settings)]


def _warn_about(
    train: str | Path, examples: Sequence[Example], others: dict[str, Sequence[Example]]
) -> None:
    """Count what is allowed but seldom meant."""
    for file, rows in {str(train): examples, **others}.items():
        if empty := count_empty(rows):
            logger.warning("%s: %d of %d texts are empty", file, empty, len(rows))
    for file, rows in others.items():
        if twins := duplicates_between(examples, rows):
            logger.warning(
                "%s: %d of %d texts also stand in %s, so its figures flatter",
                file, twins, len(rows), train,
            )  # fmt: skip
