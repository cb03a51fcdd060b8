"""Another model as the teacher: a classifier of any family, with its own tokenizer and length.

It is asked through the library's own `forward`, so a family needs no adapter here. Reading what it
answers about needs no weights; they are loaded when it is asked, and whoever asked lets them go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from fastbert.errors import BackboneError
from fastbert.folder.names import EARLY_EXIT_FILE
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.nn.backbone import registry
from fastbert.nn.backbones import backbone_for
from fastbert.nn.checkpoint import hashes_of
from fastbert.nn.model import FastBertModel, PaperClassifier, Teacher
from fastbert.nn.teachers import answered_task, read_config, tokenizer_of, trained_teacher
from fastbert.shape import ModelShape
from fastbert.tasks.task import Task
from fastbert.text import Text

Encoded = dict[str, list[int]]


@dataclass(frozen=True)
class ForeignTeacher:
    """A fine-tuned classifier that teaches another model.

    Args:
        checkpoint: A folder of transformers or of this package, or a Hub name.
        task: What it answers.
        config: Its configuration.
        tokenizer: Its own.
        max_length: Tokens of its that a text may have; longer ones are cut.
        folder: The model folder, if it is one of this package.
    """

    checkpoint: str | Path
    task: Task
    config: Any
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    folder: ModelFolder | None = None

    @classmethod
    def of(cls, checkpoint: str | Path, max_length: int) -> "ForeignTeacher":
        """Read all of it but its weights.

        Raises:
            BackboneError: It is no checkpoint, or not of a classifier with named classes, or has no
                tokenizer.
            FolderError: It is a damaged folder of this package.
        """
        config = read_config(checkpoint)
        if (Path(checkpoint) / EARLY_EXIT_FILE).is_file():
            folder = open_folder(checkpoint)
            task = folder.config.task
        else:
            folder, task = None, answered_task(checkpoint, config)
        return cls(checkpoint, task, config, tokenizer_of(checkpoint), max_length, folder)

    @property
    def name(self) -> str:
        """What it is called, without the place where it lies."""
        path = Path(self.checkpoint).expanduser()
        return path.resolve().name if path.is_dir() else str(self.checkpoint)

    @property
    def answers_batches(self) -> bool:
        """Whether it can be asked about several texts at once: without padding it cannot."""
        return None not in (self.tokenizer.pad_token_id, self.config.pad_token_id)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of the files that decide its answers, by name."""
        return hashes_of(self.checkpoint)

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Return the tokens of each text or pair, cut to its length."""
        read = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        return [{name: rows[row] for name, rows in read.items()} for row in range(len(texts))]

    def flops(self, texts: Sequence[Text]) -> float | None:
        """Return its mean FLOPs for a text; None where the family's layers are not known."""
        shape = self._shape()
        if shape is None:
            return None
        lengths = np.array([len(row["input_ids"]) for row in self.encode(texts)])
        return float(shape.full_flops(lengths).mean())

    def load(self) -> nn.Module:
        """Load its weights, to be asked without dropout.

        Raises:
            BackboneError: It has no trained head, or reads fewer tokens than it shall.
        """
        model: Teacher = (
            trained_teacher(self.checkpoint)
            if self.folder is None
            else FastBertModel.load(self.folder).teacher
        )
        encoder = model.encoder if isinstance(model, PaperClassifier) else model
        longest = getattr(self.config, "max_position_embeddings", None)
        if self.config.model_type in registry:
            longest = backbone_for(encoder).max_length
        if longest is not None and self.max_length > longest:
            raise BackboneError(
                f"{self.checkpoint}: reads at most {longest} tokens, teacher_max_length is "
                f"{self.max_length}"
            )
        return model.eval()

    def ask(self, model: nn.Module, rows: Sequence[Encoded]) -> Float[np.ndarray, "rows outputs"]:
        """Return the logits for some texts.

        Args:
            model: What `load` returned.
            rows: Their tokens.
        """
        device = next(model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self._padded(rows).items()}
        with torch.no_grad():
            logits: Tensor = model(**batch).logits
        return logits.float().cpu().numpy()

    def _padded(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Return rows as a batch, padded on the side that the tokenizer prefers."""
        if len(rows) == 1:
            return {name: torch.tensor([values]) for name, values in rows[0].items()}
        return dict(self.tokenizer.pad(list(rows), return_tensors="pt"))

    def _shape(self) -> ModelShape | None:
        if self.folder is not None:
            return self.folder.shape
        if self.config.model_type not in registry:
            return None
        return ModelShape.from_config(self.config.to_dict(), self.task.outputs)
