"""Exit heads: the fast form equals textbook attention, and padding never counts."""

from typing import Literal

import pytest
import torch
from torch import nn

from fastbert.head_shapes import PaperHead
from fastbert.nn.heads import PaperExitHead, PooledAttention, padding_bias

ROWS, LENGTH, HIDDEN, WIDTH, HEADS, CLASSES = 5, 7, 12, 8, 2, 3


def textbook(attention: PooledAttention) -> nn.MultiheadAttention:
    """Return torch's own attention with the same weights."""
    reference = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    parts = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.copy_(torch.cat([attention.query.bias, torch.zeros(2 * WIDTH)]))
        reference.out_proj.weight.copy_(attention.output.weight)
        reference.out_proj.bias.copy_(attention.output.bias)
    return reference.eval()


def padded_batch(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    tokens = torch.randn(ROWS, LENGTH, WIDTH)
    real = torch.arange(LENGTH) < torch.tensor([[7], [4], [1], [6], [2]])
    return tokens, real if side == "right" else real.flip(1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_mean_pooling_equals_textbook_attention_averaged_over_real_tokens(side: str) -> None:
    tokens, real = padded_batch(side)
    attention = PooledAttention(PaperHead("mean", WIDTH, HEADS)).eval()

    attended, _ = textbook(attention)(tokens, tokens, tokens, key_padding_mask=~real)
    expected = (attended * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
    torch.testing.assert_close(attention(tokens, padding_bias(real.long())), expected)


def test_first_token_pooling_equals_textbook_attention_at_the_first_token() -> None:
    tokens, real = padded_batch("right")
    attention = PooledAttention(PaperHead("first", WIDTH, HEADS)).eval()

    attended, _ = textbook(attention)(tokens, tokens, tokens, key_padding_mask=~real)
    torch.testing.assert_close(attention(tokens, padding_bias(real.long())), attended[:, 0])


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_never_changes_an_answer(pooling: Literal["first", "mean"]) -> None:
    # Heads without a padding mask: BitVoyage issue 14, bert-squeeze; FastPLM's mean over padding.
    torch.manual_seed(1)
    head = PaperExitHead(HIDDEN, CLASSES, PaperHead(pooling, WIDTH, HEADS)).eval()
    alone = torch.randn(1, 4, HIDDEN)
    padded = torch.cat([alone, 100 * torch.randn(1, 3, HIDDEN)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])

    torch.testing.assert_close(head(padded, padding_bias(mask)), head(alone, None))


def test_mean_pooling_averages_tokens_not_features() -> None:
    # The authors' pooling="mean" averaged over the last axis and returned the wrong shape.
    attention = PooledAttention(PaperHead("mean", WIDTH, HEADS)).eval()
    assert attention(torch.randn(ROWS, LENGTH, WIDTH), None).shape == (ROWS, WIDTH)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_dropout_acts_in_training_only(pooling: Literal["first", "mean"]) -> None:
    torch.manual_seed(2)
    head = PaperExitHead(HIDDEN, CLASSES, PaperHead(pooling, WIDTH, HEADS))
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)

    assert not torch.equal(head.train()(hidden, None), head(hidden, None))
    assert torch.equal(head.eval()(hidden, None), head(hidden, None))


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("padded", [True, False])
def test_a_folded_head_gives_the_same_logits(
    pooling: Literal["first", "mean"], padded: bool
) -> None:
    torch.manual_seed(6)
    head = PaperExitHead(HIDDEN, CLASSES, PaperHead(pooling, WIDTH, HEADS)).eval()
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    bias = padding_bias(padded_batch("right")[1].long()) if padded else None
    torch.testing.assert_close(head.folded()(hidden, bias), head(hidden, bias))


def test_a_batch_without_padding_needs_no_bias() -> None:
    assert padding_bias(torch.ones(ROWS, LENGTH, dtype=torch.long)) is None


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_folding_leaves_a_head_in_training_as_it_is(pooling: Literal["first", "mean"]) -> None:
    head = PaperExitHead(HIDDEN, CLASSES, PaperHead(pooling, WIDTH, HEADS)).train()
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)

    folded = head.folded()
    assert all(module.training for module in head.modules())
    torch.manual_seed(1)
    assert not torch.equal(head(hidden, None), head(hidden, None))  # dropout
    with torch.no_grad():
        assert torch.equal(folded(hidden, None), folded(hidden, None))
        torch.testing.assert_close(folded(hidden, None), head.eval()(hidden, None))
