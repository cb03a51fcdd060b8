"""Examples for training: read as a stream, a new order each epoch, similar lengths together.

Both stages read through here, from memory or from a file of any size. Only one window of
examples is in memory at a time; within it the order is random and depends on seed and epoch
alone, so a resumed run sees what the uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fastbert.data.example import Example
from fastbert.nn.backend import batch_tensors
from fastbert.text import TextTokenizer

WINDOW = 32_768  # examples shuffled together
GROUP = 50  # batches that are sorted by length together

Item = dict[str, Any]


class ExampleStream(IterableDataset[Item]):
    """Encoded examples in training order: `tokens`, the number of the `row`, and its `label`."""

    def __init__(
        self,
        read: Callable[[], Iterable[Example]],
        rows: int,
        tokenizer: TextTokenizer,
        *,
        batch_size: int,
        seed: int | None,
        label_ids: Mapping[str, int] | None = None,
        first_row: int = 0,
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            read: Starts reading from the beginning, once for each epoch.
            rows: How many examples `read` yields.
            tokenizer: Turns texts into tokens.
            batch_size: How many neighbours should be of similar length.
            seed: Of the order; None keeps the order of the source.
            label_ids: The number of each label; without it labels are not looked at.
            first_row: The number that the first example gets.
        """
        self.read = read
        self.rows = rows
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.seed = seed
        self.label_ids = label_ids
        self.first_row = first_row
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of examples of an epoch."""
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; the Trainer calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Item]:
        """Yield one epoch."""
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        examples = enumerate(self.read(), self.first_row)
        while window := self._encode(islice(examples, WINDOW)):
            if random is None:
                yield from window
            else:
                yield from (window[index] for index in self._order(window, random))

    def _encode(self, examples: Iterable[tuple[int, Example]]) -> list[Item]:
        rows = list(examples)
        tokens = self.tokenizer.encode([example.content for _, example in rows])
        items = [
            {"row": row, "tokens": encoded} for (row, _), encoded in zip(rows, tokens, strict=True)
        ]
        if self.label_ids is not None:
            for item, (_, example) in zip(items, rows, strict=True):
                item["label"] = self.label_ids[example.label or ""]
        return items

    def _order(self, window: list[Item], random: np.random.Generator) -> np.ndarray:
        """Shuffle, sort each group of batches by length, shuffle the batches of each group."""
        lengths = np.array([len(item["tokens"].ids) for item in window])
        shuffled = random.permutation(len(window))
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
            batch["labels"] = torch.tensor([item["label"] for item in items])
        return batch

    return collate
