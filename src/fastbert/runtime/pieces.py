"""What the exported backends share: rows travel through segments of pieces, in small steps.

A segment is a run of layers that ends at an exit, with the embeddings before its first layer. The
exits that nobody asks fall inside segments, so they cost nothing and neither does the way back to
Python. A segment runs a few hundred tokens at a time, which keeps a processor busy and its caches
warm: rows that are left over from a large batch are packed again, and each step is only as long as
its longest row.
"""

import ctypes
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from fastbert.exits.alone import RunsAlone
from fastbert.exits.criteria import Measure
from fastbert.text import TokenBatch

BOUNDS = "bounds"  # what a chain reads beside the tokens
TOKENS_A_STEP = 1_024
KEPT_LAYERS = 2  # times the model's layers that compiled segments may hold in all
KEPT_CHAINS = 2  # whole models, each for the exits that one goal asks

Arrays = Mapping[str, np.ndarray]


@runtime_checkable
class Segment(Protocol):
    """Some layers and the exit after them, ready to run in any thread."""

    def __call__(self, feeds: Arrays) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the hidden states, if a layer follows, and the logits.

        What is returned is the caller's; no later call changes it.
        """
        ...


@runtime_checkable
class Chain(Protocol):
    """A whole model for one row, which runs no further than it has to, ready in any thread."""

    def __call__(self, feeds: Arrays) -> Float[np.ndarray, "passed classes"]:
        """Return what each exit answered that the row has passed; it is the caller's."""
        ...


@dataclass(frozen=True)
class SegmentRows:
    """The rows still running, after `exit_layer` layers.

    Rows that left are skipped, not removed: the next step copies what it reads anyway.

    Args:
        exit_layer: How many layers they ran.
        arrays: What the next segment reads: the tokens, later the hidden states and the mask.
        rows: Which rows of the arrays are running.
        lengths: Real tokens of each of these.
    """

    exit_layer: int
    arrays: Arrays
    rows: Int[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]


class PieceBackend(RunsAlone):
    """An exit backend over pieces; a runtime says how a segment of them is made."""

    def __init__(self, num_exits: int) -> None:
        """Begin without any segment; they are made when they are first needed."""
        self._num_exits = num_exits
        self._segments: OrderedDict[tuple[int, int], Segment] = OrderedDict()
        self._most_layers = KEPT_LAYERS * num_exits
        self._chains: OrderedDict[tuple[tuple[int, ...], Measure], Chain | None] = OrderedDict()
        self._of_parent: list[object] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    @abstractmethod
    def make_segment(self, done: int, exit_layer: int) -> Segment:
        """Make the segment of the layers after `done` up to `exit_layer`, with its exit."""

    def make_chain(self, exits: tuple[int, ...], measure: Measure) -> Chain | None:
        """Make one graph of all layers with these exits; None where the runtime has none."""
        return None

    def fitting(self, rows: int, length: int) -> tuple[int, int]:
        """Return the shape in which so many rows of this length are run: at least as large."""
        return rows, length

    def begin_in_child(self) -> None:
        """Begin anew in the child of a fork, without the threads that stayed behind."""
        # Never ended: a segment waits for its threads in the end, and they are the parent's.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        _end_without_libraries()
        self._of_parent += [self._segments, self._chains]
        self._segments, self._chains = OrderedDict(), OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def num_exits(self) -> int:
        """The number of encoder layers."""
        return self._num_exits

    def start(self, batch: TokenBatch) -> SegmentRows:
        """Take the tokens; they are embedded with the first layers."""
        self._begin_in_own_process()
        lengths = batch.attention_mask.sum(axis=1)
        return SegmentRows(0, batch.arrays, np.arange(len(batch)), lengths)

    def advance(
        self, state: SegmentRows, exit_layer: int
    ) -> tuple[SegmentRows, Float[np.ndarray, "rows classes"]]:
        """Run the layers up to an exit and the exit itself."""
        segment = self._segment(state.exit_layer, exit_layer)
        answers = [self._run(segment, state, step) for step in steps(state.lengths)]
        logits = _joined([logits for _, logits in answers])
        if exit_layer == self.num_exits:
            return SegmentRows(exit_layer, {}, state.rows, state.lengths), logits
        longest = int(state.lengths.max())
        arrays = {
            "hidden": _stacked([hidden for hidden, _ in answers], longest),
            "attention_mask": state.arrays["attention_mask"][state.rows, :longest],
        }
        return SegmentRows(exit_layer, arrays, np.arange(len(logits)), state.lengths), logits

    def run_alone(
        self,
        batch: TokenBatch,
        exits: tuple[int, ...],
        measure: Measure,
        bounds: Float[np.ndarray, " students"],
    ) -> Float[np.ndarray, "passed classes"] | None:
        """Run one row until an exit has less doubt than its bound."""
        self._begin_in_own_process()
        chain = self._chain(exits, measure)
        if chain is None:
            return None
        row, length = np.arange(1), int(batch.attention_mask.sum())
        shape = self.fitting(1, length)
        arrays = {name: _filled(array, row, length, shape) for name, array in batch.arrays.items()}
        return chain({**arrays, BOUNDS: bounds})

    def keep(self, state: SegmentRows, rows: Int[np.ndarray, " rows"]) -> SegmentRows:
        """Return the named rows only, in that order."""
        return replace(state, rows=state.rows[rows], lengths=state.lengths[rows])

    def merge(self, states: Sequence[SegmentRows]) -> SegmentRows:
        """Return the rows of all states as one, padded to the longest of them."""
        lengths = np.concatenate([state.lengths for state in states])
        longest = int(lengths.max())
        arrays = {
            name: np.concatenate([_running(state, name, longest) for state in states])
            for name in states[0].arrays
        }
        return SegmentRows(states[0].exit_layer, arrays, np.arange(len(lengths)), lengths)

    def _begin_in_own_process(self) -> None:
        if self._process != os.getpid():
            self.begin_in_child()

    def _chain(self, exits: tuple[int, ...], measure: Measure) -> Chain | None:
        """Return a chain; the one not asked for longest makes place when there are too many.

        It is made when it is asked for again. What comes once is answered sooner by the loop, which
        makes ready no more layers than the row runs; and goals that take turns, more of them than
        are kept, do not make chains over and over.
        """
        key = (exits, measure)
        with self._lock:
            if key in self._chains:
                self._chains[key] = self._chains[key] or self.make_chain(exits, measure)
            else:
                self._chains[key] = None
                while len(self._chains) > KEPT_CHAINS:
                    self._chains.popitem(last=False)
            self._chains.move_to_end(key)
            return self._chains[key]

    def _segment(self, done: int, exit_layer: int) -> Segment:
        """Return a segment; the one not used for longest makes place when there are too many."""
        key = (done, exit_layer)
        with self._lock:
            if key not in self._segments:
                self._segments[key] = self.make_segment(done, exit_layer)
                while sum(end - start for start, end in self._segments) > self._most_layers:
                    self._segments.popitem(last=False)
            self._segments.move_to_end(key)
            return self._segments[key]

    def _run(
        self, segment: Segment, state: SegmentRows, step: slice
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Run some of the rows, without what of their padding is not needed."""
        rows, longest = state.rows[step], int(state.lengths[step].max())
        shape = self.fitting(len(rows), longest)
        feeds = {name: _filled(array, rows, longest, shape) for name, array in state.arrays.items()}
        hidden, logits = segment(feeds)
        return None if hidden is None else hidden[: len(rows), :longest], logits[: len(rows)]


def _end_without_libraries() -> None:
    """Let this process end, when Python has, without what libraries do in the end.

    The runtimes wait there for threads that are the parent's. The exit code stays. Where the system
    has no such hook, which is glibc's, only `os._exit` helps.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def steps(lengths: Int[np.ndarray, " rows"]) -> Iterator[slice]:
    """Yield runs of neighbouring rows, each of about `TOKENS_A_STEP` tokens with its padding."""
    start, longest = 0, 0
    for row, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > TOKENS_A_STEP:
            yield slice(start, row)
            start, longest = row, length
    yield slice(start, len(lengths))


def _running(state: SegmentRows, name: str, longest: int) -> np.ndarray:
    """Return one of the arrays of a state without the rows that left, filled up to a length."""
    own_longest = int(state.lengths.max())
    shape = len(state.rows), longest
    return _filled(state.arrays[name], state.rows, own_longest, shape)


def _filled(
    array: np.ndarray, rows: Int[np.ndarray, " rows"], longest: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return some rows up to their longest, with zeros up to a shape of rows and length."""
    filled = np.empty((*shape, *array.shape[2:]), array.dtype)
    for place, row in enumerate(rows.tolist()):  # each is in one piece: faster than a gather
        filled[place, :longest] = array[row, :longest]
    filled[len(rows) :] = 0
    filled[:, longest:] = 0
    return filled


def _stacked(blocks: list[Any], longest: int) -> np.ndarray:
    """Return the hidden states of all steps as one array."""
    if len(blocks) == 1:
        return np.asarray(blocks[0])
    rows = sum(len(block) for block in blocks)
    stacked = np.zeros((rows, longest, blocks[0].shape[2]), blocks[0].dtype)
    start = 0
    for block in blocks:
        stacked[start : start + len(block), : block.shape[1]] = block
        start += len(block)
    return stacked


def _joined(arrays: list[Any]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
