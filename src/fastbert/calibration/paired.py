"""Differences between two contenders that answered the same rows, and how sure they are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CLEAR = 2  # standard errors that a difference takes to be no tie


@dataclass(frozen=True)
class Difference:
    """How much more one contender is worth than another.

    Args:
        mean: Over seeds and rows.
        error: Its standard error.
    """

    mean: float
    error: float

    @property
    def is_tie(self) -> bool:
        """Whether it may well be none."""
        return abs(self.mean) < CLEAR * self.error or self.mean == 0


def paired_difference(
    ours: Float[np.ndarray, "seeds rows"], others: Float[np.ndarray, "seeds rows"]
) -> Difference:
    """Return by how much less wrong one contender is than another.

    Both answered the same rows with the same seeds, so what is hard for both cancels out. Other
    rows would give another mean, and so would other seeds: the variances of both add up. One seed
    says nothing of others.

    Args:
        ours: How wrong each row is answered with each seed, from 0 to 1.
        others: The same of the other.
    """
    better = others - ours
    by_row, by_seed = better.mean(axis=0), better.mean(axis=1)
    variance = _of_mean(by_row) + (_of_mean(by_seed) if len(by_seed) > 1 else 0.0)
    return Difference(float(better.mean()), float(np.sqrt(variance)))


def _of_mean(values: Float[np.ndarray, " _"]) -> float:
    """Return the variance of the mean."""
    return float(values.var(ddof=1) / len(values))
