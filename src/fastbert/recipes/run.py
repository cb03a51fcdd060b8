"""The working folder of a training run, from its first step to the finished model folder."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_model, save_model

from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import LEAST_ROWS, Calibration
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import BackboneError, FolderError, TrainingError
from fastbert.evaluation import evaluate
from fastbert.folder.calibration import add_calibration
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from fastbert.folder.read import check_agreement
from fastbert.folder.write import refuse_what_is_not_ours, reseal, seal, staged_folder
from fastbert.nn.checkpoint import hashes_of
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import save_tokenizer
from fastbert.recipes.contents import Content
from fastbert.recipes.run_folder import (
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
from fastbert.report.card import write_card
from fastbert.shape import StudentShape, TeacherHead
from fastbert.text import TextTokenizer
from fastbert.training.distill import DISTILLATION, Direction, distill_students
from fastbert.training.stage import StageSettings, has_native_bf16

logger = logging.getLogger(__name__)

SHOWN_SPEEDS = (0.0, 0.1, 0.3, 0.5, 0.8)  # in the table on the model card, with the default


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
            task=model.task,
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
            config = reseal(staging, replace(config, evaluation=rows))
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
            task=model.task,
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
