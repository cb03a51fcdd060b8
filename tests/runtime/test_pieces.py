"""Rows travel through segments of pieces: alone or merged with others, in any order and thread."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.classifier import FastBertClassifier
from fastbert.exits.criteria import ThresholdCriterion
from fastbert.exits.engine import classify, record
from fastbert.exits.measures import MaxProbability, Patience
from fastbert.runtime.pieces import (
    KEPT_LAYERS,
    TOKENS_A_STEP,
    PieceBackend,
    SegmentRows,
    steps,
)
from fastbert.text import TokenBatch
from tests.sharing import answers_alone, answers_together, criterion_for
from tests.tiny_data import examples
from tests.tiny_folder import WORDS

TEXTS = [example.text for example in examples(50, seed=9)]

words = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
some_texts = st.lists(words | st.tuples(words, words), min_size=1, max_size=6)


def test_a_state_is_not_changed_by_what_runs_after_it(exported: FastBertClassifier) -> None:
    # Runtimes write each answer where the last one was.
    [(_, first)] = exported.batches(exported.encode(TEXTS[:5]), 5)
    [(_, second)] = exported.batches(exported.encode(TEXTS[5:10]), 5)
    backend = exported.backend
    expected = record(backend, first)
    state, logits = backend.advance(backend.start(first), 1)
    kept = logits.copy()
    backend.advance(backend.start(second), 1)
    assert np.array_equal(logits, kept)
    for exit_layer in range(2, backend.num_exits + 1):
        state, logits = backend.advance(state, exit_layer)
        np.testing.assert_allclose(logits, expected[exit_layer - 1], atol=1e-5)


def test_rows_are_kept_in_the_order_asked_for(exported: FastBertClassifier) -> None:
    [(_, batch)] = exported.batches(exported.encode(TEXTS[:6]), 6)
    backend, rows = exported.backend, np.array([4, 0, 3])
    state, _ = backend.advance(backend.start(batch), 1)
    state = backend.keep(backend.keep(state, np.array([4, 0, 2, 3])), np.array([0, 1, 3]))
    _, logits = backend.advance(state, 3)
    np.testing.assert_allclose(logits, record(backend, batch)[2, rows], atol=1e-5)


def test_layers_between_the_watched_exits_are_one_segment(exported: FastBertClassifier) -> None:
    backend = exported.backend
    assert isinstance(backend, PieceBackend)
    backend._segments.clear()
    criterion = ThresholdCriterion(MaxProbability(), (0.0, 1e-9, 0.0, 0.0))
    [(_, batch)] = exported.batches(exported.encode(TEXTS[:3]), 3)
    classify(backend, batch, criterion)
    assert list(backend._segments) == [(0, 2), (2, 5)]


def test_segments_that_are_not_in_use_make_place(exported: FastBertClassifier) -> None:
    backend = exported.backend
    assert isinstance(backend, PieceBackend)
    [(_, batch)] = exported.batches(exported.encode(TEXTS[:3]), 3)
    watched = [*np.eye(4), np.ones(4), np.zeros(4)]  # each student alone, all, none
    for thresholds in watched:
        criterion = ThresholdCriterion(Patience(), tuple((1e-9 * thresholds).tolist()))
        classify(backend, batch, criterion)
    assert (0, 5) in backend._segments
    layers = sum(end - start for start, end in backend._segments)
    assert layers <= KEPT_LAYERS * backend.num_exits


# Merging.


def batch_of(classifier: FastBertClassifier, texts: list[Any]) -> TokenBatch:
    [(_, batch)] = classifier.batches(classifier.encode(texts), len(texts))
    return batch


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_requests_that_share_steps_are_answered_as_each_alone(
    runtime: Any, folders: dict[str, Path]
) -> None:
    exported = FastBertClassifier.from_pretrained(folders["fp32"], runtime=runtime, threads=1)
    backend = exported.backend

    @settings(max_examples=25, deadline=None)
    @given(st.lists(some_texts, min_size=2, max_size=5), st.randoms(use_true_random=False))
    def answers_are_the_same(texts: list[list[Any]], random: Random) -> None:
        batches = [batch_of(exported, each) for each in texts]
        requests = [(batch, criterion_for(backend, batch, random)) for batch in batches]
        together = answers_together(backend, requests, random)
        for ours, alone in zip(together, answers_alone(backend, requests), strict=True):
            assert ours.exit_layer.tolist() == alone.exit_layer.tolist()
            np.testing.assert_allclose(ours.logits, alone.logits, atol=1e-5, rtol=1e-5)

    answers_are_the_same()


class NoPieces(PieceBackend):
    """Has no layers; only its way with rows is asked for."""

    def make_segment(self, done: int, exit_layer: int) -> Any:
        raise AssertionError("nothing runs here")


def rows_of(lengths: list[int], running: list[int], value: float) -> SegmentRows:
    """Return hidden states of width 2 after one layer, of which some rows are running."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    hidden = np.where(mask[:, :, None] == 1, value + np.arange(len(lengths))[:, None, None], 9.0)
    arrays = {"hidden": np.broadcast_to(hidden, (*mask.shape, 2)), "attention_mask": mask}
    return SegmentRows(1, arrays, np.array(running), np.array(lengths)[running])


def test_merged_rows_are_those_still_running_padded_to_the_longest_of_them() -> None:
    merged = NoPieces(3).merge([rows_of([7, 3, 2], [2, 1], 10.0), rows_of([4], [0], 20.0)])
    assert merged.exit_layer == 1
    assert merged.rows.tolist() == [0, 1, 2]
    assert merged.lengths.tolist() == [2, 3, 4]
    assert merged.arrays["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert merged.arrays["hidden"].shape == (3, 4, 2)
    real = merged.arrays["attention_mask"] == 1
    assert merged.arrays["hidden"][real][:, 0].tolist() == [12.0] * 2 + [11.0] * 3 + [20.0] * 4


# Steps.


@given(st.lists(st.integers(1, 200), min_size=1, max_size=300))
def test_steps_hold_every_row_once_and_few_tokens(lengths: list[int]) -> None:
    made = list(steps(np.array(lengths)))
    assert [row for step in made for row in range(step.start, step.stop)] == list(
        range(len(lengths))
    )
    for step in made:
        longest = max(lengths[step])
        assert step.stop - step.start == 1 or (step.stop - step.start) * longest <= TOKENS_A_STEP
