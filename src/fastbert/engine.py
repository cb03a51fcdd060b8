"""The adaptive loop: run a layer, ask its exit, let the certain rows leave, go on with the rest.

One loop serves every runtime. A backend knows how to run one layer for some rows; a criterion
knows who may leave; `classify` knows neither. What has left is never computed again, and a
row's answer never depends on the other rows of its batch.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from fastbert.criteria import ExitCriterion

State = TypeVar("State")
Batch = TypeVar("Batch", bound=Sized, contravariant=True)


@runtime_checkable
class ExitBackend(Protocol[State, Batch]):
    """Runs an encoder layer by layer. `State` is what travels between the layers."""

    @property
    def num_exits(self) -> int:
        """The number of encoder layers; the last exit is the teacher."""
        ...

    def start(self, batch: Batch) -> State:
        """Embed a batch: the state before the first layer."""
        ...

    def advance(self, state: State) -> State:
        """Run the next layer for all rows of the state."""
        ...

    def logits(self, state: State) -> Float[np.ndarray, "rows classes"]:
        """Ask the exit after the layer that ran last: a student, or the teacher at the end."""
        ...

    def keep(self, state: State, rows: Int[np.ndarray, " rows"]) -> State:
        """Return the state of the named rows only, in that order."""
        ...

    def merge(self, states: Sequence[State]) -> State:
        """Return one state of the rows of all states, which have run the same layers."""
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


@dataclass(frozen=True)
class _Running(Generic[State]):
    """Rows that are computed together: their numbers, and what the watched exits said so far."""

    state: State
    rows: Int[np.ndarray, " rows"]
    history: Float[np.ndarray, "exits rows classes"]


def classify(
    backend: ExitBackend[State, Batch], batch: Batch, criterion: ExitCriterion
) -> ExitResult:
    """Classify a batch, each row at the first exit that is certain enough about it.

    The criterion sees the logits of the watched exits so far; the teacher answers every row that
    is still there after the last layer.

    Source: Section 3.3, "Adaptive inference", of Liu et al., FastBERT (ACL 2020).
    """
    return classify_together(backend, [batch], criterion)


def classify_together(
    backend: ExitBackend[State, Batch],
    batches: Sequence[Batch],
    criterion: ExitCriterion,
    max_rows: int = 0,
) -> ExitResult:
    """Classify several batches layer by layer, merging those that rows have left.

    Deep layers are reached by few rows of each batch, and few rows are slow: their weights are
    read for little work. Rows of neighbouring batches that reach a layer are computed together.

    Args:
        backend: Runs the layers.
        batches: Neighbours should hold rows of similar length.
        criterion: Decides who leaves.
        max_rows: Merged batches have no more rows than this.

    Returns:
        The answers to all rows of all batches, in their order.
    """
    ends = np.cumsum([len(batch) for batch in batches])
    groups = [
        _Running(
            backend.start(batch), np.arange(end - len(batch), end), np.empty((0, len(batch), 0))
        )
        for batch, end in zip(batches, ends, strict=True)
    ]
    answers: list[_Answer] = []
    for exit_layer in range(1, backend.num_exits + 1):
        stepped = [_step(backend, group, criterion, exit_layer, answers) for group in groups]
        groups = _merge_neighbours(backend, [group for group in stepped if group], max_rows)
    return _in_order(answers)


def _step(
    backend: ExitBackend[State, Batch],
    running: _Running[State],
    criterion: ExitCriterion,
    exit_layer: int,
    answers: list[_Answer],
) -> _Running[State] | None:
    """Run the next layer, add what leaving rows are answered, and return who stays."""
    state, rows = backend.advance(running.state), running.rows
    is_teacher = exit_layer == backend.num_exits
    if not (is_teacher or criterion.watches(exit_layer)):
        return _Running(state, rows, running.history)
    logits = backend.logits(state)
    if is_teacher:
        answers.append(_Answer(rows, logits, exit_layer))
        return None
    history = np.concatenate([running.history.reshape(-1, *logits.shape), logits[None]])
    leaving = criterion.leaves(history)
    if not leaving.any():
        return _Running(state, rows, history)
    answers.append(_Answer(rows[leaving], logits[leaving], exit_layer))
    if leaving.all():
        return None
    staying = np.flatnonzero(~leaving)
    return _Running(backend.keep(state, staying), rows[staying], history[:, staying])


def _merge_neighbours(
    backend: ExitBackend[State, Batch], groups: list[_Running[State]], max_rows: int
) -> list[_Running[State]]:
    """Put neighbours together as long as they fit."""
    bundles: list[list[_Running[State]]] = []
    for group in groups:
        size = sum(len(other.rows) for other in bundles[-1]) if bundles else max_rows
        if size + len(group.rows) <= max_rows:
            bundles[-1].append(group)
        else:
            bundles.append([group])
    return [
        bundle[0]
        if len(bundle) == 1
        else _Running(
            backend.merge([group.state for group in bundle]),
            np.concatenate([group.rows for group in bundle]),
            np.concatenate([group.history for group in bundle], axis=1),
        )
        for bundle in bundles
    ]


def record(
    backend: ExitBackend[State, Batch], batch: Batch
) -> Float[np.ndarray, "exits rows classes"]:
    """Run a batch through every layer and return what every exit answers about every row."""
    state = backend.start(batch)
    answers = []
    for _ in range(backend.num_exits):
        state = backend.advance(state)
        answers.append(backend.logits(state))
    return np.stack(answers)


def _in_order(answers: list[_Answer]) -> ExitResult:
    """Put the answers, grouped by exit, back into the order of the batch."""
    order = np.argsort(np.concatenate([answer.rows for answer in answers]))
    logits = np.concatenate([answer.logits for answer in answers])
    layers = [np.full(len(answer.rows), answer.exit_layer) for answer in answers]
    return ExitResult(logits[order], np.concatenate(layers)[order])
