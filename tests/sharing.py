"""Requests that share steps as a server lets them: begun, stepped and merged in any order."""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from fastbert.exits.criteria import (
    Entropy,
    EntropyCriterion,
    ExitCriterion,
    Measure,
    ThresholdCriterion,
)
from fastbert.exits.engine import (
    Answered,
    ExitBackend,
    ExitResult,
    Request,
    RunningRows,
    begin,
    classify,
    in_order,
    merge,
    record,
    step,
)
from fastbert.exits.measures import ConfidentPatience, Ensemble, MaxProbability, Patience, Stability
from fastbert.exits.recorded import RecordedExits, doubts_of

MIXED_MEASURES: tuple[Measure, ...] = (
    MaxProbability(),
    Patience(),
    Ensemble(),
    Stability(),
    ConfidentPatience(),
)


def answers_alone(
    backend: ExitBackend[Any, Any], requests: Sequence[tuple[Any, ExitCriterion]]
) -> list[ExitResult]:
    """Return what each request is answered by itself."""
    return [classify(backend, batch, criterion) for batch, criterion in requests]


def answers_together(
    backend: ExitBackend[Any, Any],
    requests: Sequence[tuple[Any, ExitCriterion]],
    random: Random,
) -> list[ExitResult]:
    """Return what each request is answered if all share steps wherever they happen to meet."""
    waiting = list(requests)
    begun: list[Request] = []
    running: list[RunningRows[Any]] = []
    answers: dict[Request, list[Answered]] = defaultdict(list)
    while waiting or running:
        running = _some_merged(backend, running, random)
        if waiting and (not running or random.random() < 0.4):
            running.append(begin(backend, *waiting.pop(0)))
            [part] = running[-1].parts
            begun.append(part.request)
            continue
        shallowest = min(running, key=lambda rows: rows.exit_layer)  # so that others meet it
        running.remove(shallowest)
        going_on, answered = step(backend, shallowest)
        running += [] if going_on is None else [going_on]
        for answer in answered:
            answers[answer.request].append(answer)
    return [in_order(answers[request]) for request in begun]


def _some_merged(
    backend: ExitBackend[Any, Any], running: list[RunningRows[Any]], random: Random
) -> list[RunningRows[Any]]:
    """Merge some of the rows at equal depth, in any order."""
    merged = []
    for layer in {rows.exit_layer for rows in running}:
        there = [rows for rows in running if rows.exit_layer == layer]
        random.shuffle(there)
        together = random.choice([1, len(there)])
        merged += [merge(backend, there[:together]), *there[together:]]
    return merged


def criterion_for(backend: ExitBackend[Any, Any], batch: Any, random: Random) -> ExitCriterion:
    """Return any criterion, some exits of it off, whose thresholds lie far from any doubt.

    Nearer ones would decide by how a sum was rounded, which differs with the shape of a step.
    """
    recorded = RecordedExits(record(backend, batch))
    measure = random.choice([None, *MIXED_MEASURES])
    if measure is None:
        return EntropyCriterion(_far_from(doubts_of(Entropy(), recorded), random))
    doubts = doubts_of(measure, recorded)
    return ThresholdCriterion(measure, tuple(_far_from(of_exit, random) for of_exit in doubts))


def _far_from(doubts: np.ndarray, random: Random) -> float:
    values = np.unique([0.0, 1.0, *doubts.ravel()])
    wide = np.flatnonzero(np.diff(values) > 2e-3)
    middles: list[float] = ((values[wide] + values[wide + 1]) / 2).tolist()
    return random.choice([0.0, *middles])
