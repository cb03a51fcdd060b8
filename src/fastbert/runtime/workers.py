"""Batches answered by several threads, a few ahead of whoever takes the answers."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from fastbert.text import TokenBatch

Rows = Int[np.ndarray, " rows"]
Answer = TypeVar("Answer")


class WorkerPool:
    """Threads that answer batches, a few ahead of whoever takes the answers.

    They stay from call to call, for a runtime may keep working memory for each. A child of a fork
    has none of its parent's threads, so it starts its own.
    """

    def __init__(self, workers: int) -> None:
        """Start no thread yet."""
        self.workers = workers
        self._started: tuple[int, ThreadPoolExecutor] | None = None  # by which process
        self._lock = threading.Lock()

    def map(
        self, answer: Callable[[TokenBatch], Answer], batches: Iterable[tuple[Rows, TokenBatch]]
    ) -> Iterator[tuple[Rows, Answer]]:
        """Yield the rows of each batch and its answer, in order.

        No more batches are alive than the workers compute, as many wait to be taken, and one.
        """
        pool = self._threads()
        ahead: deque[tuple[Rows, Future[Answer]]] = deque()
        try:
            for rows, batch in batches:
                ahead.append((rows, pool.submit(answer, batch)))
                if len(ahead) >= 2 * self.workers:
                    rows, future = ahead.popleft()
                    yield rows, future.result()
            for rows, future in ahead:
                yield rows, future.result()
        finally:
            for _, future in ahead:
                future.cancel()

    def _threads(self) -> ThreadPoolExecutor:
        process = os.getpid()
        with self._lock:
            if self._started is None or self._started[0] != process:
                self._started = process, ThreadPoolExecutor(self.workers)
            return self._started[1]
