"""The path of thresholds runs from every layer to the fastest, near the best there is."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.calibration.path import (
    LARGEST_STEP,
    LEAST_GAP,
    PRICES,
    RowCosts,
    exit_layers_at,
    threshold_path,
)
from fastbert.exits.criteria import Measure, ThresholdCriterion
from fastbert.exits.recorded import RecordedExits

STUDENTS, ROWS = 3, 120
EXITS = STUDENTS + 1


def problem(
    seed: int, students: int = STUDENTS, rows: int = ROWS, student_cost: float = 0.05
) -> tuple[np.ndarray, np.ndarray, RowCosts]:
    """Return doubts, losses and costs: deeper exits lose less, and doubt says where they lose."""
    random = np.random.default_rng(seed)
    difficulty = random.uniform(size=rows)
    skill = np.linspace(0.3, 0.9, students + 1)[:, None]
    wrong = random.uniform(size=(students + 1, rows)) < difficulty * (1 - skill)
    losses = np.clip(0.8 * wrong + 0.2 * difficulty, 0, 1)
    doubts = np.clip(0.6 * losses[:-1] + 0.4 * random.uniform(size=(students, rows)), 0, 1)
    layer = random.uniform(0.5, 2, size=rows)
    dearer = np.linspace(0.6, 1.4, students)[:, None]  # the deeper a student is
    return doubts.astype(np.float32), losses, RowCosts(layer, student_cost * dearer * layer)


def alike(layer: np.ndarray, student: float, students: int) -> RowCosts:
    """Return costs where every student costs every row the same."""
    return RowCosts(layer, np.full((students, len(layer)), student))


def layers_by_hand(doubts: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return where each row leaves, row by row and exit by exit."""
    layers = []
    for row in range(doubts.shape[1]):
        layer = 1
        while layer <= len(doubts) and not doubts[layer - 1, row] < thresholds[layer - 1]:
            layer += 1
        layers.append(layer)
    return np.array(layers)


def cost_and_loss(
    doubts: np.ndarray, losses: np.ndarray, costs: RowCosts, thresholds: np.ndarray
) -> tuple[float, float]:
    """Return what a setting costs in passes through the full model, and what it loses."""
    layers = layers_by_hand(doubts, thresholds)
    asking = [student for student, threshold in enumerate(thresholds, start=1) if threshold > 0]
    asked = sum((student <= layers) * costs.student[student - 1] for student in asking)
    cost = (layers * costs.layer + asked).sum()
    loss = losses[layers - 1, np.arange(len(layers))].sum()
    return cost / (len(losses) * costs.layer.mean()), loss


@pytest.mark.parametrize("seed", range(4))
def test_the_path_starts_at_every_layer_and_no_threshold_ever_falls(seed: int) -> None:
    doubts, losses, costs = problem(seed)
    path = threshold_path(doubts, losses, costs)
    assert path.shape[1] == STUDENTS
    assert path[0].tolist() == [0.0] * STUDENTS
    assert (np.diff(path, axis=0) >= 0).all()
    assert (np.diff(path, axis=0) > 0).any(axis=1).all()  # no point comes twice
    assert path.min() >= 0
    assert path.max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_no_row_leaves_later_further_down_the_path(seed: int) -> None:
    doubts, losses, costs = problem(seed)
    layers = np.array([layers_by_hand(doubts, t) for t in threshold_path(doubts, losses, costs)])
    assert (layers[0] == EXITS).all()
    assert (np.diff(layers, axis=0) <= 0).all()
    assert layers[-1].mean() < 1.5  # at a price of a hundredth of a pass, all but all leave


def test_a_row_leaves_at_its_first_doubt_below_the_threshold() -> None:
    doubts, _, _ = problem(0)
    doubts[1, :5] = 0.5  # at the threshold: these stay
    for thresholds in ([0.0, 0.5, 0.0], [0.3, 0.0, 0.6], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]):
        expected = layers_by_hand(doubts, np.array(thresholds))
        assert exit_layers_at(doubts, np.array(thresholds)).tolist() == expected.tolist()


@pytest.mark.parametrize("student_cost", [0.02, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_on_small_problems_the_path_holds_all_but_the_best_setting_for_every_price(
    seed: int, student_cost: float
) -> None:
    students, rows = 2, 40
    doubts, losses, costs = problem(seed, students, rows, student_cost)

    def measured(settings: list[np.ndarray]) -> np.ndarray:
        return np.array([cost_and_loss(doubts, losses, costs, s) for s in settings])

    # Every partition of the rows by two thresholds: each doubt, and one above the last.
    candidates = [np.array([0.0, *np.sort(doubt), 1.0]) for doubt in doubts]
    brute_force = measured([np.array(pair) for pair in product(*candidates)])
    path = measured(list(threshold_path(doubts, losses, costs)))
    for price in PRICES:
        best, found = ((one @ [1, price]).min() for one in (brute_force, path))
        assert best * (1 - 1e-6) <= found <= best * 1.03


def test_a_high_price_loses_nothing_and_a_low_one_keeps_nobody() -> None:
    # Students that are right exactly where they are sure: all of that can be saved at no loss.
    random = np.random.default_rng(6)
    wrong = random.uniform(size=(STUDENTS, ROWS)) < 0.4
    doubts = np.where(wrong, 0.7, 0.2) + 0.1 * random.uniform(size=wrong.shape)
    losses = np.vstack([wrong, np.full(ROWS, False)]).astype(np.float64)
    costs = alike(np.full(ROWS, 1.0), 0.01, STUDENTS)
    path = threshold_path(doubts, losses, costs)

    free = [cost_and_loss(doubts, losses, costs, t) for t in path]
    best = layers_by_hand(doubts, np.full(STUDENTS, 0.5)).mean()
    lossless = [layers_by_hand(doubts, t).mean() for t, (_, loss) in zip(path, free, strict=True)
                if loss == 0]  # fmt: skip
    assert min(lossless) == pytest.approx(best)
    assert layers_by_hand(doubts, path[-1]).tolist() == [1] * ROWS


def first_student_knows_a_tenth() -> tuple[np.ndarray, np.ndarray]:
    """Return doubts and losses: student 1 is right about one row in ten, student 2 about all."""
    random = np.random.default_rng(7)
    known = np.arange(ROWS) < ROWS // 10
    doubts = np.stack([np.where(known, 0.1, 0.6), np.full(ROWS, 0.3)])
    doubts += 0.3 * random.uniform(size=doubts.shape)
    losses = np.stack([np.where(known, 0.0, 1.0), np.zeros(ROWS), np.zeros(ROWS)])
    return doubts, losses


def test_a_student_that_costs_more_than_it_saves_is_not_asked() -> None:
    # Asking student 1 costs everyone 0.5 layers; leaving there saves a tenth of them 1.5.
    doubts, losses = first_student_knows_a_tenth()
    path = threshold_path(doubts, losses, alike(np.full(ROWS, 1.0), 0.5, len(doubts)))
    depth = np.array([layers_by_hand(doubts, t).mean() for t in path])
    before_errors = path[depth >= 2]
    assert len(before_errors) > 2
    assert (before_errors[:, 0] == 0).all()
    assert before_errors[-1, 1] > 0
    assert depth.min() == 1  # and once errors cost next to nothing, it is


@pytest.mark.parametrize("always", [False, True])
def test_a_student_that_costs_little_or_runs_anyway_is_asked_for_a_tenth_of_the_rows(
    always: bool,
) -> None:
    doubts, losses = first_student_knows_a_tenth()
    student = np.full((2, ROWS), 0.5 if always else 0.01)
    path = threshold_path(doubts, losses, RowCosts(np.full(ROWS, 1.0), student, always))
    lossless = [t for t in path if (doubts[0] < t[0])[ROWS // 10 :].sum() == 0]
    assert layers_by_hand(doubts, lossless[-1]).mean() == pytest.approx(2 - 0.1)
    # Both students open together; one that does not pay opens when student 2 has let all go.
    depth = np.array([layers_by_hand(doubts, t).mean() for t in path])
    assert (path[depth > 2][1:, 0] > 0).any()


def test_each_student_is_asked_at_its_own_price() -> None:
    # Student 1 is right about a tenth of the rows: asked for 0.01 layers it pays, for 0.5 it does
    # not. The two together cost the same either way.
    doubts, losses = first_student_knows_a_tenth()
    asked = []
    for price in (0.01, 0.5):
        student = np.repeat([[price], [0.51 - price]], ROWS, axis=1)
        path = threshold_path(doubts, losses, RowCosts(np.full(ROWS, 1.0), student))
        depth = np.array([layers_by_hand(doubts, t).mean() for t in path])
        asked.append(bool(path[depth > 2][:, 0].any()))
    assert asked == [True, False]


def test_to_leave_saves_what_the_students_ahead_would_have_cost() -> None:
    # Easy rows could leave at student 1 instead of 2, hard ones at student 2 instead of the end.
    # In layers for each unit of loss that saves (1 + 3) / 0.04 and 4 / 0.08: the former comes
    # first, and only because student 2 costs 3 layers, where all others cost next to nothing.
    easy = np.arange(ROWS) < 100
    doubts = np.where(easy, 0.1, 0.6) + 0.3 * np.random.default_rng(0).uniform(size=(5, ROWS))
    of_easy, of_hard = np.array([0.04, 0, 0.5, 0.5, 0.5, 0]), np.array([1, *[0.08] * 4, 0])
    losses = np.where(easy, of_easy[:, None], of_hard[:, None])
    student = np.full((5, ROWS), 0.001)
    student[1] = 3.0
    path = threshold_path(doubts, losses, RowCosts(np.ones(ROWS), student))
    easy_gone = [bool((doubts[0, easy] < t[0]).all()) for t in path]
    hard_go = [bool((doubts[1, ~easy] < t[1]).any()) for t in path]
    assert any(hard_go)
    assert all(gone for gone, go in zip(easy_gone, hard_go, strict=True) if go)


def test_a_student_dearer_than_all_layers_leaves_nothing_to_choose() -> None:
    doubts, losses, _ = problem(1)
    losses[-1] = 0.0  # else asking could pay by correcting the teacher
    path = threshold_path(doubts, losses, alike(np.full(ROWS, 1.0), 5.0, len(doubts)))
    assert path.tolist() == [[0.0] * STUDENTS]


def test_long_rows_count_for_more_than_short_ones() -> None:
    # Student 1 is right about the long half alone and cannot tell which. The half's errors cost
    # the same either way, so only their layers decide at which price all of them leave.
    doubts, losses, _ = problem(2, students=1)
    even = alike(np.full(ROWS, 1.0), 0.1, students=1)
    right = losses[0] <= losses[1]
    long = RowCosts(np.where(right, 1.9, 0.1), np.where(right, 0.19, 0.01)[None])
    for costs in (even, long):
        paths = threshold_path(doubts, losses, costs)
        totals = np.array([cost_and_loss(doubts, losses, costs, t) for t in paths])
        candidates = [np.array([t]) for t in (0.0, *np.sort(doubts[0]), 1.0)]
        best = np.array([cost_and_loss(doubts, losses, costs, t) for t in candidates])
        for price in PRICES:  # one exit: the best threshold is found exactly
            assert (totals @ [1, price]).min() == pytest.approx((best @ [1, price]).min())


def test_the_path_is_the_same_again_and_in_any_order_of_the_rows() -> None:
    doubts, losses, costs = problem(3)
    path = threshold_path(doubts, losses, costs)
    assert np.array_equal(path, threshold_path(doubts, losses, costs))
    order = np.random.default_rng(0).permutation(ROWS)
    shuffled = RowCosts(costs.layer[order], costs.student[:, order])
    assert np.array_equal(path, threshold_path(doubts[:, order], losses[:, order], shuffled))


@pytest.mark.parametrize("unit", [2.0**-30, 1e9, 3.0])
def test_the_unit_of_cost_does_not_matter(unit: float) -> None:
    doubts, losses, costs = problem(4)
    other = RowCosts(costs.layer * unit, costs.student * unit)
    assert np.array_equal(
        threshold_path(doubts, losses, costs), threshold_path(doubts, losses, other)
    )


class Recorded(Measure):
    """The first logit is the doubt."""

    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        return np.asarray(logits[-1, :, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_mean_the_same_as_python_floats_in_the_loop(dtype: type[np.floating]) -> None:
    doubts, losses, costs = problem(5)
    doubts = doubts.astype(dtype)
    path = threshold_path(doubts, losses, costs)
    assert path.dtype == dtype
    logits = np.zeros((EXITS, ROWS, 2), dtype)
    logits[:-1, :, 0] = doubts
    for thresholds in path[::7]:
        floats = tuple(thresholds.tolist())
        assert np.array_equal(np.array(floats).astype(dtype), thresholds)
        result = RecordedExits(logits).replay(ThresholdCriterion(Recorded(), floats))
        expected = exit_layers_at(doubts, thresholds).tolist()
        assert result.exit_layer.tolist() == expected
        assert exit_layers_at(doubts, np.array(floats)).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_on_the_path_are_close_where_rows_are_plenty(seed: int) -> None:
    doubts, losses, costs = problem(seed, rows=3000)
    path = threshold_path(doubts, losses, costs)
    depth = np.array([exit_layers_at(doubts, thresholds).mean() for thresholds in path])
    assert -np.diff(depth).min() <= LARGEST_STEP * STUDENTS + 1e-9
    assert depth[0] - depth[-1] > 0.8 * STUDENTS


def test_doubts_that_take_few_values_still_give_a_path() -> None:
    # As of patience, and of a student that always says the same.
    _, losses, costs = problem(0)
    random = np.random.default_rng(0)
    doubts = np.stack(
        [np.full(ROWS, 0.5), random.choice([0.5, 1.0], size=ROWS), random.choice([0.0, 0.25], ROWS)]
    )
    path = threshold_path(doubts, losses, costs)
    assert path[0].tolist() == [0.0] * STUDENTS
    assert layers_by_hand(doubts, path[-1]).mean() < 1.5
    assert (path <= 1).all()


def test_rows_of_full_doubt_never_leave() -> None:
    _, losses, costs = problem(0)
    path = threshold_path(np.ones((STUDENTS, ROWS)), losses, costs)
    assert path.max() <= 1
    assert {tuple(exit_layers_at(np.ones((STUDENTS, ROWS)), t)) for t in path} == {(EXITS,) * ROWS}


def nearest(doubts: np.ndarray, thresholds: np.ndarray) -> float:
    """Return how near a threshold in use comes to a doubt."""
    distances = np.abs(doubts.astype(np.float64) - thresholds.astype(np.float64)[:, None])
    return float(distances[thresholds > 0].min(initial=np.inf))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_threshold_comes_near_a_recorded_doubt(data: st.DataObject) -> None:
    # On a doubt, the last bit decides: a row alone and in a batch would leave at different layers.
    rows = 30
    near_one = st.integers(0, 40).map(lambda steps: 1 - steps * 2**-24)
    anywhere = st.floats(0, 1, width=32)
    crowded = st.sampled_from([0.0, 2**-126, 2**-24, 0.25, 0.25 + 2**-25, 0.5, 1.0])
    row = st.lists(anywhere | near_one | crowded, min_size=rows, max_size=rows)
    doubts = np.array([data.draw(row) for _ in range(2)], np.float32)
    losses = np.random.default_rng(0).uniform(size=(3, rows))
    path = threshold_path(doubts, losses, alike(np.ones(rows), 0.01, len(doubts)))
    assert path.max() <= 1
    for thresholds in path:
        assert nearest(doubts, thresholds) >= 0.49 * LEAST_GAP * np.finfo(np.float32).eps


def test_a_threshold_lies_in_the_middle_between_its_neighbours() -> None:
    doubts = np.array([[0.0, 0.0, 0.5, 0.7, 0.7, 0.9]], np.float32)
    losses = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0] * 6])
    path = threshold_path(doubts, losses, alike(np.ones(6), 0.01, len(doubts)))
    assert {round(float(t), 6) for t in path[:, 0]} <= {0.0, 0.25, 0.6, 0.8, 0.95}
    assert 0.6 in {round(float(t), 6) for t in path[:, 0]}


def test_where_doubts_crowd_a_threshold_moves_to_the_widest_gap_nearby() -> None:
    # 3,000 rows within a hundred-thousandth of a half, and one gap among them that is safe.
    steps = np.concatenate([np.arange(1500), np.arange(1500) + 1600]) * 2**-25
    doubts = (0.5 + steps).astype(np.float32)[None]
    losses = np.stack([np.where(steps < 1550 * 2**-25, 0.0, 1.0), np.zeros(3000)])
    path = threshold_path(doubts, losses, alike(np.ones(3000), 0.01, len(doubts)))
    shares = {float((doubts[0] < t).mean()) for t in path[:, 0]}
    assert shares == {0.0, 0.5, 1.0}
