"""Texts for training: a new order each epoch, similar lengths together.

Every stage reads through here, from the tokens on disk. Within a window the order is random and
depends on seed and epoch alone, so a resumed run sees what the uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fastbert.nn.backend import batch_tensors
from fastbert.tasks.task import Decisions
from fastbert.text import TextTokenizer
from fastbert.training.tokens import TokenFile

WINDOW = 32_768  # texts shuffled together
GROUP = 50  # batches that are sorted by length together

Item = dict[str, Any]


@dataclass(frozen=True)
class TrainingTexts:
    """What a scheme learns from.

    Args:
        train: All texts, those with labels first.
        labels: The right answers to the first of them; nothing where no text has one.
        dev: What the best epoch is chosen on; None keeps the last one.
        dev_labels: The right answers to all of dev, where they are known.
    """

    train: TokenFile
    labels: Decisions | None
    dev: TokenFile | None
    dev_labels: Decisions | None


class TextStream(IterableDataset[Item]):
    """Tokens in training order: `tokens`, the number of the `row`, and labels where there are."""

    def __init__(
        self,
        tokens: TokenFile,
        *,
        batch_size: int,
        seed: int | None,
        labels: Decisions | None = None,
        labelled_alone: bool = False,
        first_row: int = 0,
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            tokens: Of all texts.
            batch_size: How many neighbours should be of similar length.
            seed: Of the order; None keeps the order of the source.
            labels: The right answers to the first texts.
            labelled_alone: Read only so many texts as there are labels.
            first_row: The number that the first text gets.
        """
        self.tokens = tokens
        self.rows = len(labels) if labelled_alone and labels is not None else len(tokens)
        self.batch_size = batch_size
        self.seed = seed
        self.labels = labels
        self.first_row = first_row
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of texts of an epoch."""
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; the Trainer calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Item]:
        """Yield one epoch."""
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        for start in range(0, self.rows, WINDOW):
            lengths = self.tokens.lengths(start, min(start + WINDOW, self.rows))
            order = np.arange(len(lengths)) if random is None else self._order(lengths, random)
            yield from map(self._item, (start + order).tolist())

    def _item(self, index: int) -> Item:
        item = {"row": self.first_row + index, "tokens": self.tokens[index]}
        if self.labels is None:
            return item
        is_labelled = index < len(self.labels)
        # The place of a label that is missing is filled, so that a batch has one shape.
        label = self.labels[index] if is_labelled else np.zeros_like(self.labels[0])
        return item | {"label": label, "labelled": is_labelled}

    def _order(self, lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Shuffle, sort each group of batches by length, shuffle the batches of each group."""
        shuffled = random.permutation(len(lengths))
        order = []
        for start in range(0, len(shuffled), GROUP * self.batch_size):
            group = shuffled[start : start + GROUP * self.batch_size]
            group = group[np.argsort(-lengths[group], kind="stable")]
            batches = np.split(group, range(self.batch_size, len(group), self.batch_size))
            # A short batch goes last: moved forward it would cut the batches after it in two.
            full, short = (batches[:-1], batches[-1:])
            order += [full[index] for index in random.permutation(len(full))] + short
        return np.concatenate(order)


def collator(tokenizer: TextTokenizer) -> Callable[[list[Item]], dict[str, Tensor]]:
    """Return the function that makes a padded batch of items."""

    def collate(items: list[Item]) -> dict[str, Tensor]:
        batch = batch_tensors(tokenizer.collate([item["tokens"] for item in items]))
        batch["row"] = torch.tensor([item["row"] for item in items])
        if "label" in items[0]:
            batch["labels"] = torch.tensor(np.array([item["label"] for item in items]))
            batch["labelled"] = torch.tensor([item["labelled"] for item in items])
        return batch

    return collate
