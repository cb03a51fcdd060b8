"""Texts in, predictions out: the classifier people use, over any exit backend."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeGuard, Unpack, cast, overload

import numpy as np
from jaxtyping import Float, Int

from fastbert.calibration.answerer import TORCH, Answerer
from fastbert.calibration.goal import DEFAULT_GOAL, Goal, GoalOptions
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration, check_enough
from fastbert.errors import CalibrationError, FolderError, MissingExtraError
from fastbert.exits.criteria import (
    EntropyCriterion,
    ExitCriterion,
    Measure,
    ThresholdCriterion,
    log_softmax,
    uncertainty,
)
from fastbert.exits.engine import (
    ExitBackend,
    ExitResult,
    classify,
    record,
)
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES
from fastbert.exits.recorded import RecordedExits
from fastbert.extras import needs_extra
from fastbert.folder.calibration import (
    answers_as_calibrated,
    check_default,
    load_calibration,
    refuse_other_answerer,
    save_calibration,
    stored_measure,
)
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.hub import fetch_folder, push_folder
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.saves import lies_here
from fastbert.folder.write import copy_folder
from fastbert.running import RuntimeName
from fastbert.runtime.open import export_to_run, open_backend
from fastbert.runtime.workers import Answer, Rows, WorkerPool
from fastbert.text import TextTokenizer, TokenBatch, Tokens, batches_of_similar_length

Text = str | tuple[str, str]
Speed = float | ExitCriterion | OperatingPoint

FITTING_SHARE = 0.5  # of the calibration rows, for a measure that has to be fitted


@dataclass(frozen=True)
class Prediction:
    """What one text was answered.

    Args:
        label: The most likely class.
        probabilities: The probability of each class, in the order of the model's labels.
        uncertainty: Normalised entropy of the answer: 0 is certain, 1 is a guess.
        exit_layer: How many encoder layers the text ran, counted from 1.
    """

    label: str
    probabilities: dict[str, float]
    uncertainty: float
    exit_layer: int

    @property
    def score(self) -> float:
        """The probability of the label."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Opened:
    """How `from_pretrained` opened a classifier, for a copy to be opened alike.

    Args:
        runtime: What runs it.
        export: SHA-256 of the export's files by name.
        settings: Further arguments.
    """

    runtime: RuntimeName
    export: dict[str, str]
    settings: dict[str, Any]


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
        self._pool = WorkerPool(workers)
        self._opened: Opened | None = None
        self.tokenizer = tokenizer
        self.folder = folder
        self.measure = measure
        self.answerer = answerer

    @property
    def config(self) -> EarlyExitConfig:
        """What `early_exit.json` says."""
        return self.folder.config

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
        stored = self.config.default
        if stored is None or stored.goal is None:
            return None
        return Goal(**cast(GoalOptions, stored.goal))

    @cached_property
    def default_criterion(self) -> ExitCriterion:
        """How texts are answered where nobody asks for a speed or a goal: as the folder says.

        Raises:
            CalibrationError: The default is a promise, and it was made for another runtime.
            FolderError: It was chosen by a measure of one's own, which was not passed.
        """
        stored = self.config.default
        if stored is None or not stored.thresholds:
            return EntropyCriterion(0.0)
        if self.default_goal is None:  # version 0.1 stored a speed
            return EntropyCriterion(stored.thresholds[0])
        check_default(self.folder, self.default_goal, self.answerer)
        measure = self.measure or stored_measure(self.folder, stored.measure)
        return ThresholdCriterion(measure, stored.thresholds)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | None = None,
        measure: Measure | None = None,
        runtime: RuntimeName = "auto",
        threads: int | None = None,
        workers: int = 1,
        cache_folder: str | Path | None = None,
    ) -> "FastBertClassifier":
        """Load a classifier from a model folder or from the Hugging Face Hub.

        Args:
            folder_or_hub_id: A local folder, or a Hub name such as `someone/model`.
            revision: Branch, tag or commit on the Hub.
            token: For a private Hub repository.
            device: Where torch shall compute, such as `cpu` or `cuda:0`; a GPU if there is one by
                default. The other runtimes run on the processor and refuse it.
            measure: Your own measure of doubt, if the folder was calibrated with one.
            runtime: `torch`, `openvino` or `onnx`; `auto` takes the best that `fastbert export` has
                written into the folder and that is installed, and torch where a device is named.
            threads: Processor threads that one batch may take; all cores by default. Torch has
                one number for the whole process: it stays set, also for what else runs in torch.
            workers: Batches computed at a time.
            cache_folder: Where OpenVINO keeps what it compiled for the next start; of no use if
                `auto` takes another runtime.

        Raises:
            ExportError: The processor does not compute in the export's precision.
            FolderError: The folder or the export is missing, damaged, or not ours.
            MissingExtraError: The runtime is not installed.
            ValueError: There is no such runtime, it has no use for `device` or `cache_folder`, or
                `threads` or `workers` is less than 1.
        """
        _refuse_what_has_no_use(runtime, device, threads, cache_folder)
        wanted: RuntimeName = runtime if device is None else "torch"
        path = folder_or_hub_id
        if isinstance(path, str) and not lies_here(path):
            path = fetch_folder(path, revision, token, wanted)
        folder = open_folder(path)
        tokenizer = folder.text_tokenizer()
        export = export_to_run(folder, wanted)
        if export is None:
            backend, answerer = _torch_backend(folder, device, threads), TORCH
        else:
            cache = None if cache_folder is None else Path(cache_folder).expanduser()
            backend = open_backend(export, threads, workers, cache)
            answerer = Answerer(export.runtime, export.precision)
        classifier = cls(backend, tokenizer, folder, measure, workers, answerer)
        classifier._opened = Opened(
            export.runtime if export else "torch",
            {} if export is None else {name: file.sha256 for name, file in export.files.items()},
            {
                "device": device,
                "threads": threads,
                "workers": workers,
                "cache_folder": cache_folder,
            },
        )
        return classifier

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pickle or a copy open the folder again: what runtimes compile can be in neither.

        Raises:
            TypeError: The classifier was put together by hand.
        """
        if self._opened is None:
            raise TypeError(
                "only a classifier that from_pretrained opened can be pickled or copied: its copy "
                "opens the folder again"
            )
        path, hashes = self.folder.path.resolve(), self.config.hashes
        return _open_again, (type(self), path, hashes, self._opened, self.measure)

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
        labels: Iterable[str] | None = None,
        *,
        measure: Measure | str = DEFAULT_MEASURE,
        batch_size: int = 32,
    ) -> Calibration:
        """Record what every exit answers about held-out texts, for goals to be solved from.

        What comes of it holds for the runtime and the precision of this classifier.

        Args:
            texts: Texts like those to come, not those of the training.
            labels: The right answers; without them the full model's take their place.
            measure: The exit criterion: a measure of doubt, or the name of one in
                `fastbert.exits.measures.MEASURES`.
            batch_size: Texts computed together.

        Raises:
            CalibrationError: There are too few texts, or a class has none.
            MissingExtraError: A learned measure is fitted by scikit-learn.
            ValueError: A label is not one of the classifier's, or the measure is unknown.
        """
        if isinstance(measure, str) and measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
        tokens = self.encode(texts)
        truth = None if labels is None else self._truth(list(labels), len(tokens))
        check_enough(len(tokens))  # before the model runs for minutes
        if measure == "learned":
            with needs_extra("train", "fitting a learned measure"):
                from fastbert.calibration.learned import fit_learned_exit
        recorded = self.record_tokens(tokens, batch_size)
        lengths = np.array([len(row.ids) for row in tokens])
        fitted = None
        if measure == "learned":
            fitted = np.random.default_rng(0).random(len(tokens)) < FITTING_SHARE
            measure = fit_learned_exit(
                RecordedExits(recorded.recorded[:, fitted]), self.config.task
            )
        elif isinstance(measure, str):
            measure = MEASURES[measure]()
        return Calibration(
            recorded,
            truth,
            lengths,
            self.folder.shape,
            self.config.task,
            measure=measure,
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
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str as well
        self,
        texts: Text,
        speed: Speed | None = ...,
        batch_size: int = ...,
        **goal: Unpack[GoalOptions],
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        texts: Iterable[Text],
        speed: Speed | None = ...,
        batch_size: int = ...,
        **goal: Unpack[GoalOptions],
    ) -> list[Prediction]: ...

    def predict(
        self,
        texts: Text | Iterable[Text],
        speed: Speed | None = None,
        batch_size: int = 32,
        **goal: Unpack[GoalOptions],
    ) -> Prediction | list[Prediction]:
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
            One `Prediction` for one text, a list of them otherwise.

        Raises:
            CalibrationError: The goal cannot be met, or the calibration cannot tell.
            FolderError: There is a goal, and the folder is not calibrated.
            ValueError: `speed` is not between 0 and 1, there is a goal as well, or something is
                not a text.
        """
        if _is_one(texts):
            return self.predict([texts], speed, batch_size, **goal)[0]
        result = self.classify(texts, self.criterion(speed, **goal), batch_size)
        probabilities = np.exp(log_softmax(result.logits))
        return [
            Prediction(
                self.labels[best], dict(zip(self.labels, row.tolist(), strict=True)), doubt, layer
            )
            for best, row, doubt, layer in zip(
                probabilities.argmax(axis=-1).tolist(),
                probabilities,
                uncertainty(result.logits).tolist(),
                result.exit_layer.tolist(),
                strict=True,
            )
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
        return np.asarray(np.exp(log_softmax(result.logits)))

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
        return self.default_criterion if speed is None else EntropyCriterion(float(speed))

    def classify(
        self, texts: Iterable[Text], criterion: ExitCriterion, batch_size: int = 32
    ) -> ExitResult:
        """Return logits and exit layers of many texts, in their order, under any criterion."""
        tokens = self.encode(texts)
        logits = np.empty((len(tokens), len(self.labels)), np.float32)
        exit_layer = np.empty(len(tokens), np.int64)
        answer = partial(classify, self.backend, criterion=criterion)
        for rows, result in self._each_batch(tokens, batch_size, answer):
            logits[rows], exit_layer[rows] = result.logits, result.exit_layer
        return ExitResult(logits, exit_layer)

    def record(self, texts: Iterable[Text], batch_size: int = 32) -> RecordedExits:
        """Return what every exit answers about every text, at the cost of every layer."""
        return self.record_tokens(self.encode(texts), batch_size)

    def record_tokens(self, tokens: Sequence[Tokens], batch_size: int = 32) -> RecordedExits:
        """Do the same for what `encode` returned."""
        recorded = np.empty((self.num_layers, len(tokens), len(self.labels)), np.float32)
        answer = partial(record, self.backend)
        for rows, result in self._each_batch(tokens, batch_size, answer):
            recorded[:, rows] = result
        return RecordedExits(recorded)

    def _each_batch(
        self, tokens: Sequence[Tokens], batch_size: int, answer: Callable[[TokenBatch], Answer]
    ) -> Iterator[tuple[Rows, Answer]]:
        """Yield the rows of each batch and what it was answered, `workers` batches at a time."""
        batches = self.batches(tokens, batch_size)
        if self.workers == 1:
            yield from ((rows, answer(batch)) for rows, batch in batches)
            return
        yield from self._pool.map(answer, batches)

    def _truth(self, labels: Sequence[str], rows: int) -> Int[np.ndarray, " rows"]:
        """Return the place of each label among the classes, each of which has to be there."""
        if len(labels) != rows:
            raise ValueError(f"got {rows} texts and {len(labels)} labels")
        numbers = {label: number for number, label in enumerate(self.labels)}
        for row, label in enumerate(labels):
            if label not in numbers:
                raise ValueError(f"labels[{row}]: {label!r} is not one of {', '.join(self.labels)}")
        present = set(labels)
        missing = [label for label in self.labels if label not in present]
        if missing:
            raise CalibrationError(
                f"{len(missing)} of {len(self.labels)} classes have no row, such as {missing[0]}; "
                "add rows of every class, or calibrate without labels"
            )
        return np.array([numbers[label] for label in labels])

    def encode(self, texts: Iterable[Text]) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            ValueError: Something is not a text or a pair of texts.
        """
        rows = list(texts)
        for number, text in enumerate(rows):
            if not _is_one(text):
                raise ValueError(
                    f"texts[{number}]: expected a text or a pair of texts, got {text!r:.80}"
                )
        return self.tokenizer.encode(rows)

    def batches(
        self, tokens: Sequence[Tokens], batch_size: int
    ) -> Iterable[tuple[Rows, TokenBatch]]:
        """Yield batches of similar length and the rows they are made of."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        lengths = [len(row.ids) for row in tokens]
        for rows in batches_of_similar_length(lengths, batch_size):
            yield rows, self.tokenizer.collate([tokens[row] for row in rows])


def _is_one(texts: object) -> TypeGuard[Text]:
    """Return whether this is a single text or a pair, not a collection of them."""
    if isinstance(texts, tuple):
        return len(texts) == 2 and all(isinstance(text, str) for text in texts)
    return isinstance(texts, str)


def _refuse_what_has_no_use(
    runtime: RuntimeName,
    device: str | None,
    threads: int | None,
    cache_folder: str | Path | None,
) -> None:
    """Refuse what a runtime would leave aside without a word."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if device is not None and runtime in ("openvino", "onnx"):
        raise ValueError(
            f"device says where torch computes, and runtime={runtime!r} runs on the processor: "
            f"leave device={device!r} out, or ask for runtime='torch'"
        )
    if cache_folder is not None and (device is not None or runtime in ("torch", "onnx")):
        used = "torch" if device is not None else runtime
        raise ValueError(
            f"cache_folder keeps what OpenVINO compiles, and {used} compiles nothing to keep: "
            f"leave cache_folder={str(cache_folder)!r} out, or ask for runtime='openvino'"
        )


def _open_again(
    kind: type[FastBertClassifier],
    path: Path,
    hashes: Mapping[str, str],
    opened: Opened,
    measure: Measure | None,
) -> FastBertClassifier:
    """Open the folder of a classifier that was pickled or copied."""
    copy = kind.from_pretrained(path, runtime=opened.runtime, measure=measure, **opened.settings)
    assert copy._opened is not None
    if copy.config.hashes != hashes or copy._opened.export != opened.export:
        raise FolderError(
            f"{path}: was replaced since the classifier was opened that was pickled or copied; "
            "open it again with from_pretrained"
        )
    return copy


def _torch_backend(
    folder: ModelFolder, device: str | None, threads: int | None
) -> ExitBackend[Any, TokenBatch]:
    try:
        import torch

        from fastbert.nn.backend import TorchBackend, use_threads
        from fastbert.nn.model import FastBertModel
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed to run a model: pip install 'fastbert-kit[train]'"
        ) from error
    if threads is not None:
        use_threads(threads)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return TorchBackend(FastBertModel.load(folder).to(place))
