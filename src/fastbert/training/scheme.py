"""The schemes: how the exits of a model are trained, each a tuple of stages.

The run's folder, resuming, progress and history walk the tuple and know no stage by name.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor

from fastbert.nn.objectives import Direction
from fastbert.training.stage import Lesson, Part, Stage, StageSettings

FINE_TUNING = StageSettings(epochs=3, learning_rate=2e-5)
DISTILLATION = StageSettings(epochs=5, learning_rate=2e-4)

Scheme = tuple[Stage, ...]


def supervised(lesson: Lesson, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss of the teacher against the labels."""
    assert lesson.labels is not None  # the stage needs them
    return lesson.objective.supervised(lesson.exits[-1], lesson.labels, label_smoothing)


def self_distillation(lesson: Lesson, direction: Direction = "student-teacher") -> Tensor:
    """Return the divergence of the students from the teacher, which learns nothing from it."""
    return lesson.objective.divergence(lesson.exits[:-1], lesson.exits[-1].detach(), direction)


def paper(
    fine_tuning: StageSettings = FINE_TUNING,
    distillation: StageSettings = DISTILLATION,
    *,
    label_smoothing: float = 0.0,
    direction: Direction = "student-teacher",
    cache_hidden_states: bool = False,
) -> Scheme:
    """Return the paper's scheme: fine-tune backbone and teacher, then distil the students.

    In the second stage one pass of the frozen backbone feeds all students, and the teacher runs
    without dropout, so its soft labels are those it will give in use.

    Args:
        fine_tuning: Settings of the first stage; the paper's by default.
        distillation: Settings of the second; the paper's by default.
        label_smoothing: Share of the probability that the first stage spreads over all classes.
        direction: Which divergence the second one minimises.
        cache_hidden_states: In the second run the backbone once, and keep what it says on disk.

    Source: Sections 3.2.2, "Fine-tuning for backbone", and 3.2.3, "Self-distillation for branch",
    of Liu et al., FastBERT (ACL 2020).
    """
    return (
        Stage(
            "teacher",
            frozenset({Part.BACKBONE, Part.TEACHER}),
            partial(supervised, label_smoothing=label_smoothing),
            fine_tuning,
            needs_labels=True,
            best_by="metric",
        ),
        Stage(
            "students",
            frozenset({Part.STUDENTS}),
            partial(self_distillation, direction=direction),
            distillation,
            needs_labels=False,
            cache_hidden_states=cache_hidden_states,
        ),
    )


SCHEMES: Mapping[str, Callable[..., Scheme]] = MappingProxyType({"paper": paper})
