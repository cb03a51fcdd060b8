"""From a classifier and texts to the numbers of a report."""

import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbert.calibration.goal import Goal
from fastbert.calibration.points import AnsweredRows, OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import CalibrationError, DataError
from fastbert.evaluation import evaluate
from fastbert.exits.measures import measure_to_json
from fastbert.folder.calibration import record_facts
from fastbert.report.data import ReportData
from fastbert.tasks.metrics import mean_metric
from fastbert.tasks.task import Task

SHOWN_GOALS = (
    Goal(max_drop=0.0),
    Goal(max_drop=0.005),
    Goal(max_drop=0.01),
    Goal(max_drop=0.02),
    Goal(saving=0.5),
    Goal(saving=0.75),
)
PROMISES = ((0.01, 0.95), (0.02, 0.95), (0.05, 0.95))  # largest drop, confidence
TIMED_SPEEDS = (0.0, 0.1, 0.3, 0.5, 0.8, 1.0)


def collect(
    classifier: FastBertClassifier, name: str, examples: Sequence[Example] | None = None
) -> ReportData:
    """Gather what a report says.

    Args:
        classifier: What it is about.
        name: What to call it.
        examples: The texts it is measured on; if one has no label, none is looked at. Without texts
            the calibration's rows serve, and nothing is timed.

    Raises:
        DataError: There are neither texts nor a calibration.
    """
    record = classifier.config.calibration
    calibration = classifier.calibration if record else None
    rows, texts = _rows(classifier, examples, calibration)
    labelled = rows.truth is not None
    return ReportData(
        name=name,
        task=classifier.config.task,
        num_layers=classifier.num_layers,
        recorded=rows.recorded,
        truth=rows.truth,
        lengths=rows.lengths,
        shape=rows.shape,
        texts=texts,
        points=[] if calibration is None else _points(calibration, rows),
        calibration=record and record_facts(record),
        guarantees=[] if calibration is None else _promises(calibration),
        timings=_timings(classifier, examples) if examples and labelled else [],
        history=_history(classifier),
        facts=_facts(classifier),
        criterion_name="" if calibration is None else measure_to_json(rows.measure)["name"],
        doubts=None if calibration is None else rows.doubts,
        truth_from=rows.truth_from,
    )


def _rows(
    classifier: FastBertClassifier,
    examples: Sequence[Example] | None,
    calibration: Calibration | None,
) -> tuple[AnsweredRows, list[str] | None]:
    """Return what the exits answered, and the texts if they are at hand."""
    if examples is None:
        if calibration is None:
            raise DataError(
                f"{classifier.folder.path}: is not calibrated, so a report needs texts: --data FILE"
            )
        return calibration, None
    contents = [example.content for example in examples]
    tokens = classifier.encode(contents)
    task = classifier.config.task
    rows = AnsweredRows(
        classifier.record_tokens(tokens),
        _truth(classifier, examples),
        np.array([len(row.ids) for row in tokens]),
        classifier.folder.shape,
        task,
        task.default_measure if calibration is None else calibration.measure,
    )
    return rows, [_shown(content) for content in contents]


def _truth(classifier: FastBertClassifier, examples: Sequence[Example]) -> np.ndarray | None:
    labels = [example.label for example in examples]
    if None in labels:
        return None
    classifier.config.task.check(examples)
    return classifier.config.task.array(labels)


def _shown(content: str | tuple[str, str]) -> str:
    return content if isinstance(content, str) else " | ".join(content)


def _points(calibration: Calibration, rows: AnsweredRows) -> list[dict[str, Any]]:
    """Return what the calibration's thresholds for some goals give on the rows."""
    points = []
    for goal in SHOWN_GOALS:
        chosen = calibration.solve(goal)
        thresholds = np.array(chosen.thresholds, calibration.doubts.dtype)
        points.append({"goal": goal.as_dict()} | _figures(rows.task, rows.point(thresholds)))
    return points


def _figures(task: Task, point: OperatingPoint) -> dict[str, Any]:
    unlabelled = {mean_metric(task).column: point.agreement}
    worth = point.metrics or unlabelled
    return {
        "thresholds": list(point.thresholds),
        **{metric.column: worth.get(metric.column) for metric in task.metrics.values()},
        "agreement": point.agreement,
        "mean_exit_layer": point.mean_exit_layer,
        "speedup_flops": point.speedup_flops,
    }


def _promises(calibration: Calibration) -> list[dict[str, Any]]:
    """Return what can be promised for each of `PROMISES`, or why it cannot."""
    is_agreement = calibration.truth is None or calibration.truth_from is not None
    metric = "agreement" if is_agreement else mean_metric(calibration.task).column
    promises = []
    for max_drop, confidence in PROMISES:
        asked = {"max_drop": max_drop, "metric": metric, "confidence": confidence}
        try:
            point = calibration.solve(Goal(max_drop=max_drop, confidence=confidence))
        except CalibrationError as error:
            promises.append(asked | {"refused": str(error)})
        else:
            shown = ("mean_exit_layer", "speedup_flops", "thresholds")
            promises.append(asked | {name: getattr(point, name) for name in shown})
    return promises


def _timings(classifier: FastBertClassifier, examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [row.as_dict() for row in evaluate(classifier, examples, TIMED_SPEEDS)]


def _history(classifier: FastBertClassifier) -> dict[str, list[dict[str, float]]]:
    """Return the training curves; of the students, with the FLOPs that the paper's figure shows."""
    history: dict[str, list[dict[str, float]]] = classifier.config.training.get("history", {})
    first, *_ = classifier.config.task.metrics
    shape = classifier.folder.shape
    layer = shape.paper_layer_flops + shape.paper_head_flops

    def told(epoch: dict[str, float]) -> dict[str, float]:
        epoch = {"loss": epoch["dev_loss"], **epoch}
        if "mean_exit_layer" not in epoch:
            return epoch
        return {
            first: epoch["agreement"],  # where there are no labels
            **epoch,
            "speedup_flops": shape.paper_full_flops / (epoch["mean_exit_layer"] * layer),
        }

    return {stage: list(map(told, epochs)) for stage, epochs in history.items()}


def _facts(classifier: FastBertClassifier) -> dict[str, str]:
    """Return the machine that makes the report, and the packages that wrote the model."""
    versions = classifier.config.versions
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        **{f"{package} (of the model)": number for package, number in versions.items()},
    }
