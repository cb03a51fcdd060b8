"""The losses of stages against arithmetic in NumPy, and what they teach whom."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from fastbert.nn.objectives import Direction, objective_of
from fastbert.tasks.single_label import SingleLabel
from fastbert.training.losses import AllExits, Target, self_distillation, supervised
from fastbert.training.stage import Lesson
from fastbert.training.weights import ByDepth, Uniform

EXITS, ROWS, CLASSES = 4, 6, 3
OBJECTIVE = objective_of(SingleLabel(("a", "b", "c")))
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
RANDOM = np.random.default_rng(2)
LOGITS, TAUGHT = RANDOM.normal(size=(EXITS, ROWS, CLASSES)), RANDOM.normal(size=(ROWS, CLASSES))
SURPRISE = -log_softmax(LOGITS, axis=-1)[:, np.arange(ROWS), LABELS]  # [exits, rows]


def lesson(labels: Any = None, **told: Any) -> Lesson:
    return Lesson(torch.tensor(LOGITS, requires_grad=True), labels, OBJECTIVE, **told)


def distance(temperature: float) -> np.ndarray:
    """Return the divergence of the exits from the teacher: KL(teacher ‖ exit)."""
    q = softmax(LOGITS / temperature, axis=-1)
    p = softmax(TAUGHT / temperature, axis=-1)[None].repeat(EXITS, 0)
    return np.asarray(rel_entr(p, q).sum(-1))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_first_stage_minimises_the_surprise_of_the_last_exit(smoothing: float) -> None:
    spread = -log_softmax(LOGITS[-1], axis=-1).mean()
    expected = (1 - smoothing) * SURPRISE[-1].mean() + smoothing * spread
    assert supervised(lesson(LABELS), smoothing).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_distillation_sums_over_students_and_teaches_the_teacher_nothing(
    direction: Direction,
) -> None:
    given = lesson()
    loss = self_distillation(given, direction)
    probabilities = softmax(LOGITS, axis=-1)
    p, q = probabilities[:-1], probabilities[-1:]
    kl = rel_entr(p, q) if direction == "student-teacher" else rel_entr(q, p)
    assert loss.item() == pytest.approx(kl.sum(-1).mean(-1).sum(), rel=1e-5)
    loss.backward()
    gradients = given.exits.grad
    assert gradients is not None
    assert gradients[:-1].abs().amax((1, 2)).min() > 0
    assert not gradients[-1].any()


def test_labels_and_a_fixed_teacher_are_mixed_by_share_for_students_and_last_exit() -> None:
    target = Target(share=0.7, last_share=0.4, temperature=2.0)
    losses = target.losses(lesson(LABELS, taught=torch.tensor(TAUGHT)))
    share = np.array([0.7, 0.7, 0.7, 0.4])[:, None]
    expected = (1 - share) * SURPRISE + share * 4 * distance(2.0)
    assert losses.detach().numpy() == pytest.approx(expected, rel=1e-4)


def test_a_row_without_a_label_has_the_teacher_alone_whatever_fills_its_place() -> None:
    labelled = torch.tensor([True, True, False, True, False, True])
    given = lesson(LABELS, labelled=labelled, taught=torch.tensor(TAUGHT))
    losses = Target().losses(given)
    everyone = Target().losses(replace(given, labelled=None))
    alone = 4 * distance(2.0)
    assert losses[:, ~labelled].detach().numpy() == pytest.approx(alone[:, ~labelled], rel=1e-4)
    assert torch.equal(losses[:, labelled], everyone[:, labelled])
    filled = LABELS.where(labelled, (LABELS + 1) % CLASSES)
    assert torch.equal(Target().losses(replace(given, labels=filled)), losses)


def test_without_any_label_the_teacher_teaches_all_exits() -> None:
    losses = Target(temperature=1.5).losses(lesson(taught=torch.tensor(TAUGHT)))
    assert losses.detach().numpy() == pytest.approx(1.5**2 * distance(1.5), rel=1e-4)


def test_labels_alone_need_no_teacher() -> None:
    losses = Target(share=0.0, last_share=0.0).losses(lesson(LABELS))
    assert losses.detach().numpy() == pytest.approx(SURPRISE, rel=1e-5)


def test_an_own_last_exit_that_teaches_learns_from_labels_alone() -> None:
    # sentence-transformers pulled the teacher down to the students (its issue 3757).
    target = Target(share=0.7, last_share=0.0, teacher="last exit")
    given, labels_alone = lesson(LABELS), lesson(LABELS)
    target.losses(given).sum().backward()
    Target(share=0.0, last_share=0.0).losses(labels_alone).sum().backward()
    assert given.exits.grad is not None
    assert labels_alone.exits.grad is not None
    assert torch.allclose(given.exits.grad[-1], labels_alone.exits.grad[-1])
    assert not torch.allclose(given.exits.grad[:-1], labels_alone.exits.grad[:-1])


def test_the_loss_of_all_exits_is_the_weighted_sum_and_the_mean_over_rows() -> None:
    given = lesson(LABELS, taught=torch.tensor(TAUGHT))
    loss = AllExits(ByDepth(floor=0.4), Target(share=0.0, last_share=0.0))(given)
    weights = np.array([0.1, 0.2, 0.3, 0.4])[:, None]  # 0.6 is spread as 1 : 2 : 3
    assert loss.item() == pytest.approx((weights * SURPRISE).sum(0).mean(), rel=1e-5)


def test_weights_are_never_differentiated() -> None:
    def of_the_answers(given: Lesson) -> torch.Tensor:
        return given.exits.softmax(-1)[..., 0]

    given, fixed = lesson(LABELS), lesson(LABELS)
    labels = Target(share=0.0, last_share=0.0)
    AllExits(of_the_answers, labels)(given).backward()
    weights = torch.tensor(softmax(LOGITS, axis=-1)[..., 0])
    AllExits(lambda _: weights, labels)(fixed).backward()
    assert given.exits.grad is not None
    assert fixed.exits.grad is not None
    assert torch.allclose(given.exits.grad, fixed.exits.grad)


def test_a_mean_of_weights_is_the_mean_of_the_losses() -> None:
    given = lesson(LABELS)
    labels = Target(share=0.0, last_share=0.0)

    def both(told: Lesson) -> torch.Tensor:
        return (Uniform()(told) + ByDepth()(told)) / 2

    apart = [AllExits(weights, labels)(given).item() for weights in (Uniform(), ByDepth())]
    assert AllExits(both, labels)(given).item() == pytest.approx(np.mean(apart), rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.1}, "share must be between 0"),
        ({"last_share": -0.1}, "last_share must be between 0"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
    ],
)
def test_what_is_no_mixture_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(**wrong)
