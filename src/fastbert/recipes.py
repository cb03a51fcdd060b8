"""From a file of texts to a model folder: both stages, the choice of a speed, the model card.

A run keeps its checkpoints in `OUTPUT.training` until the model folder is written, so it can be
stopped at any moment and resumed. The folder itself appears at the end, whole.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_model, save_model
from transformers import set_seed

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
from fastbert.errors import BackboneError, DataError, FolderError, TrainingError
from fastbert.evaluation import evaluate
from fastbert.folder import (
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    EarlyExitConfig,
    StudentShape,
    check_agreement,
    refuse_what_is_not_ours,
    seal,
    staged_folder,
)
from fastbert.goals import DEFAULT_MAX_DROP, LEAST_ROWS, Calibration, Goal, OperatingPoint
from fastbert.nn.checkpoint import hashes_of
from fastbert.nn.model import (
    FastBertModel,
    TeacherHead,
    save_tokenizer,
    teacher_to_train,
    trained_teacher,
)
from fastbert.report.card import write_card
from fastbert.text import TextTokenizer
from fastbert.training.distill import DISTILLATION, Direction, distill_students
from fastbert.training.fine_tune import FINE_TUNING, fine_tune
from fastbert.training.run_folder import (
    STAGED_WEIGHTS,
    STUDENTS,
    TEACHER,
    TEACHER_HISTORY,
    TEACHER_WEIGHTS,
    TOKENIZER,
    claim,
    clear,
    has_begun,
    read_run,
    remove,
    write_run,
)
from fastbert.training.stage import StageSettings, has_native_bf16, refuse_several_devices

logger = logging.getLogger(__name__)

SHOWN_SPEEDS = (0.0, 0.1, 0.3, 0.5, 0.8)  # in the table on the model card, with the default
HELD_OUT_EVERY = 10  # of texts without labels one in so many is held out, up to
HELD_OUT_AT_MOST = 2_000


@dataclass(frozen=True)
class StudentSettings:
    """What the students look like and how they are distilled.

    Args:
        shape: Width, attention heads and pooling.
        stage: Epochs, learning rate and the like.
        direction: Which Kullback-Leibler divergence is minimised.
        cache_hidden_states: Run the backbone once and keep what the students read on disk.
    """

    shape: StudentShape = field(default_factory=StudentShape)
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
    teacher_head: TeacherHead = "pretrained",
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
        teacher_head: `pretrained` gives the teacher the family's own head, `paper` the paper's.
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
    refuse_several_devices()
    _refuse_files_inside(output, train, dev, test, unlabeled)
    with Run.open(output, resume=resume) as run:
        examples = load_examples(train, columns, needs_label=True)
        dev_examples = load_examples(dev, columns, needs_label=True)
        test_examples = load_examples(test, columns, needs_label=True) if test else None
        labels = label_names(examples)
        check_labels(dev_examples, labels)
        check_labels(test_examples or [], labels)
        _warn_about(train, examples, {str(dev): dev_examples, str(test): test_examples or []})

        def further() -> Iterable[Example]:
            return read_examples(unlabeled, columns, needs_label=False) if unlabeled else ()

        read = {"train": Content.of(examples), "dev": Content.of(dev_examples)}
        if test:
            read["test"] = Content.of(test_examples or [])
        if unlabeled:
            read["unlabeled"] = Content.of(further())  # whole, so that no row fails after stage 1

        fine_tuning = run.settle_bf16(fine_tuning, "fine_tuning")
        student_stage = run.settle_bf16(students.stage, "students", "stage")
        students = replace(students, stage=student_stage)
        set_seed(fine_tuning.seed)
        teacher = teacher_to_train(model, labels, teacher_head, students.shape)
        fastbert = FastBertModel(teacher, students.shape)
        tokenizer = run.begin(
            model,
            fastbert,
            teacher_head,
            read,
            {
                "train": str(train),
                "dev": str(dev),
                "test": test and str(test),
                "unlabeled": unlabeled and str(unlabeled),
                "rows": [len(examples), len(dev_examples)],
                "model": str(model),
                "max_length": max_length,
                "teacher_head": teacher_head,
                "label_smoothing": label_smoothing,
                "fine_tuning": asdict(fine_tuning),
                "students": asdict(students),
            },
        )
        if not run.has_teacher(fastbert):
            history = fine_tune(
                teacher,
                tokenizer,
                examples,
                dev_examples,
                labels,
                run.folder / TEACHER,
                fine_tuning,
                label_smoothing=label_smoothing,
                resume=resume,
            )
            run.keep_teacher(fastbert, history)
        rows = sum(read[name].rows for name in ("train", "unlabeled") if name in read)
        return run.finish(
            fastbert,
            tokenizer,
            teacher_head,
            students,
            lambda: chain(examples, further()),
            rows,
            dev_examples,
            test_examples,
            default,
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
    refuse_several_devices()
    _refuse_files_inside(output, texts)

    def read() -> Iterator[Example]:
        return read_examples(texts, columns, needs_label=False)

    with Run.open(output, resume=resume) as run:
        held_out: list[Example] = []
        content = Content.of(_holding_out(read(), held_out))
        if not held_out:
            raise DataError(
                f"{texts}: at least {HELD_OUT_EVERY} texts are needed, to hold one out on which "
                "the epoch is chosen"
            )
        stage = run.settle_bf16(students.stage, "students", "stage")
        students = replace(students, stage=stage)
        set_seed(students.stage.seed)
        fastbert = FastBertModel(trained_teacher(checkpoint), students.shape)
        tokenizer = run.begin(
            checkpoint,
            fastbert,
            "pretrained",
            {"texts": content},
            {
                "texts": str(texts),
                "model": str(checkpoint),
                "max_length": max_length,
                "students": asdict(students),
            },
        )
        return run.finish(
            fastbert,
            tokenizer,
            "pretrained",
            students,
            lambda: (row for row, is_held_out in _marked(read()) if not is_held_out),
            content.rows - len(held_out),
            held_out,
            None,
            default,
        )


def _marked(rows: Iterable[Example]) -> Iterator[tuple[Example, bool]]:
    """Yield each row, and whether it is held out."""
    for index, example in enumerate(rows):
        number, place = divmod(index, HELD_OUT_EVERY)
        yield example, place == HELD_OUT_EVERY - 1 and number < HELD_OUT_AT_MOST


def _holding_out(rows: Iterable[Example], held_out: list[Example]) -> Iterator[Example]:
    """Yield all rows, and keep those that are held out."""
    for example, is_held_out in _marked(rows):
        if is_held_out:
            held_out.append(example)
        yield example


def _refuse_files_inside(output: str | Path, *files: str | Path | None) -> None:
    """Refuse texts that lie where the run removes or replaces a folder.

    Raises:
        DataError: A file lies in the model folder to be written, or in the run's.
    """
    target = Path(output).expanduser().resolve()
    for file in files:
        for place in (target, target.with_name(f"{target.name}.training")):
            if file is not None and Path(file).resolve().is_relative_to(place):
                raise DataError(
                    f"{file}: lies in {place}, which this run writes anew; move it away, or name "
                    "another output"
                )


@dataclass(frozen=True)
class Content:
    """What was read of a file, so that a resumed run can tell whether it reads the same.

    Args:
        rows: How many.
        sha256: Of texts and labels in their order; where they lie and how they are packed does
            not count.
    """

    rows: int
    sha256: str

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Content":
        """Read the examples to their end."""
        digest, rows = hashlib.sha256(), 0
        for example in examples:
            rows += 1
            read = [example.text, example.text_pair, example.label]
            digest.update(json.dumps(read).encode())
        return cls(rows, digest.hexdigest())


@dataclass(frozen=True)
class Run:
    """The working folder of a training run, from its first step to the finished model folder."""

    output: Path
    settings: dict[str, Any]
    resumed: bool
    stopped: dict[str, Any] | None  # what a stopped run wrote down

    @property
    def folder(self) -> Path:
        """Where everything lies until the model folder is written."""
        return self.output.with_name(f"{self.output.name}.training")

    @classmethod
    @contextmanager
    def open(cls, output: str | Path, *, resume: bool) -> "Iterator[Run]":
        """Take the run's folder for this process, before anything is read or computed.

        Raises:
            FolderError: Something else than a model folder lies at `output`, or something else
                than a run where its folder would be, or nothing can be written there.
            TrainingError: Another run is at work there, or there is a stopped one and `resume` is
                not asked for.
        """
        output = Path(output).expanduser()
        refuse_what_is_not_ours(output)
        folder = output.with_name(f"{output.name}.training")
        with claim(folder):
            stopped = read_run(folder) if has_begun(folder) else None
            if stopped and not resume:
                raise TrainingError(
                    f"{folder}: holds a run that was stopped; go on with --resume, or delete it"
                )
            yield cls(output, {}, resume, stopped)

    def settle_bf16(self, stage: StageSettings, *keys: str) -> StageSettings:
        """Return a stage's settings with bfloat16 on or off, where neither was asked for.

        A stopped run goes on as it began, also on a machine of another kind.

        Args:
            stage: The settings as given.
            keys: Where a stopped run has them in what it wrote down.
        """
        if stage.bf16 is not None or self.stopped is None:
            return replace(stage, bf16=stage.computes_bf16)
        before: Any = self.stopped["settings"]
        for key in keys:
            before = before.get(key, {})
        began = before.get("bf16", stage.computes_bf16)
        if began and not has_native_bf16():
            logger.warning(
                "%s: %s go on in bfloat16, as they began; this machine emulates it, slowly",
                self.folder, keys[0].replace("_", " "),
            )  # fmt: skip
        return replace(stage, bf16=began)

    def begin(
        self,
        checkpoint: str | Path,
        model: FastBertModel,
        teacher_head: TeacherHead,
        read: dict[str, Content],
        settings: dict[str, Any],
    ) -> TextTokenizer:
        """Check that the model can be saved and the run go on, and write down what it is about.

        Args:
            checkpoint: What messages name, and whose tokeniser is taken.
            model: What will be trained.
            teacher_head: Whose head the teacher has.
            read: The content of each file, by the name that it has in `settings`.
            settings: What the run is about, as the model folder will tell it.

        Returns:
            The tokeniser, as serving will read it.

        Raises:
            BackboneError: Model or tokeniser cannot be saved as a model folder.
            TrainingError: The stopped run was of other settings, or of files that have changed.
        """
        self.settings.update(json.loads(json.dumps(settings)))  # as they will be read
        with TemporaryDirectory() as temporary:
            written = Path(temporary)
            save_tokenizer(checkpoint, written)
            tokenizer = _checked_tokenizer(checkpoint, written, model, teacher_head, self.settings)
            now = {
                "settings": self.settings,
                "contents": {name: content.sha256 for name, content in read.items()},
                "checkpoint": hashes_of(checkpoint),
            }
            if self.stopped:
                self._refuse_changes(self.stopped, now)
                return tokenizer
            clear(self.folder)
            write_run(self.folder, now)
            shutil.copytree(written, self.folder / TOKENIZER)
        return tokenizer

    def _refuse_changes(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        advice = "resume with the same, or delete it"
        for name in sorted(before["contents"].keys() | now["contents"].keys()):
            path, earlier = now["settings"].get(name), before["settings"].get(name)
            if before["contents"].get(name) == now["contents"].get(name):
                continue
            if path == earlier:
                raise TrainingError(
                    f"{self.folder}: {path} has changed since the stopped run read it; {advice}"
                )
            raise TrainingError(
                f"{self.folder}: the stopped run had {name} {earlier}, not {path}, and what is in "
                f"them differs; {advice}"
            )
        changed = before["checkpoint"].items() ^ now["checkpoint"].items()
        if changed:
            raise TrainingError(
                f"{self.folder}: {now['settings']['model']} is not what the stopped run began "
                f"with, {min(changed)[0]} has changed; {advice}"
            )
        for key, value in now["settings"].items():
            if key not in {*now["contents"], "model"} and before["settings"].get(key) != value:
                raise TrainingError(
                    f"{self.folder}: the stopped run had {key} {before['settings'].get(key)}, not "
                    f"{value}; resume with the same settings, or delete it"
                )

    def has_teacher(self, model: FastBertModel) -> bool:
        """Load the teacher that stage 1 finished, if it has."""
        weights = self.folder / TEACHER_WEIGHTS
        if weights.exists():
            load_model(model.teacher, weights)
        return weights.exists()

    def keep_teacher(self, model: FastBertModel, history: list[dict[str, float]]) -> None:
        """Write down that stage 1 is finished, and free the space of its checkpoints."""
        self._teacher_history.write_text(json.dumps(history), encoding="utf-8")
        staged = self.folder / STAGED_WEIGHTS
        save_model(model.teacher, str(staged))
        staged.rename(self.folder / TEACHER_WEIGHTS)
        shutil.rmtree(self.folder / TEACHER)

    @property
    def _held_out_from(self) -> str:
        """The file of the held-out texts, by a name that may be published."""
        return Path(self.settings.get("dev") or self.settings["texts"]).name

    @property
    def _teacher_history(self) -> Path:
        return self.folder / TEACHER_HISTORY

    def finish(
        self,
        model: FastBertModel,
        tokenizer: TextTokenizer,
        teacher_head: TeacherHead,
        students: StudentSettings,
        texts: Callable[[], Iterable[Example]],
        num_texts: int,
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
            tokenizer,
            texts,
            num_texts,
            held_out,
            self.folder / STUDENTS,
            students.stage,
            direction=students.direction,
            cache_hidden_states=students.cache_hidden_states,
            resume=self.resumed,
        )
        config = EarlyExitConfig(
            teacher_head=teacher_head,
            labels=model.labels,
            num_layers=model.num_exits,
            max_length=tokenizer.max_length,
            students=students.shape,
            training=_without_places(self.settings) | {"history": history},
        )
        with staged_folder(self.output) as staging:
            model.save(staging)
            for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):  # no chat template
                shutil.copy2(self.folder / TOKENIZER / name, staging)
            config = seal(staging, config)
            classifier = FastBertClassifier.from_pretrained(staging, runtime="torch")
            calibration = _calibration(classifier, held_out)
            point = None
            if calibration is not None:
                config = add_calibration(staging, config, calibration, self._held_out_from, default)
                point = calibration.solve(default)
            rows = _measured(classifier, test or held_out, point)
            config = seal(staging, replace(config, evaluation=rows))
            write_card(staging, config, split="test" if test else "dev")
        remove(self.folder)
        return FastBertClassifier.from_pretrained(self.output)


def _checked_tokenizer(
    checkpoint: str | Path,
    written: Path,
    model: FastBertModel,
    teacher_head: TeacherHead,
    settings: Mapping[str, Any],
) -> TextTokenizer:
    """Read a tokeniser that was just written, and check that the folder at the end can be sealed.

    Raises:
        BackboneError: Tokeniser, labels, layers and positions do not fit together.
        ValueError: max_length leaves no room for a text.
    """
    max_length = settings["max_length"]
    if max_length > model.backbone.max_length:
        raise BackboneError(
            f"{checkpoint}: reads at most {model.backbone.max_length} tokens, "
            f"max_length is {max_length}"
        )
    encoder_config = model.teacher.config
    if getattr(encoder_config, "inner_group_num", 1) != 1:
        raise BackboneError(
            f"{checkpoint}: each of its {encoder_config.num_hidden_layers} layers is a group of "
            f"inner_group_num {encoder_config.inner_group_num}, and only 1 can be saved"
        )
    try:
        tokenizer = TextTokenizer.from_folder(written, max_length)
        config = EarlyExitConfig(
            teacher_head=teacher_head,
            labels=model.labels,
            num_layers=model.num_exits,
            max_length=max_length,
            students=model.student_shape,
        )
        model_config = json.loads(encoder_config.to_json_string())
        check_agreement(Path(checkpoint), config, model_config, tokenizer.vocab_size - 1)
    except FolderError as error:
        raise BackboneError(str(error).replace(str(written), str(checkpoint))) from error
    return tokenizer


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
