"""The torch backend under the adaptive loop: rows of many requests in one step."""

from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.exits.engine import record
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.text import TokenBatch
from tests.sharing import answers_alone, answers_together, criterion_for
from tests.tiny import FAMILIES, tiny_batch, tiny_classifier

every_family = pytest.mark.parametrize("family", FAMILIES)
pooling = pytest.mark.parametrize("pooling", ["first", "mean"])


@cache
def backend_of(family: str, pooling: Any = "first") -> TorchBackend:
    """Return a tiny model with students that differ in what they are sure of."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        model = FastBertModel(tiny_classifier(family), f"paper/{pooling}/8")
        for name, weight in model.students.named_parameters():
            if name.endswith("classify.weight"):
                weight.mul_(12)
    return TorchBackend(model)


def batch_of(backend: TorchBackend, lengths: list[int]) -> TokenBatch:
    tokens = tiny_batch(backend.model.teacher, lengths)  # type: ignore[arg-type]  # no head of the paper's here
    segments = tokens.get("token_type_ids")
    return TokenBatch(
        tokens["input_ids"].numpy(),
        tokens["attention_mask"].numpy(),
        None if segments is None else segments.numpy(),
    )


@every_family
@pooling
@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=2, max_size=5),
    st.randoms(use_true_random=False),
)
def test_requests_that_share_steps_are_answered_as_each_alone(
    family: str, pooling: Any, lengths: list[list[int]], random: Random
) -> None:
    backend = backend_of(family, pooling)
    batches = [batch_of(backend, each) for each in lengths]
    requests = [(batch, criterion_for(backend, batch, random)) for batch in batches]
    together = answers_together(backend, requests, random)
    for ours, alone in zip(together, answers_alone(backend, requests), strict=True):
        assert ours.exit_layer.tolist() == alone.exit_layer.tolist()
        np.testing.assert_allclose(ours.logits, alone.logits, atol=1e-5, rtol=1e-5)


@pooling
def test_students_do_not_read_the_padding_that_merging_adds(pooling: Any) -> None:
    backend = backend_of("bert", pooling)
    short, long = batch_of(backend, [4, 4]), batch_of(backend, [9])
    expected = record(backend, short)
    start = backend.merge([backend.start(short), backend.start(long)])
    assert backend.start(short).bias is None
    assert start.bias is not None
    _, logits = backend.advance(start, 2)
    np.testing.assert_allclose(logits[:2], expected[1], atol=1e-5, rtol=1e-5)


def test_merged_states_stay_as_they_were() -> None:
    backend = backend_of("bert")
    one, _ = backend.advance(backend.start(batch_of(backend, [5, 3])), 1)
    other, _ = backend.advance(backend.start(batch_of(backend, [7])), 1)
    before = one.layer_state.hidden.clone()
    backend.advance(backend.merge([one, other]), 3)
    assert torch.equal(one.layer_state.hidden, before)
    assert one.layer_state.attention_mask.shape == (2, 5)
