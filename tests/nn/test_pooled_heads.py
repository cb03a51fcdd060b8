"""Heads that pool hidden states: what the queries read, and that padding never counts."""

import pytest
import torch

from fastbert.head_shapes import MeanHead, QueryHead
from fastbert.nn.heads import ExitHead, exit_head, padding_bias
from fastbert.nn.pooled_heads import QueryExitHead

ROWS, LENGTH, HIDDEN, QUERIES, WIDTH, CLASSES = 5, 7, 12, 4, 6, 3
SHAPES = (QueryHead(QUERIES, WIDTH), MeanHead())
kinds = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)


def made(shape: QueryHead | MeanHead) -> ExitHead:
    """Return a head whose queries have found something to look for."""
    torch.manual_seed(5)
    head = exit_head(HIDDEN, CLASSES, shape).eval()
    if isinstance(head, QueryExitHead):
        torch.nn.init.normal_(head.queries, std=2.0)
    return head


def mask() -> torch.Tensor:
    return (torch.arange(LENGTH) < torch.tensor([[7], [4], [1], [6], [2]])).long()


@kinds
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_changes_an_answer(shape: QueryHead | MeanHead, side: str) -> None:
    head = made(shape)
    alone, padding = torch.randn(1, 4, HIDDEN), 100 * torch.randn(1, 3, HIDDEN)
    parts, mask = [(alone, 1), (padding, 0)], [1, 1, 1, 1, 0, 0, 0]
    if side == "left":
        parts, mask = parts[::-1], mask[::-1]
    padded, bias = torch.cat([part for part, _ in parts], dim=1), padding_bias(torch.tensor([mask]))

    expected = head(alone, None)
    torch.testing.assert_close(head(padded, bias), expected)
    torch.testing.assert_close(head.folded()(padded, bias), expected)


def test_each_query_reads_what_it_looks_for_token_by_token() -> None:
    head = made(QueryHead(QUERIES, WIDTH))
    assert isinstance(head, QueryExitHead)
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    expected = []
    for row, tokens in zip(hidden, mask().sum(1).tolist(), strict=True):
        pooled = []
        for query in head.queries:
            scores = torch.stack([row[token] @ query / HIDDEN**0.5 for token in range(tokens)])
            weights = scores.exp() / scores.exp().sum()
            pooled.append(sum(weights[token] * row[token] for token in range(tokens)))
        expected.append(head.classify(head.dense(torch.cat(pooled)).tanh()))

    torch.testing.assert_close(head(hidden, padding_bias(mask())), torch.stack(expected))


def test_the_mean_is_over_the_real_tokens() -> None:
    head = made(MeanHead())
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    means = [row[:tokens].mean(0) for row, tokens in zip(hidden, mask().sum(1), strict=True)]

    torch.testing.assert_close(
        head(hidden, padding_bias(mask())), head.classify(torch.stack(means))
    )


@kinds
@pytest.mark.parametrize("padded", [True, False])
def test_a_folded_head_gives_the_same_logits(shape: QueryHead | MeanHead, padded: bool) -> None:
    head = made(shape)
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    bias = padding_bias(mask()) if padded else None
    torch.testing.assert_close(head.folded()(hidden, bias), head(hidden, bias))


@kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folded_head_computes_in_half_precision(
    shape: QueryHead | MeanHead, dtype: torch.dtype
) -> None:
    head = made(shape)
    hidden, bias = torch.randn(ROWS, LENGTH, HIDDEN), padding_bias(mask())
    with torch.no_grad():
        half = head.folded(dtype)(hidden.to(dtype), bias)
        torch.testing.assert_close(half.float(), head(hidden, bias), atol=0.15, rtol=0.1)
    assert half.dtype == dtype


@kinds
def test_dropout_acts_in_training_only(shape: QueryHead | MeanHead) -> None:
    head = made(shape)
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)

    assert torch.equal(head(hidden, None), head(hidden, None))
    assert not torch.equal(head.train()(hidden, None), head(hidden, None))


def test_new_queries_differ_and_look_nearly_everywhere() -> None:
    torch.manual_seed(0)
    head = QueryExitHead(HIDDEN, CLASSES, QueryHead(QUERIES, WIDTH))
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    weights = (hidden @ head.queries.mT / HIDDEN**0.5).softmax(1)

    assert len({tuple(query) for query in head.queries.tolist()}) == QUERIES
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / LENGTH), atol=0.02, rtol=0.0)


@kinds
def test_every_weight_learns(shape: QueryHead | MeanHead) -> None:
    head = made(shape).train()
    head(torch.randn(ROWS, LENGTH, HIDDEN), padding_bias(mask())).square().sum().backward()

    assert all(weight.grad is not None and weight.grad.any() for weight in head.parameters())
