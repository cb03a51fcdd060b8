"""Row weights: sums, floors, where rows leave, and that nothing is drawn or kept."""

import numpy as np
import pytest
import torch

from fastbert.exits.criteria import uncertainty
from fastbert.nn.objectives import objective_of
from fastbert.tasks.single_label import SingleLabel
from fastbert.training.stage import Lesson
from fastbert.training.weights import (
    Alternating,
    ByDepth,
    ExitAware,
    LastOnly,
    RowWeights,
    Uniform,
    exit_layers_at,
)

EXITS, ROWS, CLASSES = 5, 40, 3
ALL = [Uniform(), LastOnly(), ByDepth(), ExitAware(), Alternating(Uniform())]


def lesson(progress: float = 1.0, step: int | None = None) -> Lesson:
    logits = np.random.default_rng(3).normal(size=(EXITS, ROWS, CLASSES), scale=2)
    exits = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    objective = objective_of(SingleLabel(("a", "b", "c")))
    return Lesson(exits, None, objective, progress=progress, step=step)


@pytest.mark.parametrize("weights", ALL)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_weights_of_a_row_are_shares_without_a_gradient(
    weights: RowWeights, progress: float
) -> None:
    given = weights(lesson(progress))
    assert given.shape == (EXITS, ROWS)
    assert torch.allclose(given.sum(0), torch.ones(ROWS))
    assert given.min() >= 0
    assert not given.requires_grad


@pytest.mark.parametrize("weights", ALL)
def test_the_same_lesson_is_weighed_the_same_and_no_random_number_is_drawn(
    weights: RowWeights,
) -> None:
    state = torch.get_rng_state()
    first = weights(lesson(0.7))
    weights(lesson(0.2))  # what came before leaves no trace
    assert torch.equal(weights(lesson(0.7)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_deeper_students_count_more_and_the_last_exit_its_share() -> None:
    given = ByDepth(floor=0.5)(lesson())
    assert given[:, 7].tolist() == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.5])


def test_the_last_exit_alone_counts_in_even_steps() -> None:
    weights = Alternating(Uniform())
    assert torch.equal(weights(lesson(step=4)), LastOnly()(lesson()))
    for step in (5, None):  # None is dev
        assert torch.equal(weights(lesson(step=step)), Uniform()(lesson()))


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.8, 1.0])
def test_the_last_exit_never_falls_below_its_floor(progress: float) -> None:
    weights = ExitAware(floor=0.3)(lesson(progress))
    assert weights[-1].min() >= 0.3 - 1e-6


def test_exit_awareness_begins_as_the_depth_and_grows_with_the_progress() -> None:
    aware = ExitAware()
    assert torch.allclose(aware(lesson(1 / 3)), ByDepth()(lesson()))
    moved = [
        (aware(lesson(progress)) - ByDepth()(lesson())).abs().sum().item()
        for progress in (0.4, 0.7, 1.0)
    ]
    assert moved == sorted(moved)
    assert moved[0] > 0


def test_a_row_counts_most_near_where_it_leaves() -> None:
    # One speed-up, so that there is one place; all of the weight is the places'.
    aware = ExitAware(floor=0.0, speedups=(2.0, 2.0, 1), most=1.0, begins=0.0, sharpness=3.0)
    weights = aware(lesson())
    doubts = uncertainty(lesson().exits.detach().numpy())[:-1]
    leaving = exit_layers_at(torch.tensor(doubts), 2.0)
    assert torch.equal(weights.argmax(0) + 1, leaving)
    gap = weights.gather(0, leaving[None] - 1).log() - weights.log()
    away = (torch.arange(1, EXITS + 1)[:, None] - leaving).abs()
    assert torch.allclose(gap, 3.0 * away, atol=1e-4)


def test_several_speed_ups_are_averaged() -> None:
    def at(slowest: float, fastest: float, count: int) -> torch.Tensor:
        return ExitAware(speedups=(slowest, fastest, count)).nearness(lesson())

    both = at(1.5, 6.0, 2)
    assert torch.allclose(both, (at(1.5, 1.5, 1) + at(6.0, 6.0, 1)) / 2)


@pytest.mark.parametrize("speedup", [1.0, 1.3, 2.0, 3.1, 4.5])
def test_rows_leave_so_that_the_wanted_layers_are_saved(speedup: float) -> None:
    doubts = torch.tensor(np.random.default_rng(5).random((EXITS - 1, ROWS)))
    layers = exit_layers_at(doubts, speedup)
    # One row more or less saves up to four layers at once.
    assert layers.float().mean() == pytest.approx(EXITS / speedup, abs=4 / ROWS)
    # They leave by one threshold: at the first exit whose doubt is below it.
    left = layers < EXITS
    highest = max(
        (doubts[layer - 1, row] for row, layer in enumerate(layers) if left[row]), default=0
    )
    for row, layer in enumerate(layers):
        assert (doubts[: layer - 1, row] > highest).all()


def test_all_rows_leave_at_once_where_even_that_is_too_slow() -> None:
    doubts = torch.rand(EXITS - 1, ROWS)
    assert (exit_layers_at(doubts, EXITS + 1.0) == 1).all()
