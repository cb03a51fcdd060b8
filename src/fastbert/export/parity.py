"""How an export's answers differ from those of torch, and how much they may."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError
from fastbert.exits.criteria import (
    EntropyCriterion,
    ExitCriterion,
    ThresholdCriterion,
)
from fastbert.exits.recorded import RecordedExits, doubts_of
from fastbert.folder.calibration import can_solve_goals
from fastbert.folder.export import Parity
from fastbert.running import Precision
from fastbert.tasks.task import Task
from fastbert.text import Text

UNCALIBRATED_SPEED = 0.5  # at which exits are compared where the default runs every layer
NEAR = 1e-4  # of a threshold: rounding may fall to either side

# The share of rows that may get another label at speed 0, and that may leave elsewhere.
BARS: dict[Precision, tuple[float, float]] = {
    "fp32": (0.0, 0.0),
    "bf16": (0.05, 0.25),
    "int8": (0.05, 0.25),
}


def compare_with_torch(
    torch_classifier: FastBertClassifier,
    exported: FastBertClassifier,
    texts: Sequence[Text],
    source: str,
) -> Parity:
    """Answer texts by torch and by an export, at speed 0 and at the speed in use."""
    speed, criterion = _speed_in_use(torch_classifier)
    recorded = torch_classifier.record(texts)
    at_speed = recorded.replay(criterion)
    full, fast = (
        exported.classify(texts, EntropyCriterion(0.0)),
        exported.classify(texts, criterion),
    )
    elsewhere = fast.exit_layer != at_speed.exit_layer
    task, teacher = torch_classifier.config.task, recorded.recorded[-1]
    return Parity(
        rows=len(texts),
        source=source,
        speed=speed,
        labels_differ=_differ(task, full.logits, teacher),
        labels_differ_at_speed=_differ(task, fast.logits, at_speed.logits),
        exit_layers_differ=int(elsewhere.sum()),
        near_threshold=int((elsewhere & near_threshold(recorded, criterion)).sum()),
        max_probability_difference=float(
            np.abs(task.probabilities(full.logits) - task.probabilities(teacher)).max()
        ),
    )


def refuse_beyond_bar(parity: Parity, precision: Precision) -> None:
    """Refuse an export that answers otherwise than torch.

    Raises:
        ExportError: More rows get another label or leave elsewhere than the precision explains.
    """
    labels, exit_layers = BARS[precision]
    elsewhere = parity.exit_layers_differ - parity.near_threshold
    if parity.labels_differ > labels * parity.rows or elsewhere > exit_layers * parity.rows:
        advice = "please report this" if precision == "fp32" else "try --precision fp32"
        raise ExportError(
            f"not exported: of {parity.rows} rows ({parity.source}) {parity.labels_differ} get "
            f"another label than from torch and {elsewhere} leave at another layer, more than "
            f"{precision} explains; {advice}"
        )


def _speed_in_use(classifier: FastBertClassifier) -> tuple[float | dict[str, Any], ExitCriterion]:
    """Return how the folder answers by default, where that can be told, else the paper's middle.

    Exits are compared at either: what an export must not change are the answers of every exit, and
    any thresholds show whether it does.
    """
    if can_solve_goals(classifier.folder) and classifier.default_goal is not None:
        criterion = classifier.default_criterion
        if isinstance(criterion, ThresholdCriterion):
            return classifier.default_goal.as_dict(), criterion
    return UNCALIBRATED_SPEED, classifier.criterion(UNCALIBRATED_SPEED)


def _differ(
    task: Task, ours: Float[np.ndarray, "rows outputs"], others: Float[np.ndarray, "rows outputs"]
) -> int:
    return int((task.losses(task.decide(ours), task.decide(others)) > 0).sum())


def near_threshold(recorded: RecordedExits, criterion: ExitCriterion) -> Bool[np.ndarray, " rows"]:
    """Return the rows whose doubt lies so near to a threshold that rounding may decide."""
    return threshold_distance(recorded, criterion) < NEAR


def threshold_distance(
    recorded: RecordedExits, criterion: ExitCriterion
) -> Float[np.ndarray, " rows"]:
    """Return how near each row's doubt comes to a threshold in use; infinite if none is."""
    if isinstance(criterion, ThresholdCriterion):
        doubts = doubts_of(criterion.measure, recorded)
        thresholds = np.array(criterion.thresholds)
    else:
        assert isinstance(criterion, EntropyCriterion)
        doubts = doubts_of(criterion.entropy, recorded)
        thresholds = np.full(len(doubts), criterion.speed)
    in_use = thresholds > 0
    distances = np.abs(doubts[in_use] - thresholds[in_use, None])
    return np.asarray(distances.min(axis=0, initial=np.inf))
