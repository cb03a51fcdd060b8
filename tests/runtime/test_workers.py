"""Batches answered by several threads: in order, and only a few ahead of whoever takes them."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest

from fastbert.runtime.workers import WorkerPool

BATCHES = 40


class Batch:
    """A number that may be waited for."""

    def __init__(self, number: int) -> None:
        self.number = number


class Stream:
    """Makes batches and counts how many are alive at most."""

    def __init__(self) -> None:
        self.made = self.most = 0
        self._alive: WeakSet[Batch] = WeakSet()

    def batches(self) -> Iterator[tuple[np.ndarray, Any]]:
        for number in range(BATCHES):
            yield np.array([number]), self._next(number)

    def _next(self, number: int) -> Batch:
        batch = Batch(number)
        self._alive.add(batch)
        self.made += 1
        self.most = max(self.most, len(self._alive))
        return batch


@pytest.mark.parametrize("workers", [2, 3])
def test_no_more_batches_are_alive_than_are_said(workers: int) -> None:
    stream, taken = Stream(), 0

    def answer(batch: Any) -> int:
        time.sleep(0.002)  # so that they pile up, if they can
        return int(batch.number)

    for rows, number in WorkerPool(workers).map(answer, stream.batches()):
        assert rows.tolist() == [taken]
        assert number == taken
        taken += 1
        assert stream.made <= taken + 2 * workers
    assert taken == BATCHES
    assert workers <= stream.most <= 2 * workers + 1


def test_threads_stay_from_call_to_call() -> None:
    pool, threads = WorkerPool(3), set()
    for _ in range(4):
        for _rows, thread in pool.map(lambda _: threading.get_ident(), Stream().batches()):
            threads.add(thread)
    assert threading.get_ident() not in threads
    assert len(threads) <= 3


def test_who_has_enough_leaves_no_batch_waiting() -> None:
    stream, answered = Stream(), list[Any]()
    pool = WorkerPool(2)
    first: Any = pool.map(lambda batch: answered.append(batch), stream.batches())
    next(first)
    first.close()
    assert stream.made <= 2 * 2
    assert len(list(pool.map(lambda _: 0, Stream().batches()))) == BATCHES


def test_an_error_of_a_batch_is_that_of_who_takes_it() -> None:
    def answer(batch: Any) -> int:
        if batch.number == 5:
            raise RuntimeError("the fifth")
        return int(batch.number)

    found = []
    with pytest.raises(RuntimeError, match="the fifth"):
        found += [number for _, number in WorkerPool(2).map(answer, Stream().batches())]
    assert found == []
