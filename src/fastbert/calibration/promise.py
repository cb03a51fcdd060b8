"""Promises about unseen texts: how far a path of settings may be followed at a given confidence.

Settings stand in an order fixed before these rows were looked at, from every layer to the first
exit. Each is tested against the hypothesis "its mean loss exceeds the bound", and walking stops at
the first that is not refuted, so one error probability covers the whole walk. No distribution is
assumed: rows only have to be drawn like the texts to come.

`binomial` is the test of Learn then Test (Angelopoulos et al., 2021; fixed-sequence testing) for
losses of 0 or 1, where Hoeffding's and Bentkus' bounds give way to the exact tail. `betting` is
the upper confidence bound that "Fast yet Safe" (Jazbec et al., NeurIPS 2024) brings to early
exits, by Waudby-Smith and Ramdas; it takes any bounded loss and learns its variance on the way.
"""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr

PValue = Callable[[np.ndarray, float], float]


def binomial(losses: Float[np.ndarray, " rows"], bound: float) -> float:
    """Return the probability of so few losses if their rate were `bound`.

    Args:
        losses: 0 or 1 for each row.
        bound: The rate, above 0 and below 1.
    """
    return float(bdtr(losses.sum(), len(losses), bound))


def betting(
    losses: Float[np.ndarray, " rows"], bound: float, low: float = 0.0, confidence: float = 0.95
) -> float:
    """Return a p-value for "the mean loss exceeds `bound`": one over the best wealth of a bettor.

    The bettor stakes on each row, knowing only the rows before, that its loss lies below the bound.
    The stakes are those of Waudby-Smith and Ramdas (JRSS B 2024), as Bates et al. use them in
    Distribution-free, risk-controlling prediction sets (JACM 2021), Proposition 5.

    Args:
        losses: From `low` to 1, in an order that says nothing about them.
        bound: The mean that is tested.
        low: The least loss there can be: 0, or -1 for a difference of two losses.
        confidence: What the stakes are tuned for; the p-value holds for any.
    """
    scaled, bound = (losses - low) / (1 - low), (bound - low) / (1 - low)
    count = np.arange(1, len(scaled) + 1)
    mean = (0.5 + scaled.cumsum()) / (1 + count)
    variance = (0.25 + ((scaled - mean) ** 2).cumsum()) / (1 + count)
    before = np.concatenate([[0.25], variance[:-1]])
    stake = np.minimum(1, np.sqrt(2 * np.log(1 / (1 - confidence)) / (len(scaled) * before)))
    wealth = np.log1p(stake * (bound - scaled)).cumsum()
    return float(np.exp(-max(wealth.max(), 0)))


def safe_steps(
    losses: Iterable[Float[np.ndarray, " rows"]], bound: float, delta: float, p_value: PValue
) -> int:
    """Return how many settings in a row keep the bound, at an error probability of `delta`.

    Args:
        losses: For each setting, the slowest first, the loss of each row.
        bound: What the mean loss of unseen texts may be.
        delta: How likely it may be that any of the settings breaks it.
        p_value: The test.

    Source: fixed-sequence testing in Angelopoulos et al., Learn then Test (2021).
    """
    steps = 0
    for row_losses in losses:
        if p_value(row_losses, bound) > delta:
            break
        steps += 1
    return steps


def rows_needed(bound: float, delta: float, p_value: PValue) -> int:
    """Return how many rows without any loss it takes to promise the bound."""
    most = 1
    while p_value(np.zeros(most), bound) > delta:
        most *= 2
    least = most // 2  # too few
    while most - least > 1:
        middle = (least + most) // 2
        if p_value(np.zeros(middle), bound) > delta:
            least = middle
        else:
            most = middle
    return most
