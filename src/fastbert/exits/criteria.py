"""Exit criteria: which rows of a batch may leave at an exit.

A criterion is a pure function of what the exits have answered so far, by layer. It keeps nothing
between calls, so one object serves the engine (exit after exit) and calibration (all exits,
recorded). Nothing here imports torch: every backend hands over NumPy logits.

`EntropyCriterion` is the paper's. Every other rule is a `Measure`, which says how doubtful an
answer is, under a `ThresholdCriterion`, which says how much doubt each exit lets pass; the
measures are in `fastbert.exits.measures`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int


def log_softmax(logits: Float[np.ndarray, "*rows classes"]) -> Float[np.ndarray, "*rows classes"]:
    """Return the natural logarithm of each row's class distribution."""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # exp() cannot overflow
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def uncertainty(logits: Float[np.ndarray, "*rows classes"]) -> Float[np.ndarray, "*rows"]:
    """Return the normalised entropy of each row's class distribution.

    Args:
        logits: Unnormalised scores, classes on the last axis.

    Returns:
        Entropy divided by log(classes), no unit: 0 when one class is certain, 1 when all are
        equally likely.

    Raises:
        ValueError: There are fewer than two classes, so log(classes) is 0.

    Source: "Uncertainty" in Liu et al., FastBERT (ACL 2020).
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(f"uncertainty needs at least 2 classes, got logits {logits.shape}")
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)  # exp() cannot overflow
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    # -Σ p·log p with p = weights / total, without forming p: this runs at every exit.
    entropy = np.log(total) - (weights * shifted).sum(axis=-1) / total
    return np.asarray(np.clip(entropy / math.log(classes), 0, 1))  # rounding can overstep


@dataclass(frozen=True)
class Seen:
    """What the exits that a criterion watches have answered so far about the rows still running.

    An exit's answers stay as they came, about all rows that ran then: only who looks back, with
    `stacked`, copies them.

    Args:
        layers: The layer before each of these exits, counted from 1, the latest last.
        logits: What each exit answered.
        rows: The numbers of the rows that each answer is about, rising; those of a later exit are
            some of those of an earlier one.
    """

    layers: tuple[int, ...] = ()
    logits: tuple[Float[np.ndarray, "_ classes"], ...] = ()
    rows: tuple[Int[np.ndarray, " _"], ...] = ()

    @property
    def exit_layer(self) -> int:
        """The layer before the latest exit, counted from 1."""
        return self.layers[-1]

    @property
    def latest(self) -> Float[np.ndarray, "rows classes"]:
        """What the latest exit answered."""
        return self.logits[-1]

    @property
    def stacked(self) -> Float[np.ndarray, "exits rows classes"]:
        """What all of these exits answered about the rows of the latest, which comes last."""
        running = self.rows[-1]
        each = [
            logits if len(rows) == len(running) else logits[np.searchsorted(rows, running)]
            for rows, logits in zip(self.rows, self.logits, strict=True)
        ]
        return np.concatenate(each).reshape(len(each), *self.latest.shape)

    def then(
        self,
        exit_layer: int,
        rows: Int[np.ndarray, " rows"],
        logits: Float[np.ndarray, "rows classes"],
    ) -> "Seen":
        """Return this and what one more exit answered."""
        return Seen((*self.layers, exit_layer), (*self.logits, logits), (*self.rows, rows))


@runtime_checkable
class ExitCriterion(Protocol):
    """When a row is certain enough to leave. Implementations keep nothing between calls."""

    def watches(self, exit_layer: int) -> bool:
        """Return whether the student after `exit_layer` (counted from 1) has to answer.

        An exit that is not watched costs nothing: its student is not run and no row leaves there.
        """
        ...

    def leaves(self, seen: Seen) -> Bool[np.ndarray, " rows"]:
        """Return which rows leave now, after `seen.exit_layer` layers.

        Args:
            seen: What the watched exits have answered so far about the rows still running.
        """
        ...


def watched_exits(criterion: ExitCriterion, num_exits: int) -> tuple[int, ...]:
    """Return the layers, counted from 1, whose students a criterion asks; the teacher is none."""
    return tuple(layer for layer in range(1, num_exits) if criterion.watches(layer))


class Measure(ABC):
    """How doubtful an exit's answers are: 0 is certain, 1 as doubtful as can be.

    One of your own is a subclass with a `doubt`; it then works in every backend, in calibration
    and in the report:

        class SecondGuess(Measure):
            def doubt(self, logits, exit_layer):
                return np.exp(np.sort(log_softmax(logits[-1]))[:, -2])
    """

    looks_back: ClassVar[bool] = False
    """Whether `doubt` reads earlier exits too; then these have to answer even if nobody may leave
    there."""

    @abstractmethod
    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the doubt about each row at the latest exit.

        Args:
            logits: What the exits have answered so far, the latest last; it alone where the
                measure does not look back.
            exit_layer: The layer before the latest exit, counted from 1.
        """


@dataclass(frozen=True)
class Entropy(Measure):
    """The paper's uncertainty: entropy over log(classes), from 0 to 1.

    Source: Liu et al., FastBERT (ACL 2020).
    """

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        """Return the normalised entropy."""
        return uncertainty(logits[-1])


@dataclass(frozen=True)
class EntropyCriterion:
    """A row leaves where its uncertainty lies below one threshold for all exits, `speed`.

    Args:
        speed: From 0 (run every layer) to 1 (leave as early as possible).
        entropy: What the uncertainty is; by default the paper's, of one label out of several.

    Raises:
        ValueError: `speed` is outside 0 to 1.

    Source: "Speed" in Liu et al., FastBERT (ACL 2020).
    """

    speed: float
    entropy: Measure = Entropy()

    def __post_init__(self) -> None:
        """Refuse a threshold that uncertainty cannot reach."""
        if not 0 <= self.speed <= 1:
            raise ValueError(
                "speed must be between 0 (run every layer) and 1 (leave as early as possible), "
                f"got {self.speed!r}"
            )

    def watches(self, exit_layer: int) -> bool:
        """Return False at speed 0, where no row can leave: uncertainty is never below 0."""
        return self.speed > 0

    def leaves(self, seen: Seen) -> Bool[np.ndarray, " rows"]:
        """Return which rows the latest exit is certain about."""
        doubt = self.entropy.doubt(seen.latest[np.newaxis], seen.exit_layer)
        return np.asarray(doubt < self.speed)


@dataclass(frozen=True)
class ThresholdCriterion:
    """A row leaves where its doubt lies below the threshold of the exit.

    Args:
        measure: How doubtful an answer is.
        thresholds: One for each student, from 0 (nobody leaves there, so the student is not even
            asked) to 1.

    Raises:
        ValueError: There is no threshold, or one lies outside 0 to 1.
    """

    measure: Measure
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse thresholds that no doubt can reach."""
        if not self.thresholds or not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(
                "thresholds must be one for each student, between 0 (nobody leaves there) and 1, "
                f"got {list(self.thresholds)}"
            )

    def refuse_other_depth(self, num_exits: int) -> None:
        """Refuse a model with another number of students than there are thresholds.

        Raises:
            ValueError: It has.
        """
        if len(self.thresholds) != num_exits - 1:
            raise ValueError(
                f"thresholds must be one for each of the {num_exits - 1} students of this model, "
                f"got {len(self.thresholds)}; take those that this model was calibrated to"
            )

    def watches(self, exit_layer: int) -> bool:
        """Return whether a row may leave there or, if the measure looks back, anywhere later."""
        last = len(self.thresholds) if self.measure.looks_back else exit_layer
        return any(threshold > 0 for threshold in self.thresholds[exit_layer - 1 : last])

    def leaves(self, seen: Seen) -> Bool[np.ndarray, " rows"]:
        """Return the rows about which the latest exit has little enough doubt."""
        logits = seen.stacked if self.measure.looks_back else seen.latest[np.newaxis]
        doubt = self.measure.doubt(logits, seen.exit_layer)
        return np.asarray(doubt < self.thresholds[seen.exit_layer - 1])
