"""The losses of each task against other implementations."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, rel_entr, softmax

from fastbert.exits.criteria import uncertainty
from fastbert.exits.label_measures import BinaryEntropy
from fastbert.nn.objectives import (
    OBJECTIVES,
    Direction,
    binary_cross_entropy,
    binary_divergence,
    binary_entropy,
    cross_entropy,
    divergence,
    entropy,
)
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


# Several labels: each a yes or no of its own, added up.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_of_several_labels_spreads_over_yes_and_no(smoothing: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(STUDENTS, ROWS, CLASSES))
    held = random.random((ROWS, CLASSES)) < 0.4
    wanted = (1 - smoothing) * held + smoothing / 2
    likely = expit(logits)
    expected = -(wanted * np.log(likely) + (1 - wanted) * np.log(1 - likely)).sum(-1)
    losses = binary_cross_entropy(torch.tensor(logits), torch.tensor(held), smoothing)
    assert losses.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_the_divergence_of_several_labels_is_the_sum_of_theirs(
    direction: Direction, temperature: float
) -> None:
    random = np.random.default_rng(0)
    students = random.normal(size=(STUDENTS, ROWS, CLASSES))
    teacher = random.normal(size=(ROWS, CLASSES))
    p, q = expit(students / temperature), expit(teacher / temperature)[None].repeat(STUDENTS, 0)
    one, other = (p, q) if direction == "student-teacher" else (q, p)
    kl = rel_entr(one, other) + rel_entr(1 - one, 1 - other)
    losses = binary_divergence(
        torch.tensor(students), torch.tensor(teacher), direction, temperature
    )
    assert losses.numpy() == pytest.approx(kl.sum(-1), rel=1e-4)


def test_the_doubt_about_several_labels_is_that_of_serving() -> None:
    logits = np.random.default_rng(0).normal(size=(STUDENTS, ROWS, CLASSES))
    served = [BinaryEntropy().doubt(exit_[np.newaxis], 1) for exit_ in logits]
    assert binary_entropy(torch.tensor(logits)).numpy() == pytest.approx(np.stack(served), rel=1e-5)
