"""Which parts of a model learn, and what its checkpoints hold."""

from collections.abc import Iterable

import pytest
import torch

from fastbert.nn.model import FastBertModel
from fastbert.shape import StudentShape
from fastbert.training.stage import Lesson, Part, Stage, StageSettings
from fastbert.training.trainee import Trainee, part_of
from tests.tiny import tiny_batch, tiny_classifier

SETTINGS = StageSettings(epochs=1, learning_rate=1e-3)


def trainee(*parts: Part) -> Trainee:
    torch.manual_seed(0)
    model = FastBertModel(tiny_classifier("bert"), StudentShape("first", 8, 2))
    return Trainee(model, Stage("some", frozenset(parts), total, SETTINGS, needs_labels=False))


def total(lesson: Lesson) -> torch.Tensor:
    return lesson.exits.square().sum()


@pytest.mark.parametrize(
    "parts", [[Part.STUDENTS], [Part.BACKBONE, Part.STUDENTS], [Part.TEACHER], list(Part)]
)
def test_gradients_reach_every_part_that_learns_and_no_other(parts: Iterable[Part]) -> None:
    made = trainee(*parts).train()
    batch = tiny_batch(made.model.backbone.encoder)
    made(row=torch.arange(3), **batch).square().sum().backward()
    reached = {
        part_of(made.model, name)
        for name, weight in made.model.named_parameters()
        if weight.grad is not None
    }
    assert reached == set(parts)


def test_what_is_frozen_answers_without_dropout() -> None:
    made = trainee(Part.STUDENTS).train()
    assert all(student.training for student in made.model.students)
    assert not any(module.training for module in made.model.teacher.modules())
    partly = trainee(Part.TEACHER).train()
    assert not any(module.training for module in partly.model.backbone.layers)
    assert partly.model.teacher.training


def test_a_checkpoint_holds_what_learns_alone() -> None:
    names = trainee(Part.STUDENTS).state_dict()
    assert names
    assert all(name.startswith("parts.students.") for name in names)


def test_students_are_not_asked_where_they_do_not_learn() -> None:
    made = trainee(Part.BACKBONE, Part.TEACHER)
    batch = tiny_batch(made.model.backbone.encoder)
    assert len(made(row=torch.arange(3), **batch)) == 1
