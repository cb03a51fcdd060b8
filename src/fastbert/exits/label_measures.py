"""Measures of doubt where a row has several labels: each logit is a yes or no of its own."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fastbert.exits.criteria import Measure, uncertainty


@dataclass(frozen=True)
class BinaryEntropy(Measure):
    """The mean entropy of each label's own yes or no, from 0 to 1.

    Source: the multi-label case of Gao et al., F-PABEE (ICASSP 2023).
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the mean entropy in bits."""
        yes_or_no = np.stack([logits[-1], np.zeros_like(logits[-1])], axis=-1)
        return np.asarray(uncertainty(yes_or_no).mean(axis=-1))


@dataclass(frozen=True)
class SetProbability(Measure):
    """What the likeliest set of labels lacks, from 0 to 1.

    It is 1 - Π max(p, 1 - p), scaled as `MaxProbability` is, with every label a yes or no of its
    own: the chance that any of them is otherwise.
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the scaled probability of all other sets together."""
        labels = logits.shape[-1]
        log_likeliest = -np.logaddexp(0, -np.abs(logits[-1])).sum(axis=-1)
        rest = -np.expm1(log_likeliest)
        return np.asarray(np.minimum(rest / -math.expm1(-labels * math.log(2)), 1))


@dataclass(frozen=True)
class WorstLabel(Measure):
    """How near to a yes and a no the most doubtful label is, 0 to 1.

    It is the largest 2·min(p, 1 - p).
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the largest doubt of a label."""
        nearest = np.abs(logits[-1]).min(axis=-1)
        return np.asarray(2 * np.exp(-np.logaddexp(0, nearest)))
