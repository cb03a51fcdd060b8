"""Simulated answers of all exits, and what they say worked out by other means."""

from functools import cache
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.exits.engine import ExitResult
from fastbert.exits.measures import MaxProbability
from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import heads_by_depth
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel

EXITS, ROWS, CLASSES = 4, 400, 3
HEADS = heads_by_depth("queries/1/4:1,paper/first/4:1,mean", EXITS - 1)
SHAPE = ModelShape(16, 32, EXITS, CLASSES, HEADS)
TASK = SingleLabel(tuple("abcdefgh"[:CLASSES]))
MEASURE = MaxProbability()
TIMES = PartTimes(start=0.7, layer=2.0, student=0.3, teacher=0.1)


def simulated(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and classes: deeper exits know more, and all know what they do not know."""
    random = np.random.default_rng(seed)
    truth = random.integers(CLASSES, size=rows)
    hard = random.exponential(size=(rows, 1))
    exits = []
    for skill in np.linspace(0.7, 2.2, EXITS):
        noise = random.normal(size=(rows, CLASSES)) * hard
        exits.append(3 * (skill * np.eye(CLASSES)[truth] + 0.6 * noise))
    return np.stack(exits).astype(np.float32), truth


def calibration(seed: int = 0, rows: int = ROWS, **others: Any) -> Calibration:
    logits, truth = simulated(seed, rows)
    lengths = np.random.default_rng(seed).integers(5, 40, size=rows)
    settings: dict[str, Any] = {"truth": truth, "times": TIMES, "measure": MEASURE} | others
    return Calibration(RecordedExits(logits), lengths=lengths, shape=SHAPE, task=TASK, **settings)


@cache
def usual() -> Calibration:
    return calibration()


def replayed(case: Calibration, point: OperatingPoint) -> tuple[ExitResult, np.ndarray]:
    """Return what the loop gives at these thresholds, and the answers."""
    result = case.recorded.replay(point.criterion)
    return result, result.logits.argmax(axis=-1)


def quality_by_hand(case: Calibration, answers: np.ndarray) -> dict[str, float]:
    assert case.truth is not None
    full = case.recorded.recorded[-1].argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(case.truth, answers)),
        "f1": float(f1_score(case.truth, answers, average="macro")),
        "agreement": float(accuracy_score(full, answers)),
    }
