"""The paper's scheme: what each of its two stages trains, reads and minimises."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from fastbert.nn.objectives import Direction, objective_of
from fastbert.tasks.single_label import SingleLabel
from fastbert.training.scheme import DISTILLATION, FINE_TUNING, SCHEMES, paper
from fastbert.training.stage import Lesson, Part

EXITS, ROWS, CLASSES = 4, 6, 3
OBJECTIVE = objective_of(SingleLabel(("a", "b", "c")))


def lesson(labels: Any = None) -> Lesson:
    logits = np.random.default_rng(2).normal(size=(EXITS, ROWS, CLASSES))
    return Lesson(torch.tensor(logits, requires_grad=True), labels, OBJECTIVE)


def test_first_the_backbone_and_the_teacher_learn_then_the_students() -> None:
    teacher, students = SCHEMES["paper"]()
    assert teacher.trains == {Part.BACKBONE, Part.TEACHER}
    assert students.trains == {Part.STUDENTS}
    assert (teacher.name, students.name) == ("teacher", "students")
    assert (teacher.settings, students.settings) == (FINE_TUNING, DISTILLATION)
    assert (teacher.needs_labels, students.needs_labels) == (True, False)
    assert (teacher.best_by, students.best_by) == ("metric", "loss")


def test_only_the_frozen_stage_keeps_hidden_states() -> None:
    assert [stage.cache_hidden_states for stage in paper(cache_hidden_states=True)] == [False, True]
    assert not any(stage.cache_hidden_states for stage in paper())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_first_stage_minimises_the_surprise_of_the_last_exit(smoothing: float) -> None:
    labels = torch.tensor([0, 2, 1, 1, 0, 2])
    given = lesson(labels)
    surprise = -log_softmax(given.exits[-1].detach().numpy(), axis=-1)
    right = surprise[np.arange(ROWS), labels.numpy()].mean()
    teacher, _ = paper(label_smoothing=smoothing)
    expected = (1 - smoothing) * right + smoothing * surprise.mean()
    assert teacher.loss(given).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_the_second_stage_minimises_the_divergence_and_teaches_the_teacher_nothing(
    direction: Direction,
) -> None:
    given = lesson()
    _, students = paper(direction=direction)
    loss = students.loss(given)
    probabilities = softmax(given.exits.detach().numpy(), axis=-1)
    p, q = probabilities[:-1], probabilities[-1:]
    kl = rel_entr(p, q) if direction == "student-teacher" else rel_entr(q, p)
    assert loss.item() == pytest.approx(kl.sum(-1).mean(-1).sum(), rel=1e-5)
    loss.backward()
    gradients = given.exits.grad
    assert gradients is not None
    assert gradients[:-1].abs().amax((1, 2)).min() > 0
    assert not gradients[-1].any()
