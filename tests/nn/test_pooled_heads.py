"""Heads that pool hidden states: what the queries read, and that padding never counts."""

from typing import Any

import pytest
import torch

from fastbert.head_shapes import MeanHead, QueryHead
from fastbert.nn.heads import ExitHead, exit_head, padding_bias
from fastbert.nn.pooled_heads import QueryExitHead

ROWS, LENGTH, HIDDEN, QUERIES, WIDTH, CLASSES = 5, 7, 12, 4, 6, 3
FIRST, LEARNED = QueryHead(QUERIES, WIDTH), QueryHead(QUERIES, WIDTH, "learned")
SHAPES = (FIRST, LEARNED, MeanHead())
kinds = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.spelling)


def made(shape: QueryHead | MeanHead) -> ExitHead:
    """Return a head whose queries have found something to look for."""
    torch.manual_seed(5)
    head = exit_head(HIDDEN, CLASSES, shape).eval()
    if isinstance(head, QueryExitHead):
        for weight in head.queries.parameters():
            torch.nn.init.normal_(weight, std=2.0)
    return head


def mask() -> torch.Tensor:
    return (torch.arange(LENGTH) < torch.tensor([[7], [4], [1], [6], [2]])).long()


@pytest.mark.parametrize(
    ("shape", "side"),
    # The first token asks, so where it asks padding is on the right, as with the paper's head.
    [*((shape, "right") for shape in SHAPES), (LEARNED, "left"), (MeanHead(), "left")],
)
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


def asked_by_first(row: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    narrowed = (weights["narrow.weight"] @ row[0] + weights["narrow.bias"]).tanh()
    asked = weights["widen.weight"] @ narrowed + weights["widen.bias"]
    return torch.stack([asked[HIDDEN * k : HIDDEN * (k + 1)] for k in range(QUERIES)])


@pytest.mark.parametrize("shape", [FIRST, LEARNED], ids=lambda shape: shape.source)
def test_each_query_reads_what_it_looks_for_token_by_token(shape: QueryHead) -> None:
    head = made(shape)
    assert isinstance(head, QueryExitHead)
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    weights = head.queries.state_dict()
    expected = []
    for row, tokens in zip(hidden, mask().sum(1).tolist(), strict=True):
        queries = asked_by_first(row, weights) if shape is FIRST else weights["weight"]
        pooled = []
        for query in queries:
            scores = torch.stack([row[token] @ query / HIDDEN**0.5 for token in range(tokens)])
            shares = (scores - scores.max()).exp() / (scores - scores.max()).exp().sum()
            pooled.append(sum(shares[token] * row[token] for token in range(tokens)))
        expected.append(head.classify(head.dense(torch.cat(pooled)).tanh()))

    torch.testing.assert_close(head(hidden, padding_bias(mask())), torch.stack(expected))


def test_what_queries_of_the_first_token_look_at_differs_from_text_to_text() -> None:
    head = made(FIRST)
    assert isinstance(head, QueryExitHead)
    tokens = torch.randn(LENGTH - 1, HIDDEN)
    firsts = torch.randn(2, 1, HIDDEN)
    texts = torch.stack([torch.cat([first, tokens]) for first in firsts])
    shares = head.queries(texts).softmax(-1)[:, :, 1:]
    shares = shares / shares.sum(-1, keepdim=True)  # among the tokens that both texts have

    assert (shares[0] - shares[1]).abs().amax() > 0.1


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
    if isinstance(head, QueryExitHead):  # sharp looks would fall to another token by rounding
        for weight in head.queries.parameters():
            torch.nn.init.normal_(weight, std=0.5)
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


@pytest.mark.parametrize(("source", "nearly"), [("first", 0.15), ("learned", 0.02)])
def test_new_queries_differ_and_look_nearly_everywhere(source: Any, nearly: float) -> None:
    torch.manual_seed(0)
    head = QueryExitHead(HIDDEN, CLASSES, QueryHead(QUERIES, source=source))
    shares = head.queries(torch.randn(ROWS, LENGTH, HIDDEN)).softmax(-1)

    for row in shares.tolist():
        assert len({tuple(query) for query in row}) == QUERIES
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / LENGTH), atol=nearly, rtol=0.0)


@kinds
def test_every_weight_learns(shape: QueryHead | MeanHead) -> None:
    head = made(shape).train()
    head(torch.randn(ROWS, LENGTH, HIDDEN), padding_bias(mask())).square().sum().backward()

    assert all(weight.grad is not None and weight.grad.any() for weight in head.parameters())
