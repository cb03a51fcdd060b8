"""Replaying recorded exits, and choosing a speed from them."""

import numpy as np

from fastbert.calibration import RecordedExits, SpeedPoint, choose_speed, speed_curve

EXITS, ROWS, CLASSES = 3, 200, 4


def recorded_with_a_good_teacher() -> tuple[RecordedExits, np.ndarray]:
    random = np.random.default_rng(5)
    truth = random.integers(CLASSES, size=ROWS)
    skill = np.array([1.0, 2.0, 4.0])[:, None, None]
    logits = random.normal(size=(EXITS, ROWS, CLASSES)) + skill * np.eye(CLASSES)[truth]
    return RecordedExits(logits), truth


def test_a_curve_starts_at_the_teacher_and_ends_at_the_first_student() -> None:
    recorded, truth = recorded_with_a_good_teacher()
    curve = speed_curve(recorded, truth, (0.0, 0.5, 1.0))

    accuracy = (recorded.recorded.argmax(-1) == truth).mean(axis=1)
    assert curve[0] == SpeedPoint(0.0, accuracy[-1], float(EXITS))
    assert curve[-1] == SpeedPoint(1.0, accuracy[0], 1.0)
    assert curve[0].mean_exit_layer > curve[1].mean_exit_layer > curve[2].mean_exit_layer


def test_the_chosen_speed_is_the_fastest_within_the_allowed_drop() -> None:
    curve = [
        SpeedPoint(0.0, 0.900, 12.0),
        SpeedPoint(0.1, 0.896, 8.0),
        SpeedPoint(0.2, 0.894, 7.0),
        SpeedPoint(0.3, 0.896, 6.0),
        SpeedPoint(0.4, 0.880, 4.0),
    ]
    assert choose_speed(curve, max_drop=0.005) == 0.3
    assert choose_speed(curve, max_drop=0.02) == 0.4
    assert choose_speed(curve, max_drop=0.0) == 0.0


def test_of_speeds_that_change_nothing_the_lowest_is_chosen() -> None:
    curve = [SpeedPoint(speed, 0.9, 12.0) for speed in (0.0, 0.1, 0.2)]
    assert choose_speed(curve) == 0.0
