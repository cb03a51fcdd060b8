"""How dev is judged after each epoch: the figures of the history, and the one that chooses."""

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.recorded import RecordedExits, doubts_of
from fastbert.tasks.metrics import agreement, meant
from fastbert.tasks.task import Decisions, Task

WATCHED_SPEED = 0.5  # at which the paper follows the training
SPEEDUPS = np.geomspace(1.5, 6, 16)  # L / mean exit layer, over which `area` is the mean
THRESHOLDS = 200  # of which the curve under `area` is made


def judged(
    task: Task,
    exits: RecordedExits,
    truth: Decisions | None,
    taught: Decisions | None = None,
) -> dict[str, float]:
    """Return what is told of an epoch.

    Args:
        task: What the exits answer.
        exits: What they answered on dev; one exit alone is the teacher.
        truth: The right answers, where they are known.
        taught: What a fixed teacher answers, which stands in for them.

    Returns:
        With labels the first metric at the paper's speed; where students are asked, `agreement`
        with the last exit and `mean_exit_layer` at that speed, `area` and, with labels or a fixed
        teacher, `full`: the metric of the last exit.
    """
    answered = exits.replay(EntropyCriterion(WATCHED_SPEED, task.uncertainty))
    answers, last = task.decide(answered.logits), task.decide(exits.recorded[-1])
    name, metric = next(iter(task.metrics.items()))
    figures = {} if truth is None else {name: metric.score(answers, truth)}
    if exits.num_exits == 1:
        return figures
    right = taught if truth is None else truth
    if right is not None:
        figures["full"] = metric.score(last, right)
    return figures | {
        "agreement": agreement(task, answers, last),
        "mean_exit_layer": float(answered.exit_layer.mean()),
        "area": area(task, exits, last if right is None else right),
    }


def area(task: Task, exits: RecordedExits, right: Decisions) -> float:
    """Return the first metric as the mean over speed-ups in equal ratios.

    Each speed-up is reached by one threshold for all exits, taken on these rows. Between two
    thresholds the metric is interpolated, by the mean exit layer; past the first exit it is that
    exit's.

    Args:
        task: What the exits answer.
        exits: What they answered.
        right: What they should have.
    """
    metric = meant(task)
    answers = np.stack([task.decide(logits) for logits in exits.recorded])
    rows = np.arange(exits.num_rows)
    curve: dict[float, float] = {}
    for layers in _exit_layers(doubts_of(task.default_measure, exits)):
        curve[float(layers.mean())] = metric.score(answers[layers - 1, rows], right)
    reached = sorted(curve)
    values = np.interp(exits.num_exits / SPEEDUPS, reached, [curve[mean] for mean in reached])
    return float(values.mean())


def _exit_layers(
    doubts: Float[np.ndarray, "students rows"],
) -> list[Int[np.ndarray, " rows"]]:
    """Return where each row leaves, counted from 1, at thresholds from the slowest to the fastest.

    A row has left by an exit if its least doubt so far lies below the threshold.
    """
    least = np.minimum.accumulate(doubts)
    ordered = np.sort(least, axis=None)
    places = np.unique(np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(np.int64))
    thresholds = [*ordered[places], np.inf]
    return [len(doubts) + 1 - (least < threshold).sum(axis=0) for threshold in thresholds]
