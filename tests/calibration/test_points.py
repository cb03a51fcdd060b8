"""What a point says of itself is what the loop gives at its thresholds, row by row."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.measures import Margin, Patience, Stability
from fastbert.exits.recorded import RecordedExits, doubts_of
from tests.calibration.simulated import (
    EXITS,
    ROWS,
    SHAPE,
    calibration,
    quality_by_hand,
    replayed,
    usual,
)


@pytest.mark.parametrize("measure", [Entropy(), Margin(), Patience(), Stability()], ids=repr)
def test_every_figure_is_what_the_loop_gives(measure: Measure) -> None:
    case = calibration(seed=3, rows=150, measure=measure)
    for point in case.points[:: max(1, len(case.points) // 6)]:
        result, answers = replayed(case, point)
        quality = quality_by_hand(case, answers)
        assert point.accuracy == pytest.approx(quality["accuracy"])
        assert point.macro_f1 == pytest.approx(quality["f1"])
        assert point.agreement == pytest.approx(quality["agreement"])
        assert point.mean_exit_layer == pytest.approx(result.exit_layer.mean())
        counts = [(result.exit_layer == layer).sum() for layer in range(1, EXITS + 1)]
        assert list(point.exit_layers) == counts

        # Row by row: a student is asked where the row passes it and the criterion watches.
        flops, times = [], []
        for layer, length in zip(result.exit_layer.tolist(), case.lengths.tolist(), strict=True):
            passed = range(1, min(layer, EXITS - 1) + 1)
            asked = [k for k in passed if point.criterion.watches(k)]
            at_end = layer == EXITS
            flops.append(
                layer * SHAPE.layer_flops(length)
                + sum(SHAPE.student_flops(length)[k - 1] for k in asked)
                + at_end * SHAPE.teacher_head_flops(length)
            )
            times.append(0.7 + 2.0 * layer + 0.3 * len(asked) + 0.1 * at_end)
        assert point.flops == pytest.approx(np.mean(flops))
        assert point.latency_ms == pytest.approx(np.mean(times))
        watched = [k for k in range(1, EXITS) if point.criterion.watches(k)]
        speedup = SHAPE.speedup(result.exit_layer, case.lengths, watched)
        assert point.speedup_flops == pytest.approx(speedup)


def test_the_first_point_is_the_full_model_itself() -> None:
    first = usual().points[0]
    assert first.thresholds == (0.0,) * (EXITS - 1)
    assert first.speedup_flops == 1.0
    assert first.agreement == 1.0
    assert first.mean_exit_layer == EXITS


def test_macro_f1_is_scikit_learns_when_a_class_is_never_answered() -> None:
    case = usual()
    logits = case.recorded.recorded.copy()
    logits[0, :, 2] = -50.0  # student 1 never says class 2
    mute = replace(case, recorded=RecordedExits(logits))
    point = mute.point(np.array([1.0, 1.0, 1.0]))
    answers = logits[0].argmax(axis=-1)
    assert point.macro_f1 == pytest.approx(f1_score(case.truth, answers, average="macro"))


def test_doubts_are_those_of_each_student_with_the_history_it_may_see() -> None:
    recorded = usual().recorded
    assert doubts_of(Entropy(), recorded).shape == (EXITS - 1, ROWS)
    for measure in (Margin(), Stability()):
        expected = [measure.doubt(recorded.recorded[:k], k) for k in range(1, EXITS)]
        assert np.array_equal(doubts_of(measure, recorded), np.stack(expected))
