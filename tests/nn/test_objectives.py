"""The losses of each task against other implementations."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from fastbert.exits.criteria import uncertainty
from fastbert.nn.objectives import OBJECTIVES, Direction, cross_entropy, divergence, entropy
from fastbert.tasks.known import TASKS

STUDENTS, ROWS, CLASSES = 4, 6, 3


def test_no_task_lacks_its_torch_half() -> None:
    assert set(OBJECTIVES) == set(TASKS.values())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_spreads_a_share_of_the_probability_over_all_classes(
    smoothing: float,
) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(STUDENTS, ROWS, CLASSES))
    labels = random.integers(CLASSES, size=ROWS)
    wanted = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    expected = -(wanted * log_softmax(logits, axis=-1)).sum(-1)
    losses = cross_entropy(torch.tensor(logits), torch.tensor(labels), smoothing)
    assert losses.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_the_divergence_is_of_each_exit_and_row_and_temperature_divides_logits(
    direction: Direction, temperature: float
) -> None:
    # BERxiT's code divides probabilities by it.
    random = np.random.default_rng(0)
    students = random.normal(size=(STUDENTS, ROWS, CLASSES))
    teacher = random.normal(size=(ROWS, CLASSES))

    p = softmax(students / temperature, axis=-1)
    q = softmax(teacher / temperature, axis=-1)[None].repeat(STUDENTS, 0)
    kl = rel_entr(p, q) if direction == "student-teacher" else rel_entr(q, p)
    losses = divergence(torch.tensor(students), torch.tensor(teacher), direction, temperature)
    assert losses.numpy() == pytest.approx(kl.sum(-1), rel=1e-4)


def test_the_doubt_of_torch_is_the_uncertainty_of_serving() -> None:
    logits = np.random.default_rng(0).normal(size=(STUDENTS, ROWS, CLASSES))
    assert entropy(torch.tensor(logits)).numpy() == pytest.approx(uncertainty(logits), rel=1e-5)


def test_the_two_directions_differ() -> None:
    students, teacher = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[0.0, 0.5]])
    there = divergence(students, teacher, "student-teacher")
    back = divergence(students, teacher, "teacher-student")
    assert there.item() != pytest.approx(back.item())


def test_students_that_agree_with_the_teacher_cost_nothing() -> None:
    teacher = torch.randn(ROWS, CLASSES)
    agreeing = teacher.expand(STUDENTS, -1, -1) + 3  # a constant changes no probability
    assert divergence(agreeing, teacher).numpy() == pytest.approx(0, abs=1e-6)
