"""Which parts of a model learn, and what its checkpoints hold."""

from collections.abc import Iterable

import pytest
import torch

from fastbert.nn.model import FastBertModel
from fastbert.training.stage import Lesson, Part, Stage, StageSettings
from fastbert.training.trainee import Trainee, part_of
from tests.tiny import tiny_batch, tiny_classifier

SETTINGS = StageSettings(epochs=1, learning_rate=1e-3)


def trainee(*parts: Part) -> Trainee:
    torch.manual_seed(0)
    model = FastBertModel(tiny_classifier("bert"), "paper/first/8")
    return Trainee(model, Stage("some", frozenset(parts), total, SETTINGS))


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


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "modernbert"])
def test_where_exits_are_cut_off_each_teaches_only_the_layers_since_the_exit_before(
    family: str,
) -> None:
    model = FastBertModel(tiny_classifier(family), "paper/first/8")
    stage = Stage("some", frozenset(Part), total, SETTINGS, detached=True)
    made, batch = Trainee(model, stage), tiny_batch(model.backbone.encoder)
    for exit_layer in range(1, model.num_exits + 1):
        model.zero_grad()
        made(row=torch.arange(3), **batch)[exit_layer - 1].square().sum().backward()
        reached = [
            any(
                weight.grad is not None and bool(weight.grad.any()) for weight in layer.parameters()
            )
            for layer in model.backbone.layers
        ]
        assert [index + 1 for index, is_reached in enumerate(reached) if is_reached] == [exit_layer]


def test_cutting_changes_no_answer() -> None:
    model = trainee(*Part).model
    batch = tiny_batch(model.backbone.encoder)
    whole, cut = (
        Trainee(model, Stage("some", frozenset(Part), total, SETTINGS, detached=detached))
        for detached in (False, True)
    )
    row = torch.arange(3)
    assert torch.equal(whole.eval()(row=row, **batch), cut.eval()(row=row, **batch))


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
