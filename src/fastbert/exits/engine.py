"""The adaptive loop: run to an exit, ask it, let the certain rows leave, go on with the rest.

One loop serves every runtime. A backend knows how to run layers for some rows; a criterion
knows who may leave; `classify` knows neither. What has left is never computed again, and a
row's answer never depends on the other rows of its batch.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.criteria import ExitCriterion, ThresholdCriterion

State = TypeVar("State")
Batch = TypeVar("Batch", contravariant=True)


@runtime_checkable
class ExitBackend(Protocol[State, Batch]):
    """Runs an encoder from exit to exit. `State` is what travels between the layers."""

    @property
    def num_exits(self) -> int:
        """The number of encoder layers; the last exit is the teacher."""
        ...

    def start(self, batch: Batch) -> State:
        """Embed a batch: the state before the first layer."""
        ...

    def advance(
        self, state: State, exit_layer: int
    ) -> tuple[State, Float[np.ndarray, "rows classes"]]:
        """Run all rows through the layers up to `exit_layer`, and ask the exit after it.

        One call, so that a runtime may compute layers and exit in one piece. No exit on the way
        is asked; the last one is the teacher.
        """
        ...

    def keep(self, state: State, rows: Int[np.ndarray, " rows"]) -> State:
        """Return the state of the named rows only, in that order."""
        ...


@dataclass(frozen=True)
class ExitResult:
    """What a batch was answered.

    Args:
        logits: The answer of the exit at which each row left.
        exit_layer: How many encoder layers each row ran, counted from 1.
    """

    logits: Float[np.ndarray, "rows classes"]
    exit_layer: Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class _Answer:
    """What the rows that left at one exit were answered."""

    rows: Int[np.ndarray, " left"]
    logits: Float[np.ndarray, "left classes"]
    exit_layer: int


def classify(
    backend: ExitBackend[State, Batch], batch: Batch, criterion: ExitCriterion
) -> ExitResult:
    """Classify a batch, each row at the first exit that is certain enough about it.

    The criterion sees the logits of the watched exits so far; the teacher answers every row that
    is still there after the last layer.

    Raises:
        ValueError: The criterion has thresholds for another number of students.

    Source: Section 3.3, "Adaptive inference", of Liu et al., FastBERT (ACL 2020).
    """
    if isinstance(criterion, ThresholdCriterion):
        criterion.refuse_other_depth(backend.num_exits)
    state = backend.start(batch)
    answers: list[_Answer] = []
    running: np.ndarray | None = None  # which rows; unknown until the first exit answers
    history = np.empty((0, 0, 0))  # [exits, running, classes], of which `asked` are filled
    asked = 0

    watched = [layer for layer in range(1, backend.num_exits) if criterion.watches(layer)]
    for exit_layer in (*watched, backend.num_exits):
        state, logits = backend.advance(state, exit_layer)
        if running is None:
            running = np.arange(len(logits))
            history = np.empty((len(watched), *logits.shape), logits.dtype)
        if exit_layer == backend.num_exits:
            answers.append(_Answer(running, logits, exit_layer))
            break
        history[asked] = logits
        asked += 1
        leaving = criterion.leaves(history[:asked])
        if not leaving.any():
            continue
        answers.append(_Answer(running[leaving], logits[leaving], exit_layer))
        if leaving.all():
            break
        staying = np.flatnonzero(~leaving)
        state = backend.keep(state, staying)
        running, history = running[staying], history[:, staying]

    return _in_order(answers)


def record(
    backend: ExitBackend[State, Batch], batch: Batch
) -> Float[np.ndarray, "exits rows classes"]:
    """Run a batch through every layer and return what every exit answers about every row."""
    state = backend.start(batch)
    answers = []
    for exit_layer in range(1, backend.num_exits + 1):
        state, logits = backend.advance(state, exit_layer)
        answers.append(logits)
    return np.stack(answers)


def _in_order(answers: list[_Answer]) -> ExitResult:
    """Put the answers, grouped by exit, back into the order of the batch."""
    order = np.argsort(np.concatenate([answer.rows for answer in answers]))
    logits = np.concatenate([answer.logits for answer in answers])
    layers = [np.full(len(answer.rows), answer.exit_layer) for answer in answers]
    return ExitResult(logits[order], np.concatenate(layers)[order])
