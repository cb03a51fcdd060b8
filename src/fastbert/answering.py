"""Many texts through a backend: chunk by chunk to tokens, batches and answers, in their order.

Texts may be more than memory holds: those of a chunk become tokens, of which batches of similar
length are made, and the tokens go when the chunk is answered. Workers do not wait at the end of a
chunk: they go on to the next.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeGuard

import numpy as np

from fastbert.exits.criteria import ExitCriterion
from fastbert.exits.engine import ExitBackend, ExitResult, classify, record
from fastbert.exits.recorded import RecordedExits
from fastbert.runtime.workers import Answer, Rows, WorkerPool
from fastbert.text import Text, TextTokenizer, TokenBatch, Tokens, batches_of_similar_length

# Of a chunk: so many texts or so many batches, whichever is more.
CHUNK_TEXTS, CHUNK_BATCHES = 4096, 32


class Answering:
    """How many texts are answered: by what, and how many batches at a time."""

    def __init__(
        self,
        backend: ExitBackend[Any, TokenBatch],
        tokenizer: TextTokenizer,
        outputs: int,
        workers: int,
    ) -> None:
        """Start nothing yet; `outputs` is the width of the logits."""
        self.backend = backend
        self.tokenizer = tokenizer
        self.outputs = outputs
        self.workers = workers
        self._pool = WorkerPool(workers)

    def classify(
        self, texts: Iterable[Text], criterion: ExitCriterion, batch_size: int
    ) -> ExitResult:
        """Return logits and exit layers of many texts, in their order."""
        none = ExitResult(np.empty((0, self.outputs), np.float32), np.empty(0, np.int64))
        parts = [none, *self.each_chunk(texts, criterion, batch_size)]
        return ExitResult(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.exit_layer for part in parts]),
        )

    def each_chunk(
        self, texts: Iterable[Text], criterion: ExitCriterion, batch_size: int
    ) -> Iterator[ExitResult]:
        """Yield logits and exit layers of one chunk of texts after the other."""
        size = max(CHUNK_TEXTS, CHUNK_BATCHES * batch_size)
        answer = partial(classify, self.backend, criterion=criterion)
        answered = self.answered(self._in_chunks(texts, size, batch_size), answer)
        for _, found in groupby(answered, key=lambda batch: batch[0][0] // size):
            yield _in_order(list(found))

    def record(self, tokens: Sequence[Tokens], batch_size: int) -> RecordedExits:
        """Return what every exit answers about every text."""
        recorded = np.empty((self.backend.num_exits, len(tokens), self.outputs), np.float32)
        answer = partial(record, self.backend)
        for rows, result in self.answered(self.batches(tokens, batch_size), answer):
            recorded[:, rows] = result
        return RecordedExits(recorded)

    def answered(
        self, batches: Iterable[tuple[Rows, TokenBatch]], answer: Callable[[TokenBatch], Answer]
    ) -> Iterator[tuple[Rows, Answer]]:
        """Yield the rows of each batch and what it was answered, `workers` batches at a time."""
        if self.workers == 1:
            yield from ((rows, answer(batch)) for rows, batch in batches)
            return
        yield from self._pool.map(answer, batches)

    def batches(
        self, tokens: Sequence[Tokens], batch_size: int
    ) -> Iterator[tuple[Rows, TokenBatch]]:
        """Yield batches of similar length and the rows they are made of."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        lengths = [len(row.ids) for row in tokens]
        for rows in batches_of_similar_length(lengths, batch_size):
            yield rows, self.tokenizer.collate([tokens[row] for row in rows])

    def _in_chunks(
        self, texts: Iterable[Text], size: int, batch_size: int
    ) -> Iterator[tuple[Rows, TokenBatch]]:
        """Yield the batches of all texts, made of `size` texts at a time."""
        begin, remaining = 0, iter(texts)
        while chunk := list(islice(remaining, size)):
            for rows, batch in self.batches(encode(self.tokenizer, chunk, begin), batch_size):
                yield rows + begin, batch
            begin += len(chunk)


def encode(tokenizer: TextTokenizer, texts: Iterable[object], begin: int = 0) -> list[Tokens]:
    """Return the tokens of each text.

    Args:
        tokenizer: Makes them.
        texts: What should be texts and pairs of texts.
        begin: The number of the first one, for the message.

    Raises:
        ValueError: Something is not a text or a pair of texts.
    """
    rows: list[Text] = []
    for number, text in enumerate(texts, start=begin):
        if not is_one(text):
            raise ValueError(
                f"texts[{number}]: expected a text or a pair of texts, got {text!r:.80}"
            )
        rows.append(text)
    return tokenizer.encode(rows)


def is_one(texts: object) -> TypeGuard[Text]:
    """Return whether this is a single text or a pair, not a collection of them."""
    if isinstance(texts, tuple):
        return len(texts) == 2 and all(isinstance(text, str) for text in texts)
    return isinstance(texts, str)


def _in_order(answered: Sequence[tuple[np.ndarray, ExitResult]]) -> ExitResult:
    """Return the answers of batches, of any sizes, in the order of their rows."""
    order = np.argsort(np.concatenate([rows for rows, _ in answered]))
    logits = np.concatenate([result.logits for _, result in answered])
    exit_layer = np.concatenate([result.exit_layer for _, result in answered])
    return ExitResult(logits[order], exit_layer[order])
