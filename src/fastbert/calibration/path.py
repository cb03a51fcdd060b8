"""Thresholds for each exit: one path of settings, from every layer to the first exit.

Each point of the path minimises cost + β·loss on recorded rows for a price β of an error, by
coordinate descent over the exits: given the other thresholds, the best one of an exit is found
exactly. β falls along the path and thresholds only rise, so no row leaves later at a later point;
what is chosen from the path by a goal then has one degree of freedom, not one for each exit.
An exit whose student costs more than it saves keeps the threshold 0 and is not asked at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

CANDIDATES = 512  # thresholds tried at each exit, in the gaps at quantiles of the doubt
LEAST_GAP = 4  # units in the last place of 1: between nearer doubts rounding may decide
PRICES = np.geomspace(1e4, 1e-2, 43)  # of one error, in passes through the full model
SWEEPS = 4  # over the exits for each price; the path starts each price where the last one ended
LARGEST_STEP = 1 / 100  # between neighbours on the path, of the mean exit layer's whole range


@dataclass(frozen=True)
class RowCosts:
    """What rows cost, in any one unit.

    Args:
        layer: Of running one encoder layer for each row.
        student: Of asking each student about each row.
        students_always_run: Whether students answer even where nobody may leave, because later
            doubts look back on them.
    """

    layer: Float[np.ndarray, " rows"]
    student: Float[np.ndarray, "students rows"]
    students_always_run: bool = False


def threshold_path(
    doubts: Float[np.ndarray, "students rows"],
    losses: Float[np.ndarray, "exits rows"],
    costs: RowCosts,
) -> Float[np.ndarray, "points students"]:
    """Return thresholds from slow to fast, each exit's never falling.

    Args:
        doubts: How doubtful each student's answer is, from 0 to 1.
        losses: What each exit's answer costs in quality, the teacher's last; from 0 to 1.
        costs: What it costs to compute them.

    Returns:
        The settings in order; the first runs every layer. The values have the precision of the
        doubts, so that comparing is the same here and in serving.
    """
    grid = _Grid.of(doubts)
    unit = losses.shape[0] * costs.layer.mean()
    costs = RowCosts(costs.layer / unit, costs.student / unit, costs.students_always_run)
    steps = [np.zeros(len(doubts), np.int64)]
    for price in PRICES:
        step = _descend(grid, steps[-1], price * losses, costs)
        if (step != steps[-1]).any():
            steps.extend(_gradually(grid, steps[-1], step))
    return np.stack([grid.thresholds(step) for step in steps])


def exit_layers_at(
    doubts: Float[np.ndarray, "students rows"], thresholds: Float[np.ndarray, " students"]
) -> Int[np.ndarray, " rows"]:
    """Return where each row leaves, counted from 1; the last layer is the teacher's."""
    leaving = doubts < thresholds[:, None].astype(doubts.dtype)
    return np.asarray(_first(leaving) + 1)


@dataclass(frozen=True)
class _Grid:
    """Doubts sorted into the gaps between candidate thresholds.

    With candidate k as the threshold of an exit, the rows whose gap is below k leave there.
    """

    candidates: list[np.ndarray]  # for each student, rising, the first one 0
    gaps: Int[np.ndarray, "students rows"]

    @classmethod
    def of(cls, doubts: Float[np.ndarray, "students rows"]) -> "_Grid":
        candidates = [_between(doubt) for doubt in doubts]
        gaps = [
            np.searchsorted(candidate, doubt, side="right") - 1
            for candidate, doubt in zip(candidates, doubts, strict=True)
        ]
        return cls(candidates, np.stack(gaps))

    def thresholds(self, step: Int[np.ndarray, " students"]) -> Float[np.ndarray, " students"]:
        return np.array([candidate[k] for candidate, k in zip(self.candidates, step, strict=True)])

    def leaving(self, step: Int[np.ndarray, " students"]) -> Bool[np.ndarray, "students rows"]:
        return np.asarray(self.gaps < step[:, None])


def _between(doubt: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " candidates"]:
    """Return thresholds in the middle of gaps between recorded doubts; the first lets nobody go.

    On a doubt, the last bit would decide whether that row leaves, and rounding differs between a
    row alone and in a batch. Of the gaps from one quantile to the next the last is taken or,
    where that is too narrow to be safe, the widest; without a safe one there is no candidate.
    """
    ordered = np.sort(doubt)
    quantiles = ordered[(np.linspace(0, 1, CANDIDATES) * (len(ordered) - 1)).astype(np.int64)]
    edges = np.unique(np.concatenate([[0], ordered, [1]]).astype(doubt.dtype))
    gaps = np.diff(edges)
    stretches = np.unique(np.searchsorted(edges, [0, *quantiles, 1]))
    narrowest = LEAST_GAP * np.finfo(doubt.dtype).eps
    chosen = []
    for start, end in pairwise(stretches.tolist()):
        gap = end - 1
        if gaps[gap] < narrowest:
            gap = start + int(gaps[start:end].argmax())
        if gaps[gap] >= narrowest:
            chosen.append(gap)
    return np.concatenate([edges[:1], edges[chosen] + gaps[chosen] / 2]).astype(doubt.dtype)


def _descend(
    grid: _Grid,
    step: Int[np.ndarray, " students"],
    losses: Float[np.ndarray, "exits rows"],
    costs: RowCosts,
) -> Int[np.ndarray, " students"]:
    """Raise thresholds, exit by exit, until cost and loss together fall no further."""
    step = step.copy()
    for _ in range(SWEEPS):
        before = step.copy()
        reaching = np.logical_and.accumulate(~grid.leaving(step), axis=0)
        going_on = losses[-1] + costs.layer  # what it costs a row not to leave, seen from an exit
        for exit_ in reversed(range(len(step))):
            here = reaching[exit_ - 1] if exit_ else np.full(len(going_on), True)
            gain = going_on - losses[exit_]
            step[exit_] = _best(grid, exit_, int(step[exit_]), here, gain, costs)
            leaving = grid.gaps[exit_] < step[exit_]
            going_on = np.where(leaving, losses[exit_], going_on) + costs.layer
            if step[exit_] or costs.students_always_run:
                going_on = going_on + costs.student[exit_]
        if (step == before).all():
            break
    return step


def _best(
    grid: _Grid,
    exit_: int,
    lowest: int,
    here: Bool[np.ndarray, " rows"],
    gain: Float[np.ndarray, " rows"],
    costs: RowCosts,
) -> int:
    """Return the candidate, `lowest` or above, under which leaving gains the rows here most."""
    count = len(grid.candidates[exit_])
    by_gap = np.bincount(grid.gaps[exit_], gain * here, minlength=count)
    total = np.concatenate([[0.0], by_gap[:-1].cumsum()])
    if not costs.students_always_run:
        total[1:] -= costs.student[exit_] @ here
    best = lowest + int(total[lowest:].argmax())
    return best if total[best] > total[lowest] else lowest


def _gradually(
    grid: _Grid, start: Int[np.ndarray, " students"], end: Int[np.ndarray, " students"]
) -> Iterator[Int[np.ndarray, " students"]]:
    """Yield settings from `start` (left out) to `end`, close enough to hit any cost."""

    def depth(step: Int[np.ndarray, " students"]) -> float:
        return float(_first(grid.leaving(step)).mean())

    def between(
        start: Int[np.ndarray, " students"], above: float,
        end: Int[np.ndarray, " students"], below: float,
    ) -> Iterator[Int[np.ndarray, " students"]]:  # fmt: skip
        middle = start + (end - start) // 2
        if above - below > LARGEST_STEP * len(grid.gaps) and (middle != start).any():
            there = depth(middle)
            yield from between(start, above, middle, there)
            yield from between(middle, there, end, below)
        else:
            yield end

    yield from between(start, depth(start), end, depth(end))


def _first(leaving: Bool[np.ndarray, "students rows"]) -> Int[np.ndarray, " rows"]:
    """Return how many students each row passes before one lets it go."""
    passed = np.zeros(leaving.shape[1], np.int64)
    still_here = np.full(leaving.shape[1], True)
    for leaving_there in leaving:  # several times faster than argmax over the columns
        still_here &= ~leaving_there
        passed += still_here
    return passed
