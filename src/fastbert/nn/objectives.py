"""The torch half of a task: its heads and its losses, one entry for each task.

Whatever trains or loads a model asks `objective_of` and never looks at the task's type.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from fastbert.head_shapes import HeadShape
from fastbert.nn.heads import ExitHead, exit_head
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task

Direction = Literal["student-teacher", "teacher-student"]


@dataclass(frozen=True)
class TorchTask:
    """What a task needs of torch.

    Losses are of each exit and row: what they are added up with is the scheme's.

    Args:
        auto_class: The class of transformers that loads a teacher.
        head: Makes the classifier of an exit, for a width of the backbone, a number of outputs and
            a shape.
        supervised: The losses of exits against the truth, with the share of the probability that
            label smoothing spreads.
        divergence: How far exits are from a teacher, in a direction and at a temperature.
        doubt: How doubtful exits are: 0 is certain, 1 as doubtful as can be.
    """

    auto_class: Any
    head: Callable[[int, int, HeadShape], ExitHead]
    supervised: Callable[[Tensor, Tensor, float], Tensor]
    divergence: Callable[[Tensor, Tensor, Direction, float], Tensor]
    doubt: Callable[[Tensor], Tensor]


def objective_of(task: Task) -> TorchTask:
    """Return the torch half of a task."""
    return OBJECTIVES[type(task)]


def cross_entropy(
    exits: Float[Tensor, "exits rows classes"],
    labels: Int[Tensor, " rows"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "exits rows"]:
    """Return the cross-entropy of each exit and row against the labels.

    Args:
        exits: Logits of each exit.
        labels: The right classes.
        label_smoothing: Share of the probability that is spread over all classes.
    """
    surprise = -exits.float().log_softmax(-1)
    places = labels.expand(surprise.shape[:-1]).unsqueeze(-1)
    right = surprise.gather(-1, places).squeeze(-1)
    return (1 - label_smoothing) * right + label_smoothing * surprise.mean(-1)


def divergence(
    exits: Float[Tensor, "exits *rows classes"],
    teacher: Float[Tensor, "*rows classes"],
    direction: Direction = "student-teacher",
    temperature: float = 1.0,
) -> Float[Tensor, "exits *rows"]:
    """Return the Kullback–Leibler divergence of each exit and row from a teacher.

    Args:
        exits: Logits of each exit.
        teacher: Logits of the teacher.
        direction: `student-teacher` is D_KL(student ‖ teacher), the paper's; `teacher-student` is
            D_KL(teacher ‖ student), what the authors' code computes.
        temperature: What both logits are divided by, so that the small probabilities count too.

    Source: Equation 5 of Liu et al., FastBERT (ACL 2020); the temperature is that of Hinton et
    al., Distilling the Knowledge in a Neural Network (2015).
    """
    log_students = (exits.float() / temperature).log_softmax(-1)
    log_teacher = (teacher.float() / temperature).log_softmax(-1).expand_as(log_students)
    log_p, log_q = (
        (log_students, log_teacher)
        if direction == "student-teacher"
        else (log_teacher, log_students)
    )
    # kl_div takes what is approximated second: kl_div(log q, log p) is Σ p · log(p / q).
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def entropy(exits: Float[Tensor, "exits *rows classes"]) -> Float[Tensor, "exits *rows"]:
    """Return the normalised entropy of each exit and row: the paper's uncertainty."""
    log_p = exits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1) / math.log(exits.shape[-1])


def binary_cross_entropy(
    exits: Float[Tensor, "exits rows labels"],
    held: Bool[Tensor, "rows labels"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "exits rows"]:
    """Return the sum over the labels of the binary cross-entropy of each exit and row.

    Args:
        exits: Logits of each exit.
        held: Which labels hold.
        label_smoothing: Share of the probability that is spread over yes and no.
    """
    wanted = held.float() * (1 - label_smoothing) + label_smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(
        exits.float(), wanted.expand(exits.shape), reduction="none"
    )
    return losses.sum(-1)


def binary_divergence(
    exits: Float[Tensor, "exits rows labels"],
    teacher: Float[Tensor, "rows labels"],
    direction: Direction = "student-teacher",
    temperature: float = 1.0,
) -> Float[Tensor, "exits rows"]:
    """Return the sum over the labels of the divergence of each yes or no from the teacher's.

    Arguments are those of `divergence`, of which a label is the case of two classes.
    """
    return divergence(_yes_or_no(exits), _yes_or_no(teacher), direction, temperature).sum(-1)


def binary_entropy(exits: Float[Tensor, "exits rows labels"]) -> Float[Tensor, "exits rows"]:
    """Return the mean normalised entropy of the labels' own yes or no."""
    return entropy(_yes_or_no(exits)).mean(-1)


def _yes_or_no(logits: Float[Tensor, "*rows labels"]) -> Float[Tensor, "*rows labels 2"]:
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


OBJECTIVES: dict[type[Task], TorchTask] = {
    SingleLabel: TorchTask(
        auto_class=AutoModelForSequenceClassification,
        head=exit_head,
        supervised=cross_entropy,
        divergence=divergence,
        doubt=entropy,
    ),
    MultiLabel: TorchTask(
        auto_class=AutoModelForSequenceClassification,
        head=exit_head,
        supervised=binary_cross_entropy,
        divergence=binary_divergence,
        doubt=binary_entropy,
    ),
}
