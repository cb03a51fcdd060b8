"""Taking turns by the clock, and the figures that come of it.

A machine that others use as well is faster now and slower then. So contenders are timed in rounds,
in each of which every one has its turn, in an order that changes; what is compared are times of the
same round. A round's ratio is fair then, and the median over the rounds leaves out the odd one.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

SEED = 0  # of the orders
BLOCK = 10  # texts that a contender answers in one turn when they come one at a time

Clock = Callable[[], float]
Item = TypeVar("Item")
Name = TypeVar("Name", bound=str)


def turns(names: Sequence[Name], rounds: int) -> Iterator[list[Name]]:
    """Yield the order of each round: every name once, shuffled, the same in every run."""
    shuffler = random.Random(SEED)
    for _ in range(rounds):
        yield shuffler.sample(names, len(names))


def time_rounds(
    runs: Mapping[Name, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> dict[Name, Float[np.ndarray, " rounds"]]:
    """Return the seconds that each contender took in each round.

    A turn is all the texts at once: in use a model has the caches to itself, and in turns that are
    shorter the weights of one contender push out those of the next.
    """
    seconds = {name: np.empty(rounds) for name in runs}
    for number, order in enumerate(turns(list(runs), rounds)):
        for name in order:
            start = clock()
            runs[name]()
            seconds[name][number] = clock() - start
    return seconds


def time_items(
    runs: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    rounds: int,
    clock: Clock = time.perf_counter,
) -> dict[str, Float[np.ndarray, "rounds items"]]:
    """Return the seconds that each contender took for each item alone, in each round.

    The contenders change every `BLOCK` items, so that none has a better minute than the others. A
    turn starts with an item that is not timed: it brings the contender's weights back into the
    caches, where in use they would be.
    """
    seconds = {name: np.empty((rounds, len(items))) for name in runs}
    starts = range(0, len(items), BLOCK)
    order = turns(list(runs), rounds * len(starts))
    for number in range(rounds):
        for start in starts:
            block = range(start, min(start + BLOCK, len(items)))
            for name in next(order):
                run = runs[name]
                run(items[start])
                for item in block:
                    begin = clock()
                    run(items[item])
                    seconds[name][number, item] = clock() - begin
    return seconds


@dataclass(frozen=True)
class Latency:
    """How long single texts take, in milliseconds: half, 95 % and 99 % of them at most so long."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def latency(seconds: Float[np.ndarray, "rounds items"]) -> Latency:
    """Return the percentiles over the texts; of each text the median of the rounds counts."""
    return Latency(*(1_000 * np.percentile(np.median(seconds, axis=0), [50, 95, 99])).tolist())


def median_ratio(
    numerator: Float[np.ndarray, " rounds"], denominator: Float[np.ndarray, " rounds"]
) -> float:
    """Return the median of the ratios of times of the same round."""
    return float(np.median(numerator / denominator))


def layer_bound(
    exit_layer: Int[np.ndarray, " rows"],
    num_layers: int,
    weights: Int[np.ndarray, " rows"] | None = None,
) -> float:
    """Return how many times faster it could be if time were layers: L ÷ E[exit layer].

    Args:
        exit_layer: How many layers each row ran.
        num_layers: Layers there are.
        weights: What a layer of each row takes, such as its tokens; None counts rows alike. Long
            texts weigh more in the time than in the mean of exit layers, so a model whose long
            texts leave late cannot reach the bound by rows.
    """
    return num_layers / float(np.average(exit_layer, weights=weights))
