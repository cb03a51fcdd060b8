"""Row weights: how much each exit counts for each row, while all of them learn together.

They are read off what the exits answer and are never differentiated: nobody learns by moving its
own weight. Those of a row add up to 1. Nothing is drawn at random and nothing is kept from batch
to batch, so a resumed run weighs as the uninterrupted one would have.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastbert.training.stage import Lesson

RowWeights = Callable[[Lesson], Float[Tensor, "exits rows"]]


@dataclass(frozen=True)
class Uniform:
    """All exits count the same."""

    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return 1 / exits everywhere."""
        exits, rows, _ = lesson.exits.shape
        return lesson.exits.new_full((exits, rows), 1 / exits, dtype=torch.float32)


@dataclass(frozen=True)
class LastOnly:
    """The last exit alone counts."""

    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return 1 for the last exit, else 0."""
        exits, rows, _ = lesson.exits.shape
        weights = lesson.exits.new_zeros(exits, rows, dtype=torch.float32)
        weights[-1] = 1
        return weights


@dataclass(frozen=True)
class ByDepth:
    """The last exit gets a share, the students the rest, the deeper the more.

    Args:
        floor: The share of the last exit; m / Σ j of the rest is that of the student m.

    Source: the weights of Zhou et al., PABEE (NeurIPS 2020), but for the floor.
    """

    floor: float = 0.25

    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return the same weights for every row."""
        exits, rows, _ = lesson.exits.shape
        depth = torch.arange(1.0, exits, device=lesson.exits.device)
        weights = (1 - self.floor) * depth / depth.sum()
        return torch.cat([weights, weights.new_tensor([self.floor])]).unsqueeze(1).repeat(1, rows)


@dataclass(frozen=True)
class ExitAware:
    """An exit counts most for the rows that would leave near it.

    For each of some speed-ups the batch's own threshold is found, and with it where each row would
    leave. As the stage goes on, these places count more beside the depth, and more sharply; the
    last exit never gets less than its floor.

    Args:
        floor: The least share of the last exit.
        speedups: The layers that would be saved, as L / mean exit layer: slowest and fastest, and
            how many between them in equal ratios.
        most: The share of the places beside the depth at the end of the stage.
        begins: The progress from which that share rises from 0.
        sharpness: At the end of the stage, how fast a weight falls for each layer of distance.

    Source: the exit-aware loss of COSEE (AAAI 2025), with thresholds taken at equal steps of speed
    instead of drawn, uncertainty as signal, and a floor for the last exit.
    """

    floor: float = 0.25
    speedups: tuple[float, float, int] = (1.3, 6.0, 5)
    most: float = 0.7
    begins: float = 1 / 3
    sharpness: float = 1.0

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return the weights of each row."""
        by_depth = ByDepth(self.floor)(lesson)
        share = self.most * max(0.0, (lesson.progress - self.begins) / (1 - self.begins))
        weights = (1 - self.floor) * share * self.nearness(lesson)
        weights[:-1] += (1 - share) * by_depth[:-1]
        weights[-1] += self.floor
        return weights

    def nearness(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return how near each exit is to where a row leaves, as the mean over the speed-ups."""
        exits = len(lesson.exits)
        doubts = lesson.objective.doubt(lesson.exits)[:-1]
        layers = torch.arange(1, exits + 1, device=doubts.device)[:, None]
        slowest, fastest, count = self.speedups
        ratios = torch.linspace(0, 1, count).tolist()
        near = [
            torch.softmax(-self.sharpness * lesson.progress * (layers - leaving).abs(), dim=0)
            for leaving in (
                exit_layers_at(doubts, slowest * (fastest / slowest) ** ratio) for ratio in ratios
            )
        ]
        return torch.stack(near).mean(0)


@dataclass(frozen=True)
class Alternating:
    """In even steps the last exit alone counts, in odd ones others do too.

    Args:
        others: The weights of odd steps, and of dev.

    Source: Xin et al., BERxiT (EACL 2021).
    """

    others: RowWeights

    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return the weights of the step."""
        is_even = lesson.step is not None and lesson.step % 2 == 0
        return LastOnly()(lesson) if is_even else self.others(lesson)


def exit_layers_at(doubts: Float[Tensor, "students rows"], speedup: float) -> Int[Tensor, " rows"]:
    """Return where each row leaves at the threshold that saves as much, for these rows.

    A row has left by an exit if its least doubt so far lies below the threshold, and each exit that
    it has left by saves it a layer. So the threshold at the k-th of all least doubts, counted from
    0, saves k layers, or a few less: those of one row may be equal.

    Args:
        doubts: How doubtful each student is.
        speedup: The layers of the model by the mean exit layer that is wanted; where even the
            first exit is too late for it, all leave there.

    Returns:
        The layers, counted from 1.
    """
    least = doubts.cummin(0).values
    exits = len(doubts) + 1
    saved = round(least[0].numel() * exits * (1 - 1 / speedup))
    if saved >= least.numel():
        return torch.ones_like(least[0], dtype=torch.long)
    threshold = least.flatten().sort().values[saved]
    return exits - (least < threshold).sum(0)
