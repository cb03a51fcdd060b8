"""The adaptive loop: run to an exit, ask it, let the certain rows leave, go on with the rest.

One `step` serves every runtime. A backend knows how to run layers for some rows; a criterion
knows who may leave; `step` knows neither. What has left is never computed again, and a row's
answer never depends on the other rows of its batch.

Nor does it depend on the other requests of a step. Rows at the same layer may be merged, whatever
their criteria: what was seen is kept for each request, and one that does not watch an exit does
not hear what it answered. `classify` takes one request to its end; a server merges many.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.exits.alone import RunsAlone, answer_alone
from fastbert.exits.criteria import ExitCriterion, Seen, ThresholdCriterion, watched_exits

State = TypeVar("State")
Batch = TypeVar("Batch", bound=Sized, contravariant=True)


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

    def merge(self, states: Sequence[State]) -> State:
        """Return one state with the rows of all these, one after another.

        All have run the same number of layers; the shorter ones are padded to the longest.
        """
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


@dataclass(frozen=True, eq=False)
class Request:
    """Rows that came together, and by which rule they leave. No two are equal, so it is a key.

    Args:
        criterion: Who may leave.
        exits: The layers before the exits that are asked for it, the teacher's last.
    """

    criterion: ExitCriterion
    exits: tuple[int, ...]

    def next_exit(self, exit_layer: int) -> int:
        """Return the first of its exits after a layer."""
        return next(layer for layer in self.exits if layer > exit_layer)


@dataclass(frozen=True)
class Part:
    """The rows of one request that still run.

    Args:
        request: What they belong to.
        rows: Their numbers in it, rising.
        seen: What the exits that it watches have answered.
    """

    request: Request
    rows: Int[np.ndarray, " rows"]
    seen: Seen

    def hear(self, exit_layer: int, logits: Float[np.ndarray, "rows classes"]) -> "Part":
        """Return the part once an exit has answered, which it ignores unless it watches it."""
        if exit_layer not in self.request.exits:
            return self
        return Part(self.request, self.rows, self.seen.then(exit_layer, self.rows, logits))

    def leaving(self, exit_layer: int) -> Bool[np.ndarray, " rows"]:
        """Return which rows leave at the exit that was just heard: the teacher lets all go."""
        if exit_layer == self.request.exits[-1]:
            return np.ones(len(self.rows), bool)
        if exit_layer not in self.request.exits:
            return np.zeros(len(self.rows), bool)
        return self.request.criterion.leaves(self.seen)


@dataclass(frozen=True)
class RunningRows(Generic[State]):
    """Rows that have run the same number of layers, of one request or of many.

    Args:
        exit_layer: How many layers they ran.
        state: What the backend has of them.
        parts: The rows by request, in the order in which they lie in the state.
    """

    exit_layer: int
    state: State
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Answered:
    """What the rows of a request that left at an exit were answered; it may be none.

    Args:
        request: What they belong to.
        rows: Their numbers in it.
        logits: What the exit answered.
        exit_layer: How many encoder layers they ran, counted from 1.
    """

    request: Request
    rows: Int[np.ndarray, " left"]
    logits: Float[np.ndarray, "left classes"]
    exit_layer: int


def classify(
    backend: ExitBackend[State, Batch], batch: Batch, criterion: ExitCriterion
) -> ExitResult:
    """Classify a batch, each row at the first exit that is certain enough about it.

    The criterion sees the logits of the watched exits so far; the teacher answers every row that
    is still there after the last layer. One row alone takes one call where the backend can do that.

    Raises:
        ValueError: The criterion has thresholds for another number of students.

    Source: Section 3.3, "Adaptive inference", of Liu et al., FastBERT (ACL 2020).
    """
    if len(batch) == 1 and isinstance(backend, RunsAlone):
        alone = answer_alone(backend, batch, criterion)
        if alone is not None:
            logits, exit_layer = alone
            return ExitResult(logits, np.array([exit_layer]))
    return classify_in_steps(backend, batch, criterion)


def classify_in_steps(
    backend: ExitBackend[State, Batch], batch: Batch, criterion: ExitCriterion
) -> ExitResult:
    """Classify a batch from exit to exit, also where it is one row that could run alone.

    Raises:
        ValueError: The criterion has thresholds for another number of students.
    """
    running: RunningRows[State] | None = begin(backend, batch, criterion)
    answers: list[Answered] = []
    while running is not None:
        running, answered = step(backend, running)
        answers += answered
    return in_order(answers)


def begin(
    backend: ExitBackend[State, Batch], batch: Batch, criterion: ExitCriterion
) -> RunningRows[State]:
    """Return the rows of a request before the first layer.

    Raises:
        ValueError: The criterion has thresholds for another number of students.
    """
    if isinstance(criterion, ThresholdCriterion):
        criterion.refuse_other_depth(backend.num_exits)
    exits = (*watched_exits(criterion, backend.num_exits), backend.num_exits)
    part = Part(Request(criterion, exits), np.arange(len(batch)), Seen())
    return RunningRows(0, backend.start(batch), (part,))


def step(
    backend: ExitBackend[State, Batch], running: RunningRows[State]
) -> tuple[RunningRows[State] | None, list[Answered]]:
    """Run to the nearest exit that any request watches, and let go who may leave there.

    Returns:
        Who goes on, None if nobody does, and what those who left were answered: one for each
        request, or none at all if nobody left.
    """
    exit_layer = min(part.request.next_exit(running.exit_layer) for part in running.parts)
    state, logits = backend.advance(running.state, exit_layer)
    each = list(_by_part(running.parts, logits))
    parts = [part.hear(exit_layer, own) for part, own in each]
    leaving = [part.leaving(exit_layer) for part in parts]
    left = leaving[0] if len(leaving) == 1 else np.concatenate(leaving)
    if len(left) and not left.any():
        return RunningRows(exit_layer, state, tuple(parts)), []
    answered = [
        Answered(part.request, part.rows[gone], own[gone], exit_layer)
        for (part, own), gone in zip(each, leaving, strict=True)
    ]
    if left.all():
        return None, answered
    state = backend.keep(state, np.flatnonzero(~left))
    staying = tuple(
        replace(part, rows=part.rows[~gone])
        for part, gone in zip(parts, leaving, strict=True)
        if not gone.all()
    )
    return RunningRows(exit_layer, state, staying), answered


def merge(
    backend: ExitBackend[State, Batch], running: Sequence[RunningRows[State]]
) -> RunningRows[State]:
    """Return rows that have run the same number of layers as one, so that they share steps.

    Raises:
        ValueError: They have run different numbers of layers.
    """
    layers = [rows.exit_layer for rows in running]
    if len(set(layers)) != 1:
        raise ValueError(f"rows must have run the same number of layers to be merged, got {layers}")
    state = backend.merge([rows.state for rows in running])
    return RunningRows(layers[0], state, tuple(part for rows in running for part in rows.parts))


def in_order(answers: Sequence[Answered]) -> ExitResult:
    """Put the answers of a request, grouped by exit, back into the order of its rows."""
    order = np.argsort(np.concatenate([answer.rows for answer in answers]))
    logits = np.concatenate([answer.logits for answer in answers])
    layers = [np.full(len(answer.rows), answer.exit_layer) for answer in answers]
    return ExitResult(logits[order], np.concatenate(layers)[order])


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


def _by_part(
    parts: Sequence[Part], logits: Float[np.ndarray, "rows classes"]
) -> Iterator[tuple[Part, Float[np.ndarray, "own classes"]]]:
    """Yield each part with what was answered about its rows."""
    start = 0
    for part in parts:
        end = start + len(part.rows)
        yield part, logits[start:end]
        start = end
