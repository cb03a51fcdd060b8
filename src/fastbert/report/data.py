"""What a report is about: the model, its task, and what every exit answered about some rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import ExitResult
from fastbert.exits.recorded import RecordedExits
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import judged_by, mean_metric, spelled
from fastbert.tasks.task import Decisions, Metric, Task


@dataclass(frozen=True)
class ReportData:
    """What a report is about, in plain values.

    Args:
        name: What the model is called.
        task: What it answers.
        num_layers: Encoder layers; the exit after the last one is the teacher.
        recorded: What every exit answered about every row.
        truth: The right answer to each row, as a number; None if nobody knows, and then accuracy
            is agreement with the teacher.
        lengths: Tokens of each row.
        shape: What decides the FLOPs.
        texts: The rows as text, for the examples; None where only the record is at hand.
        points: The operating points calibration chose: thresholds, the columns of the task's
            metrics, agreement, mean_exit_layer, speedup_flops.
        calibration: What to print about the calibration.
        guarantees: Promises: max_drop, metric, confidence, and either mean_exit_layer,
            speedup_flops and thresholds, or why it was `refused`.
        timings: Measured runs: speed, seconds, rows_per_second, the columns of the task's metrics,
            speedup_flops.
        history: Training curves by epoch, under "teacher" and "students".
        facts: Machine and versions.
        criterion_name: The criterion of the calibrated points.
        doubts: Its doubt about each row at each student, 0 certain.
        truth_from: The name of another model whose answers the truth is; None where it is labels.

    Raises:
        ValueError: The parts do not belong to one model and one set of rows.
    """

    name: str
    task: Task
    num_layers: int
    recorded: RecordedExits
    truth: Decisions | None
    lengths: Int[np.ndarray, " rows"]
    shape: ModelShape
    texts: Sequence[str] | None = None
    points: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Any] | None = None
    guarantees: Sequence[Mapping[str, Any]] = ()
    timings: Sequence[Mapping[str, Any]] = ()
    history: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    criterion_name: str = "uncertainty"
    doubts: Float[np.ndarray, "students rows"] | None = None
    truth_from: str | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        exits, rows, classes = self.recorded.recorded.shape
        if rows < 1:
            raise ValueError("a report needs at least one row, got none")
        found: dict[str, tuple[Any, Any]] = {
            "exits (one for each of num_layers)": (self.num_layers, exits),
            "labels (one for each class)": (self.task.outputs, classes),
            "lengths (one for each row)": (len(self.lengths), rows),
        }
        if self.truth is not None:
            found["truth (one for each row)"] = (len(self.truth), rows)
        if self.texts is not None:
            found["texts (one for each row)"] = (len(self.texts), rows)
        if self.doubts is not None:
            found["doubts (students, rows)"] = (self.doubts.shape, (exits - 1, rows))
        for what, (got, expected) in found.items():
            if got != expected:
                raise ValueError(f"{what} must match the recorded logits, {expected}, got {got}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's outputs."""
        return self.task.labels

    @property
    def rows(self) -> int:
        """How many rows were recorded."""
        return len(self.lengths)

    @property
    def labelled(self) -> bool:
        """Whether people say what is right, and no model."""
        return self.truth is not None and self.truth_from is None

    @property
    def metric(self) -> Metric:
        """By what answers are judged."""
        return judged_by(self.task, labelled=self.labelled)

    @property
    def row_metric(self) -> Metric:
        """By what the answers to some of the rows are judged, as a mean over them."""
        return mean_metric(self.task)

    @property
    def quality(self) -> str:
        """What the answers' worth has to be called."""
        return self.named(self.metric)

    def named(self, metric: Metric) -> str:
        """Return what a metric has to be called, in words."""
        if self.truth_from is not None:
            return f"agreement with {self.truth_from}"
        return spelled(metric.column) if self.labelled else "agreement with the teacher"

    def column(self, metric: Metric) -> str:
        """Return what the column of a metric has to be called."""
        return metric.column if self.labelled else "agreement"

    @cached_property
    def answers(self) -> Decisions:
        """What each exit answers, as numbers."""
        return self.task.decide(self.recorded.recorded)

    @cached_property
    def expected(self) -> Decisions:
        """The right answer or, where nobody knows it, the teacher's."""
        return self.answers[-1] if self.truth is None else self.truth

    @cached_property
    def uncertainties(self) -> Float[np.ndarray, "exits rows"]:
        """The uncertainty of each exit about each row, of which a speed is the threshold."""
        return np.stack(
            [
                self.task.uncertainty.doubt(logits[np.newaxis], layer)
                for layer, logits in enumerate(self.recorded.recorded, start=1)
            ]
        )

    def speed_criterion(self, speed: float) -> EntropyCriterion:
        """Return the paper's criterion with the uncertainty of the task."""
        return EntropyCriterion(speed, self.task.uncertainty)

    def at_speed(self, speed: float) -> ExitResult:
        """Return what the rows are answered at a speed of the paper's criterion."""
        return self.recorded.replay(self.speed_criterion(speed))
