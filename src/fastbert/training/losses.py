"""The losses of stages: from a lesson, what the exits answered, to the number that is minimised.

Those of the paper read the teacher or the students alone. Where all exits learn together the loss
has two independent parts: what each exit is compared with (`Target`) and how much it counts for
each row (`weights.py`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fastbert.nn.objectives import Direction
from fastbert.training.stage import Lesson
from fastbert.training.weights import RowWeights


def supervised(lesson: Lesson, label_smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Return the loss of the teacher against the labels."""
    assert lesson.labels is not None  # the stage reads labelled texts alone
    losses = lesson.objective.supervised(lesson.exits[-1:], lesson.labels, label_smoothing)
    return losses.mean()


def self_distillation(
    lesson: Lesson, direction: Direction = "student-teacher"
) -> Float[Tensor, ""]:
    """Return Σ over the students of the mean over rows of the divergence from the teacher.

    The teacher learns nothing from it.

    Source: Equations 5 and 6 of Liu et al., FastBERT (ACL 2020).
    """
    teacher = lesson.exits[-1].detach()
    divergence = lesson.objective.divergence(lesson.exits[:-1], teacher, direction, 1.0)
    return divergence.mean(-1).sum()


@dataclass(frozen=True)
class Target:
    """What exits are compared with: labels, a teacher, or both.

    Args:
        share: Of the teacher, for the students; the rest is the labels'. Rows without a label have
            the teacher alone.
        last_share: The same for the last exit.
        temperature: What all logits are divided by before they are compared.
        direction: Which divergence from the teacher is minimised.
        teacher: `taught`, the fixed answers of the scheme's teacher, or the `last exit` as it is
            at that step.
        label_smoothing: Share of the probability of labels that is spread over all classes.

    Raises:
        ValueError: A share lies outside 0 to 1, or the temperature is not above 0.

    Source: the mixture and the factor τ² are those of Hinton et al., Distilling the Knowledge in a
    Neural Network (2015).
    """

    share: float = 0.3
    last_share: float = 0.5
    temperature: float = 2.0
    direction: Direction = "teacher-student"
    teacher: Literal["taught", "last exit"] = "taught"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no mixture."""
        for name in ("share", "last_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must be between 0 (labels alone) and 1 (the teacher alone), "
                    f"got {getattr(self, name)}"
                )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def losses(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return the loss of each exit and row."""
        shares = self._shares(lesson)
        teacher = lesson.taught if self.teacher == "taught" else lesson.exits[-1].detach()
        losses = torch.zeros_like(shares)
        if lesson.labels is not None:
            losses = (1 - shares) * lesson.objective.supervised(
                lesson.exits, lesson.labels, self.label_smoothing
            )
        if teacher is not None:
            divergence = lesson.objective.divergence(
                lesson.exits, teacher, self.direction, self.temperature
            )
            losses = losses + shares * self.temperature**2 * divergence
        return losses

    def _shares(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return the teacher's share for each exit and row."""
        exits, rows, _ = lesson.exits.shape
        shares = lesson.exits.new_full((exits, rows), self.share, dtype=torch.float32)
        shares[-1] = self.last_share
        if lesson.labels is None:
            return torch.ones_like(shares)
        return shares if lesson.labelled is None else shares.where(lesson.labelled, 1.0)


@dataclass(frozen=True)
class AllExits:
    """The mean over rows of Σ over the exits of weight · loss.

    Args:
        weights: How much each exit counts for each row.
        target: What the exits are compared with.
    """

    weights: RowWeights
    target: Target

    def __call__(self, lesson: Lesson) -> Float[Tensor, ""]:
        """Return the loss of a batch."""
        losses = self.target.losses(lesson)
        with torch.no_grad():
            weights = self.weights(lesson)
        return (weights * losses).sum(0).mean()
