"""Texts in, predictions out: the classifier people use, over any exit backend."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from jaxtyping import Float

from fastbert.answering import Answering, encode, is_one
from fastbert.calibration.answerer import TORCH, Answerer
from fastbert.calibration.choose import complete_truth, measure_to_calibrate
from fastbert.calibration.goal import DEFAULT_GOAL, Goal, GoalOptions
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration, check_enough
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion, Measure
from fastbert.exits.engine import ExitBackend, ExitResult
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.calibration import (
    answers_as_calibrated,
    default_criterion,
    default_goal,
    load_calibration,
    refuse_other_answerer,
    save_calibration,
)
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.hub import push_folder
from fastbert.folder.read import ModelFolder
from fastbert.folder.write import copy_folder
from fastbert.opening import Opened, Recipe, open_again, open_model
from fastbert.running import Running, RunningOptions
from fastbert.runtime.workers import Rows
from fastbert.tasks.task import Target, Task
from fastbert.text import Text, TextTokenizer, TokenBatch, Tokens

Speed = float | ExitCriterion | OperatingPoint


class FastBertClassifier:
    """A text classifier that stops reading layers as soon as it is sure.

    `predict` may be called from several threads at once: no call leaves anything behind but the
    calibration, which is read when a goal is first asked for.
    """

    def __init__(
        self,
        backend: ExitBackend[Any, TokenBatch],
        tokenizer: TextTokenizer,
        folder: ModelFolder,
        measure: Measure | None = None,
        workers: int = 1,
        answerer: Answerer = TORCH,
    ) -> None:
        """Put the parts together; `from_pretrained` does it from a folder."""
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.backend = backend
        self.workers = workers
        self._recipe: Recipe | None = None
        self.tokenizer = tokenizer
        self.folder = folder
        self.measure = measure
        self.answerer = answerer
        self._answering = Answering(backend, tokenizer, folder.config.task.outputs, workers)

    @property
    def config(self) -> EarlyExitConfig:
        """What `early_exit.json` says."""
        return self.folder.config

    @property
    def task(self) -> Task:
        """What is answered."""
        return self.config.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.config.labels

    @property
    def num_layers(self) -> int:
        """The number of encoder layers: the exit layer of a row that no student answered."""
        return self.config.num_layers

    @property
    def is_calibrated(self) -> bool:
        """Whether the folder's calibration speaks of what answers here."""
        return self.config.calibration is not None and answers_as_calibrated(
            self.folder, self.answerer
        )

    @property
    def default_goal(self) -> Goal | None:
        """What is reached where nobody asks for a speed or a goal; None if nothing was stored."""
        return default_goal(self.folder)

    @cached_property
    def default_criterion(self) -> ExitCriterion:
        """How texts are answered where nobody asks for a speed or a goal: as the folder says.

        Raises:
            CalibrationError: The default is a promise, and it was made for another runtime.
            FolderError: It was chosen by a measure of one's own, which was not passed.
        """
        return default_criterion(self.folder, self.measure, self.answerer)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        measure: Measure | None = None,
        **running: Unpack[RunningOptions],
    ) -> "FastBertClassifier":
        """Load a classifier from a model folder or from the Hugging Face Hub.

        Args:
            folder_or_hub_id: A local folder, or a Hub name such as `someone/model`.
            revision: Branch, tag or commit on the Hub.
            token: For a private Hub repository.
            measure: Your own measure of doubt, if the folder was calibrated with one.
            running: How it is run: `runtime`, `threads`, `workers`, `device`, `dtype` and
                `cache_folder`; see `fastbert.running.Running`.

        Raises:
            ExportError: The processor does not compute in the export's precision.
            FolderError: The folder or the export is missing, damaged, or not ours.
            MissingExtraError: The runtime is not installed.
            ValueError: A value of `running` is wrong, or its runtime has no use for another.
        """
        return cls._opened(
            open_model(folder_or_hub_id, revision, token, Running(**running)), measure
        )

    @classmethod
    def _opened(cls, opened: Opened, measure: Measure | None) -> "FastBertClassifier":
        workers = opened.recipe.running.workers or 1
        parts = opened.backend, opened.tokenizer, opened.folder
        classifier = cls(*parts, measure, workers, opened.answerer)
        classifier._recipe = opened.recipe
        return classifier

    @classmethod
    def _open_again(cls, recipe: Recipe, measure: Measure | None) -> "FastBertClassifier":
        """Open the folder of a classifier that was pickled or copied."""
        return cls._opened(open_again(recipe), measure)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pickle or a copy open the folder again: what runtimes compile can be in neither.

        Raises:
            TypeError: The classifier was put together by hand.
        """
        if self._recipe is None:
            raise TypeError(
                "only a classifier that from_pretrained opened can be pickled or copied: its copy "
                "opens the folder again"
            )
        recipe = replace(self._recipe, hashes=self.config.hashes)  # a calibration changed them
        return self._open_again, (recipe, self.measure)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model folder, whole or not at all.

        Raises:
            FolderError: There is something else under that name, or the disk is full.
        """
        copy_folder(self.folder, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload FastBERT classifier",
    ) -> str:
        """Upload the model to the Hugging Face Hub and return the address of the commit.

        What else lies in the model folder is not uploaded.

        Raises:
            FolderError: The repository holds another model, or the folder was replaced.
        """
        return push_folder(self.folder, repo_id, private, token, commit_message)

    # The speed for a goal.

    def calibrate(
        self,
        texts: Iterable[Text],
        labels: Iterable[Target] | None = None,
        *,
        measure: Measure | str | None = None,
        batch_size: int = 32,
    ) -> Calibration:
        """Record what every exit answers about held-out texts, for goals to be solved from.

        What comes of it holds for the runtime and the precision of this classifier.

        Args:
            texts: Texts like those to come, not those of the training.
            labels: The right answers; without them the full model's take their place.
            measure: The exit criterion: a measure of doubt, or the name of one in
                `fastbert.exits.measures.MEASURES`; by default the task's own.
            batch_size: Texts computed together.

        Raises:
            CalibrationError: There are too few texts, or a class has none.
            MissingExtraError: A learned measure is fitted by scikit-learn.
            ValueError: A label is not one of the classifier's, or the measure is unknown.
        """
        chosen = measure_to_calibrate(measure, self.task)
        tokens = self.encode(texts)
        truth = None if labels is None else complete_truth(self.task, list(labels), len(tokens))
        check_enough(len(tokens))  # before the model runs for minutes
        recorded = self.record_tokens(tokens, batch_size)
        lengths = np.array([len(row.ids) for row in tokens])
        found, fitted = chosen(recorded)
        return Calibration(
            recorded,
            truth,
            lengths,
            self.folder.shape,
            self.task,
            measure=found,
            fitted=fitted,
            answered_by=self.answerer,
        )

    def save_calibration(
        self, calibration: Calibration, source: str, default: Goal | None = None
    ) -> None:
        """Write a calibration into the model folder; from now on goals are solved from it.

        Args:
            calibration: What `calibrate` returned.
            source: What to call the texts: a name that may be published.
            default: The goal for which texts are answered where nobody asks for another; if none is
                given, the folder's own, and if it has none `DEFAULT_GOAL`.

        Raises:
            CalibrationError: The goal cannot be met.
            FolderError: The folder cannot be written.
        """
        goal = default or self.default_goal or DEFAULT_GOAL
        self.folder = save_calibration(self.folder, calibration, source, goal)
        for name in ("calibration", "default_criterion"):
            self.__dict__.pop(name, None)

    @cached_property
    def calibration(self) -> Calibration:
        """The folder's calibration.

        Raises:
            FolderError: There is none, it is damaged, or other weights or labels made it.
        """
        return load_calibration(self.folder, self.measure)

    def speed_for(self, **goal: Unpack[GoalOptions]) -> OperatingPoint:
        """Return the thresholds for a goal, such as `max_drop=0.005`, and what they gave.

        Args:
            goal: See `fastbert.calibration.goal.Goal`.

        Raises:
            CalibrationError: The goal cannot be met, or the calibration cannot tell, such as when
                another runtime answered there.
            FolderError: The folder is not calibrated.
            ValueError: That is no goal.
        """
        asked = Goal(**goal)
        refuse_other_answerer(self.folder, asked, self.answerer)
        return self.calibration.solve(asked)

    # Answers.

    @overload
    def predict(
        self,
        texts: Text,
        speed: Speed | None = ...,
        batch_size: int = ...,
        **goal: Unpack[GoalOptions],
    ) -> Any: ...

    @overload
    def predict(
        self,
        texts: Iterable[Text],
        speed: Speed | None = ...,
        batch_size: int = ...,
        **goal: Unpack[GoalOptions],
    ) -> list[Any]: ...

    def predict(
        self,
        texts: Text | Iterable[Text],
        speed: Speed | None = None,
        batch_size: int = 32,
        **goal: Unpack[GoalOptions],
    ) -> Any:
        """Classify one text, or many in their order.

        Args:
            texts: A text, a pair `(text, text_pair)`, or any number of either. Longer texts than
                the model reads are cut, of a pair the longer one first.
            speed: The paper's threshold: a text leaves at the first layer whose uncertainty is
                below it, so 0 runs every layer and 1 leaves as early as possible. Or what
                `speed_for` returned, or an exit criterion of any kind. By default the goal holds
                that is stored in the folder.
            batch_size: Texts computed together. No answer depends on it.
            goal: What to reach instead, such as `max_drop=0.005`; see `speed_for`.

        Returns:
            One `Prediction` for one text, a list of them otherwise; of a model that gives several
            labels a `LabelsPrediction`.

        Raises:
            CalibrationError: The goal cannot be met, or the calibration cannot tell.
            FolderError: There is a goal, and the folder is not calibrated.
            ValueError: `speed` is not between 0 and 1, there is a goal as well, or something is
                not a text.
        """
        if is_one(texts):
            return self.predict([texts], speed, batch_size, **goal)[0]
        criterion = self.criterion(speed, **goal)
        return [
            row
            for part in self._answering.each_chunk(texts, criterion, batch_size)
            for row in self.task.answers(part.logits, part.exit_layer).predictions()
        ]

    def predict_proba(
        self,
        texts: Iterable[Text],
        speed: Speed | None = None,
        batch_size: int = 32,
        **goal: Unpack[GoalOptions],
    ) -> Float[np.ndarray, "rows classes"]:
        """Return the probability of each class for each text; arguments as for `predict`."""
        result = self.classify(texts, self.criterion(speed, **goal), batch_size)
        return self.task.probabilities(result.logits)

    def criterion(self, speed: Speed | None = None, **goal: Unpack[GoalOptions]) -> ExitCriterion:
        """Return who may leave where at a speed, for a goal or, without either, by default.

        Raises:
            CalibrationError: The goal cannot be met, or the calibration cannot tell.
            FolderError: There is a goal, and the folder is not calibrated.
            ValueError: `speed` is not between 0 and 1, or there is a goal as well.
        """
        if goal:
            if speed is not None:
                raise ValueError(f"give a speed or a goal, not both: {speed} and {goal}")
            return self.speed_for(**goal).criterion
        if isinstance(speed, OperatingPoint):
            return speed.criterion
        if isinstance(speed, ExitCriterion):
            return speed
        if speed is None:
            return self.default_criterion
        return EntropyCriterion(float(speed), self.task.uncertainty)

    def classify(
        self, texts: Iterable[Text], criterion: ExitCriterion, batch_size: int = 32
    ) -> ExitResult:
        """Return logits and exit layers of many texts, in their order, under any criterion."""
        return self._answering.classify(texts, criterion, batch_size)

    def record(self, texts: Iterable[Text], batch_size: int = 32) -> RecordedExits:
        """Return what every exit answers about every text, at the cost of every layer."""
        return self.record_tokens(self.encode(texts), batch_size)

    def record_tokens(self, tokens: Sequence[Tokens], batch_size: int = 32) -> RecordedExits:
        """Do the same for what `encode` returned."""
        return self._answering.record(tokens, batch_size)

    def encode(self, texts: Iterable[Text]) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            ValueError: Something is not a text or a pair of texts.
        """
        return encode(self.tokenizer, texts)

    def batches(
        self, tokens: Sequence[Tokens], batch_size: int
    ) -> Iterator[tuple[Rows, TokenBatch]]:
        """Yield batches of similar length and the rows they are made of."""
        return self._answering.batches(tokens, batch_size)
