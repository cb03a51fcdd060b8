"""What a calibration is made with: the measure of doubt, fitted or not, and the right answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from fastbert.errors import CalibrationError
from fastbert.exits.criteria import Measure
from fastbert.exits.measures import MEASURES
from fastbert.exits.recorded import RecordedExits
from fastbert.extras import needs_extra
from fastbert.tasks.task import Decisions, Task

FITTING_SHARE = 0.5  # of the calibration rows, for a measure that has to be fitted

Chosen = tuple[Measure, Bool[np.ndarray, " rows"] | None]
"""A measure, and which rows it was fitted on; None for no fit."""


def measure_to_calibrate(
    measure: Measure | str | None, task: Task
) -> Callable[[RecordedExits], Chosen]:
    """Return how to come from recorded answers to the measure, before the model runs for minutes.

    Args:
        measure: A measure of doubt, or the name of one in `MEASURES`; None for the task's default.
        task: What the model answers.

    Raises:
        MissingExtraError: A learned measure is fitted by scikit-learn.
        ValueError: The measure is unknown, or makes no sense of what the model answers.
    """
    if not isinstance(measure, str):
        return lambda _recorded: (measure or task.default_measure, None)
    if measure not in task.measures:
        raise ValueError(
            f"measure must be one of {', '.join(task.measures)} for {task.name}, got {measure!r}"
        )
    if measure != "learned":
        return lambda _recorded: (MEASURES[measure](), None)
    with needs_extra("train", "fitting a learned measure"):
        from fastbert.calibration.learned import fit_learned_exit

    def fitted_on_a_share(recorded: RecordedExits) -> Chosen:
        fitted = np.random.default_rng(0).random(recorded.num_rows) < FITTING_SHARE
        return fit_learned_exit(RecordedExits(recorded.recorded[:, fitted]), task), fitted

    return fitted_on_a_share


def complete_truth(task: Task, targets: Sequence[Any], rows: int) -> Decisions:
    """Return the right answers as numbers.

    Raises:
        CalibrationError: There is a label of which nothing is known without a row of it.
        ValueError: There is not one for each row, or one is not among the model's.
    """
    if len(targets) != rows:
        raise ValueError(f"got {rows} texts and {len(targets)} labels")
    truth = task.array(targets)
    if missing := task.unseen(targets):
        raise CalibrationError(
            f"{len(missing)} of {len(task.labels)} classes have no row, such as {missing[0]}; "
            "add rows of every class, or calibrate without labels"
        )
    return truth
