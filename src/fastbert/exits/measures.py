"""Measures of doubt: the exit rules of the literature, each scaled to run from 0 to 1.

A row leaves an exit where its doubt lies below the exit's threshold, so thresholds of 0 always run
every layer. Doubt does not depend on the thresholds: raising one can only let rows leave earlier.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.criteria import Entropy, Measure, log_softmax, uncertainty
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel

# Measures of the latest exit alone.


@dataclass(frozen=True)
class TopEntropy(Measure):
    """Entropy of the `top` likeliest classes alone, over log(top), from 0 to 1.

    With many classes a long tail keeps the entropy high though the answer is clear.

    Args:
        top: How many classes count; with fewer classes, all do.

    Source: "uncertainty_N" in FastPLM (IEEE TNNLS 34(8), 2023), the successor of FastBERT.
    """

    top: int = 5

    def __post_init__(self) -> None:
        """Refuse an entropy of fewer than two classes."""
        if type(self.top) is not int or self.top < 2:
            raise ValueError(f"top must be a whole number of at least 2, got {self.top}")

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the normalised entropy of the renormalised top classes."""
        latest = logits[-1]
        if latest.shape[-1] <= self.top:
            return uncertainty(latest)
        return uncertainty(np.partition(latest, -self.top, axis=-1)[:, -self.top :])


@dataclass(frozen=True)
class MaxProbability(Measure):
    """What the likeliest class lacks: (1 - max p)·N / (N - 1), from 0 to 1.

    Source: Schwartz et al., The Right Tool for the Job (ACL 2020).
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the scaled probability of all other classes together."""
        classes = logits.shape[-1]
        rest = -np.expm1(log_softmax(logits[-1]).max(axis=-1))
        return np.asarray(np.minimum(rest * (classes / (classes - 1)), 1))


@dataclass(frozen=True)
class Margin(Measure):
    """One minus the lead of the likeliest class over the second, from 0 to 1.

    Source: Scheffer et al., Active Hidden Markov Models (IDA 2001), who ask for labels by it.
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return 1 - (p₁ - p₂)."""
        best = np.exp(np.partition(log_softmax(logits[-1]), -2, axis=-1)[:, -2:])
        return np.asarray(1 - (best[:, 1] - best[:, 0]))


@dataclass(frozen=True)
class Energy(Measure):
    """The free energy -log Σ exp(z), squeezed to N / (N + Σ exp(z)), between 0 and 1.

    It reads the size of the logits, which softmax forgets; logits of zero give a half.

    Source: Akbari et al., E-LANG (ACL 2022), after Liu et al., Energy-based Out-of-distribution
    Detection (NeurIPS 2020).
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the squeezed energy."""
        free = np.logaddexp.reduce(logits[-1], axis=-1) - math.log(logits.shape[-1])
        return np.asarray(np.exp(-np.logaddexp(0, free)))


# Measures that look back on earlier exits.


@dataclass(frozen=True)
class Patience(Measure):
    """One over the number of exits in a row that gave this answer, from 1/(exits) to 1.

    A threshold above 1/(t + 1) wants t + 1 equal answers, which is patience t.

    Source: Zhou et al., BERT Loses Patience, PABEE (NeurIPS 2020).
    """

    looks_back: ClassVar[bool] = True

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the reciprocal of the streak."""
        return np.asarray(1 / _streak(logits).astype(logits.dtype))


@dataclass(frozen=True)
class ConfidentPatience(Measure):
    """The largest uncertainty of the last `patience` exits, from 0 to 1.

    Earlier than that there is no answer to trust, and the doubt is 1.

    Args:
        patience: How many exits in a row have to be certain.

    Source: Zhang et al., PCEE-BERT (Findings of NAACL 2022).
    """

    patience: int = 2
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse to wait for nothing."""
        _check_patience(self.patience)

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the worst of the last uncertainties."""
        if len(logits) < self.patience:
            return np.ones(logits.shape[1], logits.dtype)
        return np.asarray(uncertainty(logits[-self.patience :]).max(axis=0))


@dataclass(frozen=True)
class Stability(Measure):
    """The largest Jensen–Shannon divergence between neighbours of the last exits, from 0 to 1.

    In bits. Before there are enough exits to compare, the doubt is 1.

    Args:
        patience: How many steps from exit to exit have to change little.

    Source: Gao et al., F-PABEE (ICASSP 2023).
    """

    patience: int = 1
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse to wait for nothing."""
        _check_patience(self.patience)

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the worst of the last divergences."""
        if len(logits) <= self.patience:
            return np.ones(logits.shape[1], logits.dtype)
        last = logits[-self.patience - 1 :]
        return np.asarray(jensen_shannon(last[1:], last[:-1]).max(axis=0))


@dataclass(frozen=True)
class Ensemble(Measure):
    """Uncertainty of the geometric mean of all exits so far, from 0 to 1.

    It is 1 where the exit itself, whose answer counts, disagrees with them.

    Source: the ensembles of Wołczyk et al., Zero Time Waste (NeurIPS 2021), with equal weights.
    """

    looks_back: ClassVar[bool] = True

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the ensemble's uncertainty."""
        together = log_softmax(logits).mean(axis=0)
        agrees = together.argmax(axis=-1) == logits[-1].argmax(axis=-1)
        return np.asarray(np.where(agrees, uncertainty(together), 1).astype(logits.dtype))


@dataclass(frozen=True)
class SummedConfidence(Measure):
    """1 / (1 + s), where s adds up max p over the latest exits of one opinion; between 0 and 1.

    Source: Bajpai and Hanawal, BEEM (ICLR 2025), with equal weights.
    """

    looks_back: ClassVar[bool] = True

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the reciprocal of one more than the sum."""
        confidence = np.exp(log_softmax(logits).max(axis=-1))
        agreeing = np.arange(len(logits))[:, None] >= len(logits) - _streak(logits)
        return np.asarray(1 / (1 + (confidence * agreeing).sum(axis=0)))


@dataclass(frozen=True)
class LearnedExit(Measure):
    """The probability that the answer is wrong, by a logistic regression for each exit; 0 to 1.

    It reads `exit_features` and is fitted on recorded exits by `fastbert.calibration.learned`.

    Args:
        weights: For each student one weight a feature, and the intercept last.

    Source: the learned exit of Xin et al., BERxiT (EACL 2021), on logits instead of hidden states.
    """

    weights: Sequence[Sequence[float]]
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse weights of another shape, such as those of another version."""
        lengths = [len(exit_) for exit_ in self.weights]
        if set(lengths) != {NUM_FEATURES + 1}:
            raise ValueError(
                f"weights must be {NUM_FEATURES} and an intercept for each student, got {lengths}"
            )
        weights = np.array(self.weights, np.float64)
        if not np.isfinite(weights).all():
            raise ValueError("weights must be finite")
        object.__setattr__(self, "weights", tuple(map(tuple, weights.tolist())))

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the probability of a wrong answer."""
        *weights, intercept = self.weights[exit_layer - 1]
        score = exit_features(logits) @ np.array(weights, logits.dtype) + intercept
        return np.asarray(np.exp(-np.logaddexp(0, -score)).astype(logits.dtype))


NUM_FEATURES = 6


def exit_features(
    logits: Float[np.ndarray, "exits rows classes"],
) -> Float[np.ndarray, "rows features"]:
    """Return what tells whether the latest exit is right.

    These are its uncertainty, its margin, the log-odds of its answer, its energy, the share of
    the exits that agree with it without a break, and its divergence from the exit before.
    """
    latest = logits[-1:]
    lacking = np.clip(MaxProbability().doubt(latest, 1), 1e-6, 1 - 1e-6)
    rows = logits.shape[1]
    change = jensen_shannon(logits[-1], logits[-2]) if len(logits) > 1 else np.zeros(rows)
    columns = [
        uncertainty(logits[-1]),
        Margin().doubt(latest, 1),
        np.log(lacking) - np.log1p(-lacking),
        Energy().doubt(latest, 1),
        _streak(logits) / len(logits),
        change,
    ]
    return np.stack(columns, axis=-1).astype(logits.dtype)


# Measures of other tasks.


@dataclass(frozen=True)
class Change(Measure):
    """For regression: the step from the exit before, as step / (step + scale), from 0 to 1.

    Args:
        scale: The step that counts as a doubt of a half, in the unit of the answers.

    Source: the regression case of Zhou et al., PABEE (NeurIPS 2020).
    """

    scale: float = 1.0
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a scale that is none."""
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the squeezed largest step of any output; 1 at the first exit."""
        if len(logits) < 2:
            return np.ones(logits.shape[1], logits.dtype)
        step = np.abs(logits[-1] - logits[-2]).max(axis=-1)
        return np.asarray(step / (step + logits.dtype.type(self.scale)))


# Measures by name, as early_exit.json and the command line know them.

MEASURES: dict[str, type[Measure]] = {
    "entropy": Entropy,
    "top-entropy": TopEntropy,
    "max-probability": MaxProbability,
    "margin": Margin,
    "energy": Energy,
    "patience": Patience,
    "confident-patience": ConfidentPatience,
    "stability": Stability,
    "ensemble": Ensemble,
    "summed-confidence": SummedConfidence,
    "learned": LearnedExit,
    "binary-entropy": BinaryEntropy,
    "set-probability": SetProbability,
    "worst-label": WorstLabel,
    "change": Change,
}

DEFAULT_MEASURE = "max-probability"  # the winner of benchmarks/criteria.md that needs no fitting


def measure_to_json(measure: Measure) -> dict[str, Any]:
    """Return a measure's name and settings; one of your own goes by the name of its class."""
    names = {kind: name for name, kind in MEASURES.items()}
    if type(measure) not in names:
        return {"name": type(measure).__name__}
    return {"name": names[type(measure)], **asdict(measure)}  # type: ignore[call-overload]  # all of these are dataclasses


def measure_from_json(entries: Mapping[str, Any]) -> Measure:
    """Return the measure that `measure_to_json` described.

    Raises:
        ValueError: The name or a setting is unknown, or a setting is out of range.
    """
    settings = dict(entries)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in MEASURES:
        raise ValueError(f"unknown measure {name!r}; known are {', '.join(MEASURES)}")
    try:
        return MEASURES[name](**settings)
    except TypeError as error:
        raise ValueError(f"measure {name}: {error}") from error


def jensen_shannon(
    one: Float[np.ndarray, "*rows classes"], other: Float[np.ndarray, "*rows classes"]
) -> Float[np.ndarray, "*rows"]:
    """Return the Jensen–Shannon divergence of two sets of logits, in bits: from 0 to 1."""
    log_p, log_q = log_softmax(one), log_softmax(other)
    log_mean = np.logaddexp(log_p, log_q) - math.log(2)
    nats = (np.exp(log_p) * (log_p - log_mean) + np.exp(log_q) * (log_q - log_mean)).sum(axis=-1)
    return np.asarray(np.clip(nats / (2 * math.log(2)), 0, 1))


def _streak(logits: Float[np.ndarray, "exits rows classes"]) -> Int[np.ndarray, " rows"]:
    """Return how many exits, the latest and back from it, gave the same answer."""
    answers = logits.argmax(axis=-1)
    same = np.logical_and.accumulate((answers == answers[-1])[::-1], axis=0)
    return np.asarray(same.sum(axis=0))


def _check_patience(patience: int) -> None:
    if type(patience) is not int or patience < 1:
        raise ValueError(f"patience must be a whole number of at least 1, got {patience}")
