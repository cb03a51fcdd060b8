"""Turns and the figures that come of times: by a clock that only moves when told to."""

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

from fastbert.timing import (
    BLOCK,
    latency,
    layer_bound,
    median_ratio,
    time_items,
    time_rounds,
    turns,
)

NAMES = ["first", "second", "third", "fourth"]


class FakeClock:
    """A clock that stands still while nobody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_in_every_round_each_has_its_turn_once() -> None:
    orders = list(turns(NAMES, 50))
    assert len(orders) == 50
    assert all(sorted(order) == sorted(NAMES) for order in orders)


def test_orders_change_between_rounds_and_not_between_runs() -> None:
    orders = list(turns(NAMES, 50))
    assert orders == list(turns(NAMES, 50))
    for place in range(len(NAMES)):
        assert {order[place] for order in orders} == set(NAMES)


def test_rounds_are_timed_by_contender() -> None:
    clock, calls = FakeClock(), dict.fromkeys(NAMES, 0)

    def worker(name: str, pace: float) -> Callable[[], None]:
        def work() -> None:
            calls[name] += 1
            clock.now += pace * calls[name]  # each round takes longer than the one before

        return work

    runs = {name: worker(name, float(pace)) for pace, name in enumerate(NAMES, start=1)}
    seconds = time_rounds(runs, 3, clock)
    assert {name: times.tolist() for name, times in seconds.items()} == {
        name: [pace, 2.0 * pace, 3.0 * pace] for pace, name in enumerate(NAMES, start=1)
    }


def test_items_are_timed_one_by_one() -> None:
    clock, items = FakeClock(), [float(number + 1) for number in range(2 * BLOCK + 3)]

    def worker(pace: float) -> Callable[[float], None]:
        def work(item: float) -> None:
            clock.now += pace * item

        return work

    seconds = time_items({"slow": worker(2.0), "fast": worker(0.5)}, items, 4, clock)
    assert seconds["slow"].shape == (4, len(items))
    assert np.allclose(seconds["slow"], 2 * np.array(items))
    assert np.allclose(seconds["fast"], np.array(items) / 2)


def test_contenders_change_every_block_and_begin_with_an_item_that_is_not_timed() -> None:
    log: list[tuple[str, int]] = []
    items = list(range(2 * BLOCK + 3))
    runs = {name: lambda item, name=name: log.append((name, item)) for name in NAMES}
    time_items(runs, items, 2)

    turns_taken = [
        (name, [item for _, item in group]) for name, group in groupby(log, lambda call: call[0])
    ]
    blocks = [items[start : start + BLOCK] for start in range(0, len(items), BLOCK)]
    expected = [block for _ in range(2) for block in blocks]
    # Where a contender is last in one block and first in the next, its turns are one group.
    answered = [item for _, taken in turns_taken for item in taken]
    assert len(answered) == sum((len(block) + 1) * len(NAMES) for block in expected)
    place = 0
    for block in expected:
        calls = log[place : place + (len(block) + 1) * len(NAMES)]
        place += len(calls)
        of_block = {name: [item for who, item in calls if who == name] for name in NAMES}
        assert all(of_block[name] == [block[0], *block] for name in NAMES)
        assert len([*groupby(calls, lambda call: call[0])]) == len(NAMES)


def test_a_texts_latency_is_the_median_of_its_rounds() -> None:
    # 101 texts, of which each percentile names one; one round was disturbed.
    times = np.arange(101) / 1_000
    found = latency(np.stack([times, times + 5.0, times]))
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((50.0, 95.0, 99.0))


def test_ratios_are_of_the_same_round() -> None:
    # The machine became slower all the time, and this one was twice as fast in every round.
    slow = np.array([2.0, 4.0, 8.0])
    assert median_ratio(slow, slow / 2) == 2.0
    assert median_ratio(np.array([1.0, 9.0, 6.0]), np.array([1.0, 3.0, 1.0])) == 3.0


def test_the_bound_is_layers_over_their_mean() -> None:
    exit_layer = np.array([1, 1, 4])
    assert layer_bound(exit_layer, 4) == pytest.approx(2.0)
    # 8 of 10 tokens run all four layers.
    assert layer_bound(exit_layer, 4, np.array([1, 1, 8])) == pytest.approx(4 / 3.4)
