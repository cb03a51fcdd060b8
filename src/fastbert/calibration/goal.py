"""The goal that a speed is chosen for."""

from dataclasses import dataclass, fields
from math import inf
from typing import Literal, TypedDict, get_args

Metric = Literal["accuracy", "f1", "micro-f1", "row-f1", "agreement"]
AGREEMENT = "agreement"  # with the full model: the metric that needs no labels

NO_MEANS = ("f1", "micro-f1")  # over texts, so nothing can be promised of them

DEFAULT_MAX_DROP = 0.005


class GoalOptions(TypedDict, total=False):
    """What may be asked for, as arguments of `speed_for`, `predict` and the like; see `Goal`."""

    max_drop: float
    metric: Metric
    confidence: float
    min_speedup: float
    max_mean_layers: float
    max_flops: float
    latency_ms: float
    saving: float


@dataclass(frozen=True)
class Goal:
    """What the speed shall reach: exactly one of these, on texts like the calibration's.

    Args:
        max_drop: At most so much worse than the full model, as a share: 0.005 is half a point.
            With few rows more is asked of them than that, so that it holds on other texts too.
        metric: Of what: accuracy or, of several labels, micro-f1 or row-f1; f1, which is the mean
            over the labels; or agreement with the full model's answers, which needs no labels. By
            default the first that the task has, with a confidence the first that is a mean over
            texts, and without labels agreement.
        confidence: With `max_drop`, the probability that it holds for unseen texts, such as 0.95;
            without it nothing is promised.
        min_speedup: At least so many times fewer FLOPs than the full model.
        max_mean_layers: At most so many encoder layers on average.
        max_flops: At most so many FLOPs a text on average.
        latency_ms: At most so many milliseconds a text on average, one at a time, by the times
            that were measured when calibrating.
        saving: From 0 (every layer) to 1 (the fastest there is): such a share of the layers
            that can be saved.

    Raises:
        ValueError: There is not exactly one goal, or a value is out of range.
    """

    max_drop: float | None = None
    metric: Metric | None = None
    confidence: float | None = None
    min_speedup: float | None = None
    max_mean_layers: float | None = None
    max_flops: float | None = None
    latency_ms: float | None = None
    saving: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no goal."""
        aims = self._aims
        if len(aims) != 1:
            given = " and ".join(aims) or "none"
            raise ValueError(f"a goal is exactly one of {', '.join(AIMS)}; got {given}")
        if self.metric not in (None, *get_args(Metric)):
            raise ValueError(f"metric must be one of {get_args(Metric)}, got {self.metric!r}")
        for name in ("metric", "confidence"):
            if getattr(self, name) is not None and self.max_drop is None:
                raise ValueError(f"{name} goes with max_drop, not with {aims[0]}")
        if self.confidence is not None and self.metric in NO_MEANS:
            raise ValueError(
                f"confidence goes with {' or '.join(_means())}; {self.metric} is no mean over texts"
            )
        for name in ("max_drop", "confidence", "saving"):
            _check_range(name, getattr(self, name), 1.0)
        for name in ("min_speedup", "max_mean_layers", "max_flops", "latency_ms"):
            _check_range(name, getattr(self, name), inf)
        if self.confidence is not None and not (0 < self.confidence < 1 and self.max_drop):
            raise ValueError("confidence must lie between 0 and 1, and max_drop be more than 0")

    @property
    def aim(self) -> tuple[str, float]:
        """The one thing asked for, and how much of it."""
        [name] = self._aims
        return name, getattr(self, name)

    @property
    def _aims(self) -> list[str]:
        return [name for name in AIMS if getattr(self, name) is not None]

    def as_dict(self) -> dict[str, float | str]:
        """Return what was given, by name."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


AIMS = ("max_drop", "min_speedup", "max_mean_layers", "max_flops", "latency_ms", "saving")


def _check_range(name: str, value: float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:
        raise ValueError(f"{name} must lie between 0 and {high:g}, got {value}")


DEFAULT_GOAL = Goal(max_drop=DEFAULT_MAX_DROP)  # where nobody asks for another


def _means() -> list[str]:
    return [metric for metric in get_args(Metric) if metric not in NO_MEANS]
