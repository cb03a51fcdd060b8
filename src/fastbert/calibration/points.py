"""Operating points: what any thresholds give on rows whose exits were recorded."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.goal import Goal, Metric
from fastbert.calibration.path import exit_layers_at
from fastbert.exits.criteria import Measure, ThresholdCriterion, log_softmax
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES
from fastbert.exits.recorded import RecordedExits, doubts_of
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import macro_f1


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds, and what they gave on the calibration rows.

    Args:
        criterion: The exit rule, as `predict(texts, speed=...)` takes it.
        accuracy: Share of rows answered right; None without labels.
        macro_f1: F1 averaged over the classes; None without labels.
        agreement: Share of rows answered like the full model.
        expected_drop: Share of rows answered worse than by the full model, less those answered
            better, if classes are as likely as the full model says.
        mean_exit_layer: Encoder layers a row ran on average.
        flops: Mean of a row's FLOPs, true count.
        speedup_flops: FLOPs of the full model without students over those spent.
        latency_ms: Mean time of one text on its own; None if times were not measured.
        exit_layers: How many rows left after each layer, the first one first.
        goal: What was asked for, if this point was chosen for something.
    """

    criterion: ThresholdCriterion
    accuracy: float | None
    macro_f1: float | None
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

    def quality(self, metric: Metric) -> float:
        """Return one of the figures of quality; all but agreement need labels."""
        figures = {"accuracy": self.accuracy, "f1": self.macro_f1, "agreement": self.agreement}
        value = figures[metric]
        assert value is not None, f"{metric} without labels"
        return value


@dataclass(frozen=True)
class AnsweredRows:
    """All exits' answers on some rows, and what they say about any thresholds.

    Args:
        recorded: The logits of every exit.
        truth: The class of each row; None where nobody labelled them.
        lengths: Tokens of each row, special tokens included.
        shape: The widths of the model, which decide what a layer and a student cost.
        measure: How doubtful an answer is; `DEFAULT_MEASURE` if none is given.
        times: How long the parts of the model take, where it was measured.
    """

    recorded: RecordedExits
    truth: Int[np.ndarray, " rows"] | None
    lengths: Int[np.ndarray, " rows"]
    shape: ModelShape
    measure: Measure = field(default_factory=MEASURES[DEFAULT_MEASURE])
    times: PartTimes | None = None

    @cached_property
    def doubts(self) -> Float[np.ndarray, "students rows"]:
        """How doubtful each student's answer to each row is."""
        return doubts_of(self.measure, self.recorded)

    @cached_property
    def answers(self) -> Int[np.ndarray, "exits rows"]:
        """The class that each exit answers."""
        return np.asarray(self.recorded.recorded.argmax(axis=-1))

    @cached_property
    def expected_losses(self) -> Float[np.ndarray, "exits rows"]:
        """How likely each answer is wrong, if classes are as likely as the teacher says."""
        teacher = np.exp(log_softmax(self.recorded.recorded[-1]))
        return np.asarray(1 - teacher[np.arange(len(teacher)), self.answers])

    def point(self, thresholds: Float[np.ndarray, " students"]) -> OperatingPoint:
        """Return what thresholds give on these rows."""
        criterion = ThresholdCriterion(self.measure, tuple(map(float, thresholds)))
        exit_layers = exit_layers_at(self.doubts, thresholds)
        given = exit_layers - 1, np.arange(len(exit_layers))
        answers, losses = self.answers[given], self.expected_losses[given]
        layers = self.shape.num_layers
        watched = [layer for layer in range(1, layers) if criterion.watches(layer)]
        asked = self.shape.students_asked(exit_layers, watched)
        flops = float(self.shape.row_flops(exit_layers, self.lengths, asked).mean())
        return OperatingPoint(
            criterion=criterion,
            accuracy=None if self.truth is None else float((answers == self.truth).mean()),
            macro_f1=None if self.truth is None else macro_f1(answers, self.truth),
            agreement=float((answers == self.answers[-1]).mean()),
            expected_drop=float((losses - self.expected_losses[-1]).mean(dtype=np.float64)),
            mean_exit_layer=float(exit_layers.mean()),
            flops=flops,
            speedup_flops=float(self.shape.full_flops(self.lengths).mean()) / flops,
            latency_ms=self._latency_ms(exit_layers, asked),
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
