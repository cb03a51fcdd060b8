"""The working folder of a training run, from its first step to the finished model folder."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import BackboneError, FolderError, TrainingError
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from fastbert.folder.read import check_agreement
from fastbert.folder.write import refuse_what_is_not_ours
from fastbert.head_shapes import DEFAULT_HEADS, Heads, parts_of
from fastbert.nn.checkpoint import hashes_of
from fastbert.nn.model import FastBertModel, PaperClassifier
from fastbert.nn.objectives import Direction
from fastbert.nn.teachers import save_tokenizer
from fastbert.recipes.contents import Content
from fastbert.recipes.outcome import AnsweringTeacher, write_model
from fastbert.recipes.run_folder import (
    TOKENIZER,
    TOKENS,
    claim,
    clear,
    has_begun,
    read_run,
    remove,
    write_run,
)
from fastbert.recipes.stages import Learned, Walk
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.scheme import (
    DISTILLATION,
    FINE_TUNING,
    TOLERANCE,
    Scheme,
    SchemeSettings,
)
from fastbert.training.stage import Stage, StageSettings, has_native_bf16
from fastbert.training.stream import TrainingTexts
from fastbert.training.tokens import TokenFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentSettings:
    """What the students look like and how they are distilled.

    Args:
        heads: The head of each student: a spelling such as `paper:3,queries`, or their shapes.
        stage: Epochs, learning rate and the like where they alone learn.
        direction: Which Kullback-Leibler divergence is minimised.
        cache_hidden_states: Run the backbone once and keep what the students read on disk; None
            where the students alone learn for several epochs and it fits.
        exits: Epochs and the like where all parts learn after that; None for the default's with
            the steps, seed and precision of the first stage.

    Raises:
        ValueError: The heads are no spelling.
    """

    heads: Heads = DEFAULT_HEADS
    stage: StageSettings = DISTILLATION
    direction: Direction = "student-teacher"
    cache_hidden_states: bool | None = None
    exits: StageSettings | None = None

    def __post_init__(self) -> None:
        """Refuse what is no spelling before any file is read."""
        if isinstance(self.heads, str):
            parts_of(self.heads)

    def scheme_settings(
        self,
        fine_tuning: StageSettings = FINE_TUNING,
        *,
        label_smoothing: float = 0.0,
        tolerance: float = TOLERANCE,
    ) -> SchemeSettings:
        """Return the numbers of any scheme with these of its stages.

        Stages that have no settings here take steps, seed and precision of `fine_tuning`.
        """

        numbers = SchemeSettings()

        def like_the_first(stage: StageSettings) -> StageSettings:
            own = ("epochs", "learning_rate", "students_learning_rate", "warmup", "weight_decay")
            return replace(fine_tuning, **{name: getattr(stage, name) for name in own})

        return replace(
            numbers,
            fine_tuning=fine_tuning,
            distillation=self.stage,
            warm_up=self.stage,
            exits=self.exits or like_the_first(numbers.exits),
            polish=numbers.polish and like_the_first(numbers.polish),
            label_smoothing=label_smoothing,
            direction=self.direction,
            cache_hidden_states=self.cache_hidden_states,
            tolerance=tolerance,
        )


@dataclass(frozen=True)
class Run:
    """The working folder of a training run, from its first step to the finished model folder."""

    output: Path
    settings: dict[str, Any]
    resumed: bool
    stopped: dict[str, Any] | None  # what a stopped run wrote down
    read: dict[str, Content] = field(default_factory=dict)

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

    def settle(self, scheme: Scheme) -> Scheme:
        """Return a scheme with bfloat16 on or off in each of its stages, as in the first."""
        first = scheme.stages[0]
        settled = self.settle_bf16(first.settings, "stages", first.name, "settings").bf16

        def settle(stage: Stage) -> StageSettings:
            asked = stage.settings.bf16
            return replace(stage.settings, bf16=settled if asked is None else asked)

        return scheme.map_settings(settle)

    def begin(
        self,
        checkpoint: str | Path,
        model: FastBertModel,
        read: dict[str, Content],
        settings: dict[str, Any],
        teacher: Mapping[str, str] = MappingProxyType({}),
    ) -> TextTokenizer:
        """Check that the model can be saved and the run go on, and write down what it is about.

        Args:
            checkpoint: What messages name, and whose tokeniser is taken.
            model: What will be trained.
            read: The content of each file, by the name that it has in `settings`.
            settings: What the run is about, as the model folder will tell it.
            teacher: The hashes of another model that teaches it, `teacher` of the settings.

        Returns:
            The tokeniser, as serving will read it.

        Raises:
            BackboneError: Model or tokeniser cannot be saved as a model folder.
            TrainingError: The stopped run was of other settings, or of files that have changed.
        """
        self.settings.update(json.loads(json.dumps(settings)))  # as they will be read
        self.read.update(read)
        with TemporaryDirectory() as temporary:
            written = Path(temporary)
            save_tokenizer(checkpoint, written)
            tokenizer = _checked_tokenizer(checkpoint, written, model, self.settings)
            now = {
                "settings": self.settings,
                "contents": {name: content.sha256 for name, content in read.items()},
                "checkpoint": hashes_of(checkpoint),
                "teacher": dict(teacher),
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
        for hashes, name in (("checkpoint", "model"), ("teacher", "teacher")):
            changed = before.get(hashes, {}).items() ^ now[hashes].items()
            if changed:
                raise TrainingError(
                    f"{self.folder}: {now['settings'].get(name)} is not what the stopped run began "
                    f"with, {min(changed)[0]} has changed; {advice}"
                )
        for key, value in now["settings"].items():
            if (
                key not in {*now["contents"], "model", "teacher"}
                and before["settings"].get(key) != value
            ):
                raise TrainingError(
                    f"{self.folder}: the stopped run had {key} {before['settings'].get(key)}, not "
                    f"{value}; resume with the same settings, or delete it"
                )

    def tokens(
        self, name: str, texts: Iterable[Example], tokenizer: TextTokenizer, contents: Sequence[str]
    ) -> TokenFile:
        """Return the tokens of texts: those that a stopped run has made, if they are of the same.

        Args:
            name: Of the folder that they lie in.
            texts: Read only if they have to be tokenised.
            tokenizer: The run's.
            contents: Names of what was read, of which the texts are made.
        """
        digest = hashlib.sha256(repr((name, tokenizer.max_length)).encode())
        for content in contents:
            digest.update(self.read[content].sha256.encode())
        for file in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):
            digest.update((self.folder / TOKENIZER / file).read_bytes())
        folder, identity = self.folder / TOKENS / name, digest.hexdigest()
        written = TokenFile.load(folder, identity)
        if written is not None:
            return written
        return TokenFile.write(folder, (text.content for text in texts), tokenizer, identity)

    def train(
        self,
        scheme: Scheme,
        model: FastBertModel,
        tokenizer: TextTokenizer,
        texts: TrainingTexts,
        answers: TeacherAnswers | None = None,
    ) -> Learned:
        """Train a model in place, stage by stage; one that is finished already is loaded.

        Args:
            scheme: What to do.
            model: The model.
            tokenizer: The run's.
            texts: What is learned from.
            answers: Of another model that teaches it; None where the first stage makes the teacher.

        Raises:
            TrainingError: A stage needs labels and there are none, or a loss is not a number.
        """
        return Walk(model, tokenizer, texts, self.folder, self.resumed).through(scheme, answers)

    def finish(
        self,
        model: FastBertModel,
        tokenizer: TextTokenizer,
        learned: Learned,
        held_out: Sequence[Example],
        test: Sequence[Example] | None,
        default: Goal,
        teacher: AnsweringTeacher | None = None,
    ) -> FastBertClassifier:
        """Write the model folder, remove the run's, and open the model.

        What `write_model` takes is described there.
        """
        source = self.settings.get("dev") or self.settings["texts"]
        write_model(
            self.output,
            model,
            tokenizer,
            self.folder / TOKENIZER,
            replace(
                config_of(model, tokenizer.max_length),
                training=_without_places(self.settings) | learned.told(),
            ),
            held_out,
            test,
            Path(source).name,  # a name that may be published
            default,
            teacher,
        )
        remove(self.folder)
        return FastBertClassifier.from_pretrained(self.output)


def _checked_tokenizer(
    checkpoint: str | Path,
    written: Path,
    model: FastBertModel,
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
        config = config_of(model, max_length)
        model_config = json.loads(encoder_config.to_json_string())
        check_agreement(Path(checkpoint), config, model_config, tokenizer.vocab_size - 1)
    except FolderError as error:
        raise BackboneError(str(error).replace(str(written), str(checkpoint))) from error
    return tokenizer


def config_of(model: FastBertModel, max_length: int) -> EarlyExitConfig:
    """Return what early_exit.json says of a model itself."""
    return EarlyExitConfig(
        teacher_head=model.teacher.head.shape
        if isinstance(model.teacher, PaperClassifier)
        else "pretrained",
        task=model.task,
        num_layers=model.num_exits,
        max_length=max_length,
        students=model.student_shapes,
    )


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as a published folder may tell them: files and folders by name only.

    A folder's name ends in a slash, so that it is not taken for a name on the Hub.
    """

    def told(value: Any) -> Any:
        if not isinstance(value, str) or not Path(value).exists():
            return value
        return f"{Path(value).name}/" if Path(value).is_dir() else Path(value).name

    return {key: told(value) for key, value in settings.items()}
