"""The torch half of a task: its heads and its losses, one entry for each task.

Whatever trains or loads a model asks `objective_of` and never looks at the task's type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from fastbert.nn.heads import ExitHead
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task

Direction = Literal["student-teacher", "teacher-student"]


@dataclass(frozen=True)
class TorchTask:
    """What a task needs of torch.

    Args:
        auto_class: The class of transformers that loads a teacher.
        head: The classifier of an exit.
        supervised: The loss of one exit's logits against the truth, with the share of the
            probability that label smoothing spreads.
        divergence: The loss of the students' logits against the teacher's, in a direction.
    """

    auto_class: Any
    head: type[nn.Module]
    supervised: Callable[[Tensor, Tensor, float], Tensor]
    divergence: Callable[[Tensor, Tensor, Direction], Tensor]


def objective_of(task: Task) -> TorchTask:
    """Return the torch half of a task."""
    return OBJECTIVES[type(task)]


def cross_entropy(
    logits: Float[Tensor, "rows classes"],
    labels: Int[Tensor, " rows"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy against the labels.

    Args:
        logits: Of one exit.
        labels: The right classes.
        label_smoothing: Share of the probability that is spread over all classes.
    """
    if not label_smoothing:
        return functional.cross_entropy(logits.float(), labels)
    surprise = -logits.log_softmax(-1)
    right = surprise.gather(-1, labels[:, None]).sum() / labels.numel()
    spread = surprise.sum(-1, keepdim=True).sum() / surprise.numel()
    return (1 - label_smoothing) * right + label_smoothing * spread


def divergence(
    students: Float[Tensor, "students rows classes"],
    teacher: Float[Tensor, "rows classes"],
    direction: Direction = "student-teacher",
) -> Float[Tensor, ""]:
    """Return Σ over the students of the mean over rows of the Kullback–Leibler divergence.

    Args:
        students: Logits of each student.
        teacher: Logits of the teacher.
        direction: `student-teacher` is D_KL(student ‖ teacher), the paper's; `teacher-student` is
            D_KL(teacher ‖ student), what the authors' code computes.

    Source: Equations 5 and 6 of Liu et al., FastBERT (ACL 2020).
    """
    log_students = students.float().log_softmax(-1)
    log_teacher = teacher.float().log_softmax(-1).expand_as(log_students)
    log_p, log_q = (
        (log_students, log_teacher)
        if direction == "student-teacher"
        else (log_teacher, log_students)
    )
    # kl_div takes what is approximated second: kl_div(log q, log p) is Σ p · log(p / q).
    pointwise = functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    return pointwise.sum(-1).mean(-1).sum()


OBJECTIVES: dict[type[Task], TorchTask] = {
    SingleLabel: TorchTask(
        auto_class=AutoModelForSequenceClassification,
        head=ExitHead,
        supervised=cross_entropy,
        divergence=divergence,
    )
}
