"""Operating points: what any thresholds give on rows whose exits were recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.goal import Goal
from fastbert.calibration.path import exit_layers_at
from fastbert.exits.criteria import Measure, ThresholdCriterion, watched_exits
from fastbert.exits.recorded import RecordedExits, doubts_of
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import Scored, agreement, scores
from fastbert.tasks.task import Decisions, Task


@dataclass(frozen=True)
class OperatingPoint(Scored):
    """Thresholds, and what they gave on the calibration rows.

    Args:
        criterion: The exit rule, as `predict(texts, speed=...)` takes it.
        metrics: What the answers are worth, by the names of the task's metrics; none without
            labels.
        agreement: How far the answers are those of the full model, from 0 to 1.
        expected_drop: How much worse the answers are than the full model's, if the truth is as
            likely as that says.
        mean_exit_layer: Encoder layers a row ran on average.
        flops: Mean of a row's FLOPs, true count.
        speedup_flops: FLOPs of the full model without students over those spent.
        latency_ms: Mean time of one text on its own; None if times were not measured.
        exit_layers: How many rows left after each layer, the first one first.
        goal: What was asked for, if this point was chosen for something.
    """

    criterion: ThresholdCriterion
    metrics: Mapping[str, float]
    agreement: float
    expected_drop: float
    mean_exit_layer: float
    flops: float
    speedup_flops: float
    latency_ms: float | None
    exit_layers: tuple[int, ...]
    goal: Goal | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each student; 0 where it is not asked."""
        return self.criterion.thresholds


@dataclass(frozen=True)
class AnsweredRows:
    """All exits' answers on some rows, and what they say about any thresholds.

    Args:
        recorded: The logits of every exit.
        truth: The right answer to each row, as a number; None where nobody labelled them.
        lengths: Tokens of each row, special tokens included.
        shape: The widths of the model, which decide what a layer and a student cost.
        task: What is answered.
        measure: How doubtful an answer is.
        times: How long the parts of the model take, where it was measured.
        truth_from: The name of another model whose answers the truth is; None where it is labels.
    """

    recorded: RecordedExits
    truth: Decisions | None
    lengths: Int[np.ndarray, " rows"]
    shape: ModelShape
    task: Task
    measure: Measure
    times: PartTimes | None = None
    truth_from: str | None = None

    @cached_property
    def doubts(self) -> Float[np.ndarray, "students rows"]:
        """How doubtful each student's answer to each row is."""
        return doubts_of(self.measure, self.recorded)

    @cached_property
    def answers(self) -> Decisions:
        """What each exit answers about each row, as numbers."""
        return self.task.decide(self.recorded.recorded)

    @cached_property
    def expected_losses(self) -> Float[np.ndarray, "exits rows"]:
        """How wrong each answer is if the truth is as likely as the teacher says."""
        logits = self.recorded.recorded
        return self.task.expected_losses(logits, logits[-1])

    def point(self, thresholds: Float[np.ndarray, " students"]) -> OperatingPoint:
        """Return what thresholds give on these rows."""
        criterion = ThresholdCriterion(self.measure, tuple(map(float, thresholds)))
        exit_layers = exit_layers_at(self.doubts, thresholds)
        given = exit_layers - 1, np.arange(len(exit_layers))
        answers, losses = self.answers[given], self.expected_losses[given]
        layers = self.shape.num_layers
        watched = watched_exits(criterion, layers)
        flops = float(self.shape.row_flops(exit_layers, self.lengths, watched).mean())
        return OperatingPoint(
            criterion=criterion,
            metrics={} if self.truth is None else scores(self.task, answers, self.truth),
            agreement=agreement(self.task, answers, self.answers[-1]),
            expected_drop=float((losses - self.expected_losses[-1]).mean(dtype=np.float64)),
            mean_exit_layer=float(exit_layers.mean()),
            flops=flops,
            speedup_flops=float(self.shape.full_flops(self.lengths).mean()) / flops,
            latency_ms=self._latency_ms(
                exit_layers, self.shape.students_asked(exit_layers, watched)
            ),
            exit_layers=tuple(np.bincount(exit_layers, minlength=layers + 1)[1:].tolist()),
        )

    def _latency_ms(
        self, exit_layers: Int[np.ndarray, " rows"], asked: Int[np.ndarray, " rows"]
    ) -> float | None:
        if self.times is None:
            return None
        by_teacher = float((exit_layers == self.shape.num_layers).mean())
        return (
            self.times.start
            + float(exit_layers.mean()) * self.times.layer
            + float(asked.mean()) * self.times.student
            + by_teacher * self.times.teacher
        )
