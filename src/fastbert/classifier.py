"""Texts in, predictions out: the classifier people use, over any exit backend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard, overload

import numpy as np
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Float, Int

from fastbert.calibration import RecordedExits
from fastbert.criteria import EntropyCriterion, ExitCriterion, log_softmax, uncertainty
from fastbert.engine import ExitBackend, ExitResult, classify, record
from fastbert.errors import FolderError, MissingExtraError
from fastbert.folder import EarlyExitConfig, ModelFolder, copy_folder, open_folder
from fastbert.text import TextEncoder, TokenBatch, Tokens, batches_of_similar_length

Text = str | tuple[str, str]


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


class FastBertClassifier:
    """A text classifier that stops reading layers as soon as it is sure.

    `predict` may be called from several threads at once: nothing is kept between calls.
    """

    def __init__(
        self, backend: ExitBackend[Any, TokenBatch], encoder: TextEncoder, folder: ModelFolder
    ) -> None:
        """Put the parts together; `from_pretrained` does it from a folder."""
        self.backend = backend
        self.encoder = encoder
        self.folder = folder

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
    def recommended_speed(self) -> float:
        """The speed that was chosen on held-out texts after training."""
        return self.config.speed

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | None = None,
    ) -> "FastBertClassifier":
        """Load a classifier from a model folder or from the Hugging Face Hub.

        Args:
            folder_or_hub_id: A local folder, or a Hub name such as `someone/model`.
            revision: Branch, tag or commit on the Hub.
            token: For a private Hub repository.
            device: Where to compute, such as `cpu` or `cuda:0`; a GPU if there is one by default.

        Raises:
            FolderError: The folder is missing, damaged, or not a FastBERT folder.
            MissingExtraError: PyTorch is not installed.
        """
        folder = open_folder(_local_folder(folder_or_hub_id, revision, token))
        encoder = TextEncoder.from_folder(folder.path, folder.config.max_length)
        return cls(_torch_backend(folder, device), encoder, folder)

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
        """Upload the model folder to the Hugging Face Hub and return the address of the commit."""
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as parent:
            copy = Path(parent) / "model"
            self.save_pretrained(copy)
            return api.upload_folder(
                repo_id=repo, folder_path=copy, commit_message=commit_message
            ).commit_url

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str as well
        self, texts: Text, speed: float = ..., batch_size: int = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self, texts: Iterable[Text], speed: float = ..., batch_size: int = ...
    ) -> list[Prediction]: ...

    def predict(
        self, texts: Text | Iterable[Text], speed: float = 0.5, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Classify one text, or many in their order.

        Args:
            texts: A text, a pair `(text, text_pair)`, or any number of either. Longer texts than
                the model reads are cut, of a pair the longer one first.
            speed: A text leaves at the first layer whose uncertainty is below it: 0 runs every
                layer, 1 leaves as early as possible. `recommended_speed` was chosen for quality.
            batch_size: Texts computed together. No answer depends on it.

        Returns:
            One `Prediction` for one text, a list of them otherwise.

        Raises:
            ValueError: `speed` is not between 0 and 1, or something is not a text.
        """
        if _is_one(texts):
            return self.predict([texts], speed, batch_size)[0]
        result = self.classify(texts, EntropyCriterion(speed), batch_size)
        probabilities = np.exp(log_softmax(result.logits))
        return [
            Prediction(self.labels[best], dict(zip(self.labels, row, strict=True)), doubt, layer)
            for best, row, doubt, layer in zip(
                probabilities.argmax(axis=-1).tolist(),
                probabilities.tolist(),
                uncertainty(result.logits).tolist(),
                result.exit_layer.tolist(),
                strict=True,
            )
        ]

    def predict_proba(
        self, texts: Iterable[Text], speed: float = 0.5, batch_size: int = 32
    ) -> Float[np.ndarray, "rows classes"]:
        """Return the probability of each class for each text; arguments as for `predict`."""
        result = self.classify(texts, EntropyCriterion(speed), batch_size)
        return np.asarray(np.exp(log_softmax(result.logits)))

    def classify(
        self, texts: Iterable[Text], criterion: ExitCriterion, batch_size: int = 32
    ) -> ExitResult:
        """Return logits and exit layers of many texts, in their order, under any criterion."""
        tokens = self.encode(texts)
        logits = np.empty((len(tokens), len(self.labels)), np.float32)
        exit_layer = np.empty(len(tokens), np.int64)
        for rows, batch in self.batches(tokens, batch_size):
            result = classify(self.backend, batch, criterion)
            logits[rows], exit_layer[rows] = result.logits, result.exit_layer
        return ExitResult(logits, exit_layer)

    def record(self, texts: Iterable[Text], batch_size: int = 32) -> RecordedExits:
        """Return what every exit answers about every text, at the cost of every layer."""
        tokens = self.encode(texts)
        recorded = np.empty((self.num_layers, len(tokens), len(self.labels)), np.float32)
        for rows, batch in self.batches(tokens, batch_size):
            recorded[:, rows] = record(self.backend, batch)
        return RecordedExits(recorded)

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
        return self.encoder.encode(rows)

    def batches(
        self, tokens: Sequence[Tokens], batch_size: int
    ) -> Iterable[tuple[Int[np.ndarray, " rows"], TokenBatch]]:
        """Yield batches of similar length and the rows they are made of."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        lengths = [len(row.ids) for row in tokens]
        for rows in batches_of_similar_length(lengths, batch_size):
            yield rows, self.encoder.collate([tokens[row] for row in rows])


def _is_one(texts: object) -> TypeGuard[Text]:
    """Return whether this is a single text or a pair, not a collection of them."""
    if isinstance(texts, tuple):
        return len(texts) == 2 and all(isinstance(text, str) for text in texts)
    return isinstance(texts, str)


def _local_folder(folder_or_hub_id: str | Path, revision: str | None, token: str | None) -> Path:
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir() or isinstance(folder_or_hub_id, Path):
        return folder
    try:
        return Path(
            snapshot_download(
                folder_or_hub_id,
                revision=revision,
                token=token,
                allow_patterns=["*.json", "*.safetensors", "*.md", "*.txt"],
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FolderError(
            f"{folder_or_hub_id}: no such folder, and the Hub could not give it: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _torch_backend(folder: ModelFolder, device: str | None) -> ExitBackend[Any, TokenBatch]:
    try:
        import torch

        from fastbert.nn.backend import TorchBackend
        from fastbert.nn.model import FastBertModel
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed to run a model: pip install 'fastbert-kit[train]'"
        ) from error
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return TorchBackend(FastBertModel.load(folder).to(place))
