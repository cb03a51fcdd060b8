"""What is kept at a speed-up, worked out by hand and by replaying; test chooses nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fastbert.calibration.frontier import (
    AREA,
    TARGETS,
    Frontier,
    Point,
    Recording,
    Split,
    Yardstick,
    fastest_keeping,
    frontier,
)
from fastbert.exits.criteria import Entropy, ThresholdCriterion, watched_exits
from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import heads_by_depth
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel
from tests.calibration.simulated import SHAPE, TASK, simulated


def split(seed: int, rows: int, *, exits: slice = slice(None)) -> Split:
    logits, truth = simulated(seed, rows)
    lengths = np.random.default_rng(seed).integers(5, 40, size=rows)
    return Split(RecordedExits(logits[exits]), truth, lengths)


def recording() -> Recording:
    return Recording(TASK, SHAPE, split(0, 300), split(1, 210))


def last_alone() -> Recording:
    last = slice(-1, None)
    return replace(recording(), dev=split(0, 300, exits=last), test=split(1, 210, exits=last))


YARDSTICK = Yardstick.of(last_alone())


@cache
def found() -> Frontier:
    return frontier(recording(), "entropy", YARDSTICK)


def replayed(thresholds: tuple[float, ...]) -> tuple[float, float, np.ndarray]:
    """Return speed-up, accuracy and right answers of test as the loop has them."""
    test, criterion = recording().test, ThresholdCriterion(Entropy(), thresholds)
    result = test.recorded.replay(criterion)
    right = result.logits.argmax(axis=-1) == test.truth
    watched = watched_exits(criterion, SHAPE.num_layers)
    spent = SHAPE.row_flops(result.exit_layer, test.lengths, watched).mean()
    return SHAPE.full_flops(test.lengths).mean() / spent, float(right.mean()), right


def test_every_point_is_what_its_thresholds_give_on_test() -> None:
    full = float(
        (recording().test.recorded.recorded[-1].argmax(-1) == recording().test.truth).mean()
    )
    for point in (*found().curve[::9], found().default, *filter(None, found().targets)):
        speedup, accuracy, _ = replayed(point.thresholds)
        assert point.speedup == pytest.approx(speedup)
        assert point.metric == pytest.approx(accuracy)
        assert point.retention == pytest.approx(accuracy / full)
    assert found().full.speedup == 1
    assert found().full.metric == full
    assert found().full_change == 0
    assert found().drop == pytest.approx(full - found().default.metric)


def test_a_target_is_met_on_dev_and_none_where_dev_cannot() -> None:
    reached = [point is not None for point in found().targets]
    assert reached == [True, True, False, False]  # the first exit alone is not 4 times faster
    first = found().targets[0]
    assert first is not None
    dev = replace(recording(), test=recording().dev)
    on_dev = frontier(dev, "entropy", Yardstick.of(replace(last_alone(), test=last_alone().dev)))
    there = [point for point in on_dev.curve if point.speedup >= TARGETS[0]]
    assert first.thresholds == there[0].thresholds  # the slowest that is fast enough


def test_at_exactly_a_speedup_rows_are_shared_between_two_neighbours() -> None:
    curve, exact, losses = found().curve, found().exact[0], found().losses[0]
    after = next(place for place, point in enumerate(curve) if point.speedup >= TARGETS[0])
    slow, fast = (replayed(curve[place].thresholds) for place in (after - 1, after))
    # A share s of the rows is answered by the faster setting, so that 2 of them cost one teacher.
    share = (1 / slow[0] - 1 / 2) / (1 / slow[0] - 1 / fast[0])
    assert 0 <= share <= 1
    assert exact == pytest.approx((1 - share) * slow[1] + share * fast[1])
    assert losses == pytest.approx((1 - share) * ~slow[2] + share * ~fast[2])
    # The first exit alone is almost 4 times faster: that counts as the same cost.
    assert found().exact[2] == found().curve[-1].metric
    assert found().exact[3] is None


def test_the_area_is_the_mean_retention_at_equal_ratios() -> None:
    curve = found().curve
    kept = []
    for speedup in AREA:
        slower = [point for point in curve if point.speedup <= speedup][-1]
        faster = next((point for point in curve if point.speedup > speedup), slower)
        way = np.log(faster.speedup / slower.speedup) or 1.0
        share = np.log(speedup / slower.speedup) / way if faster is not slower else 0.0
        kept.append((1 - share) * slower.retention + share * faster.retention)
    assert found().area == pytest.approx(np.mean(kept), abs=1e-3)


def test_the_fastest_setting_that_keeps_enough_is_found_by_hand() -> None:
    curve = [Point(1.0, 0.8, 1.0), Point(2.0, 0.795, 0.99375), Point(3.5, 0.7, 0.875)]
    curve += [Point(3.2, 0.79, 0.9875), Point(5.0, 0.6, 0.75)]
    assert fastest_keeping(curve, 0.99) == 2.0
    assert fastest_keeping(curve, 0.98) == 3.2
    assert fastest_keeping(curve[4:], 0.98) is None


def test_answers_of_test_choose_nothing() -> None:
    one = recording()
    turned = replace(
        one.test,
        recorded=RecordedExits(one.test.recorded.recorded[:, ::-1]),
        truth=np.roll(one.test.truth, 1),
    )
    other = frontier(replace(one, test=turned), "entropy", YARDSTICK)
    assert other.full.metric != found().full.metric
    for mine, theirs in (
        (found().curve, other.curve),
        (found().targets, other.targets),
        ((found().default,), (other.default,)),
    ):
        thresholds = [[each and each.thresholds for each in points] for points in (mine, theirs)]
        assert thresholds[0] == thresholds[1]


def test_the_yardstick_is_the_better_one_on_dev() -> None:
    good, bad = last_alone(), last_alone()
    wrong = replace(bad.test, truth=(bad.test.truth + 1) % 3)  # on test all would choose the other
    good = replace(good, test=wrong)
    worse = replace(bad, dev=replace(bad.dev, truth=(bad.dev.truth + 1) % 3))
    assert Yardstick.of(good, worse).metric == good.full(good.test) < worse.full(worse.test)
    assert Yardstick.of(worse, good).metric == good.full(good.test)
    assert Yardstick.of(worse, good).teacher == worse.full(worse.test)


def test_a_model_without_students_is_one_point_in_the_yardsticks_flops() -> None:
    half = ModelShape(16, 32, 2, 3, heads_by_depth("mean", 1))
    short = frontier(replace(last_alone(), shape=half), "entropy", YARDSTICK)
    test = last_alone().test
    speedup = SHAPE.full_flops(test.lengths).mean() / half.full_flops(test.lengths).mean()
    assert short.full == short.default == short.curve[0]
    assert short.full.speedup == pytest.approx(speedup)
    assert 1.98 < speedup < 2  # equal cost, if not quite: so it is compared there
    assert short.exact == (short.full.metric, None, None, None)
    assert short.losses[0] is not None
    assert short.losses[0].mean() == pytest.approx(1 - short.full.metric)
    assert short.targets == (None,) * 4
    assert short.area is None


def test_exits_of_a_shorter_body_are_measured_by_the_same_yardstick() -> None:
    """Of a body of half the depth a target asks half as much as of the whole one."""
    logits, truth = simulated(0, 300)
    shape = ModelShape(16, 32, 2, 3, heads_by_depth("mean", 1))
    dev = Split(RecordedExits(logits[[1, 3]]), truth, split(0, 300).lengths)
    one = Recording(SingleLabel(tuple("abc")), shape, dev, dev)
    yardstick = Yardstick.of(replace(last_alone(), test=last_alone().dev))
    short = frontier(one, "entropy", yardstick)
    assert short.full.speedup == pytest.approx(yardstick.dev_flops / one.full_flops(dev))
    third = short.targets[1]
    assert third is not None
    assert 3 <= third.speedup < 3.2
