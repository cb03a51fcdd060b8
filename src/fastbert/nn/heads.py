"""The classifier of an exit: the paper's, and any other kind by its shape.

The paper's is: linear to 128, tanh, two-head self-attention over the real tokens, one token (or
their mean), linear 128, tanh, linear to the classes. Only the pooled token is read from the
attention, so keys and values are never formed token by token: the projections move to the side of
the single query, which gives the same numbers for a fraction of the work.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fastbert.head_shapes import HeadShape, MeanHead, PaperHead, QueryHead
from fastbert.nn.pooled_heads import MeanExitHead, QueryExitHead

ATTENTION_DROPOUT = 0.1  # the authors' value


def padding_bias(
    attention_mask: Int[Tensor, "rows length"],
) -> Float[Tensor, "rows 1 length"] | None:
    """Return what to add to attention scores so that padding gets no weight, if there is any."""
    padding = attention_mask == 0
    if not padding.any():
        return None
    bias = torch.zeros(padding.shape, device=padding.device)
    return bias.masked_fill_(padding, float("-inf")).unsqueeze(1)


class PooledAttention(nn.Module):
    """Multi-head self-attention of which only one pooled token is read.

    Equal to `nn.MultiheadAttention` followed by pooling. The key bias is left out because softmax
    ignores it, the value bias because it is a constant that the output bias already holds.
    """

    def __init__(self, shape: PaperHead) -> None:
        """Make the projections.

        Args:
            shape: Width, number of heads, and whether the first token or the mean is pooled.
        """
        super().__init__()
        self.pooling = shape.pooling
        self.num_heads = shape.num_heads
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(
        self,
        tokens: Float[Tensor, "rows length width"],
        bias: Float[Tensor, "rows 1 length"] | None,
    ) -> Float[Tensor, "rows width"]:
        """Return what the pooled token reads from all real tokens."""
        pool = self.read_by_all if self.pooling == "mean" else self.read_by_first
        read = pool(tokens, bias)  # [rows, heads, width]
        values = torch.einsum("rhw,hvw->rhv", read, self._per_head(self.value))
        return self.output(values.flatten(1))

    def read_by_first(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """Let every head of the first token look at the tokens themselves, as one query each."""
        query = self.query(tokens[:, 0]).unflatten(-1, (self.num_heads, -1))
        looking_for = torch.einsum("rhv,hvw->rhw", query, self._per_head(self.key))
        return functional.scaled_dot_product_attention(
            looking_for,
            tokens,
            tokens,
            attn_mask=bias,
            dropout_p=ATTENTION_DROPOUT if self.training else 0.0,
            scale=query.shape[-1] ** -0.5,
        )

    def read_by_all(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """Average over the real tokens what each of them would look at."""
        query = self.query(tokens).unflatten(-1, (self.num_heads, -1))
        key = self.key(tokens).unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("rqhv,rkhv->rhqk", query * query.shape[-1] ** -0.5, key)
        if bias is None:
            weights = scores.softmax(-1).mean(2)
        else:
            real = (bias == 0).to(tokens.dtype)  # [rows, 1, length]
            attention = (scores + bias.unsqueeze(1)).softmax(-1)
            weights = (real.unsqueeze(2) @ attention).squeeze(2) / real.sum(-1, keepdim=True)
        return functional.dropout(weights, ATTENTION_DROPOUT, self.training) @ tokens

    def _per_head(self, projection: nn.Linear) -> Tensor:
        return projection.weight.unflatten(0, (self.num_heads, -1))


class PaperExitHead(nn.Module):
    """The paper's classifier, one for every student and, where its head is `paper`, the teacher.

    Source: Section 3.1.2, "Branches", of Liu et al., FastBERT (ACL 2020), and the authors' code,
    where the attention sits between tanh layers.
    """

    def __init__(self, hidden_size: int, num_labels: int, shape: PaperHead) -> None:
        """Make a head with random weights.

        Args:
            hidden_size: Width of the backbone.
            num_labels: Classes to tell apart.
            shape: Width, attention heads and pooling of the head.
        """
        super().__init__()
        self.shape = shape
        self.reduce = nn.Linear(hidden_size, shape.width)
        self.attention = PooledAttention(shape)
        self.dense = nn.Linear(shape.width, shape.width)
        self.classify = nn.Linear(shape.width, num_labels)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        bias: Float[Tensor, "rows 1 length"] | None,
    ) -> Float[Tensor, "rows classes"]:
        """Return the logits.

        Args:
            hidden: What the backbone's layer produced.
            bias: `padding_bias` of the batch.
        """
        tokens = torch.tanh(self.reduce(hidden))
        return self.classify(torch.tanh(self.dense(self.attention(tokens, bias))))

    @torch.no_grad()
    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedPaperHead":
        """Return the same function for inference, computing in `dtype`."""
        return FoldedPaperHead(self, dtype)


class FoldedPaperHead:
    """An `PaperExitHead` for inference, with fewer and smaller steps.

    Nothing but softmax stands between query and key, and nothing between value, output and the
    dense layer, so each chain is one matrix, multiplied out in double precision. The mean lets all
    tokens ask, where one matrix would cost more than two, so there only the second chain is folded.

    Plain tensors, not modules: at batch 1 the calls cost as much as the arithmetic.
    """

    def __init__(self, head: PaperExitHead, dtype: torch.dtype = torch.float32) -> None:
        """Multiply out the projections of a trained head, and round them to `dtype` once."""
        attention, heads = head.attention, head.attention.num_heads
        self.num_heads = heads
        self.reduce = head.reduce.weight.to(dtype), head.reduce.bias.to(dtype)
        self.look_for = None if attention.pooling == "mean" else _look_for(attention, dtype)
        # A copy, for the head itself may be in training.
        self.attention = copy.deepcopy(attention).to(dtype).eval()
        value = attention.value.weight.double().unflatten(0, (heads, -1))
        output = attention.output.weight.double().unflatten(1, (heads, -1))
        dense = head.dense.weight.double()
        self.dense = (
            (dense @ torch.einsum("ohv,hvi->ohi", output, value).flatten(1)).to(dtype),
            (dense @ attention.output.bias.double() + head.dense.bias.double()).to(dtype),
        )
        self.classify = head.classify.weight.to(dtype), head.classify.bias.to(dtype)

    def __call__(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        bias: Float[Tensor, "rows 1 length"] | None,
    ) -> Float[Tensor, "rows classes"]:
        """Return the logits; arguments as for `PaperExitHead`."""
        tokens = functional.linear(hidden, *self.reduce).tanh_()
        if bias is not None and bias.dtype != tokens.dtype:  # sums would be in the wider of both
            bias = bias.to(tokens.dtype)
        if self.look_for is None:
            read = self.attention.read_by_all(tokens, bias)
        else:
            looking_for = functional.linear(tokens[:, 0], *self.look_for)
            rows = tokens.shape[0]  # a trace takes len() for a constant
            looking_for = looking_for.view(rows, self.num_heads, -1)
            scores = torch.bmm(looking_for, tokens.mT)
            read = torch.bmm((scores if bias is None else scores + bias).softmax(-1), tokens)
        dense = functional.linear(read.flatten(1), *self.dense).tanh_()
        return functional.linear(dense, *self.classify)


def _look_for(attention: PooledAttention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what turns the first token into what each head looks for, scaled for softmax."""
    query, key = (
        linear.weight.double().unflatten(0, (attention.num_heads, -1))
        for linear in (attention.query, attention.key)
    )  # [heads, width / heads, width]
    bias = attention.query.bias.double().unflatten(0, (attention.num_heads, -1))
    scale = query.shape[1] ** -0.5
    return (
        (scale * torch.einsum("hvo,hvi->hoi", key, query)).flatten(0, 1).to(dtype),
        (scale * torch.einsum("hvo,hv->ho", key, bias)).flatten().to(dtype),
    )


ExitHead = PaperExitHead | QueryExitHead | MeanExitHead

_MODULES: dict[type[HeadShape], Callable[[int, int, Any], ExitHead]] = {
    PaperHead: PaperExitHead,
    QueryHead: QueryExitHead,
    MeanHead: MeanExitHead,
}


def exit_head(hidden_size: int, num_labels: int, shape: HeadShape) -> ExitHead:
    """Return a head of a shape, with random weights.

    Args:
        hidden_size: Width of the backbone.
        num_labels: Classes to tell apart.
        shape: Its kind and sizes.
    """
    return _MODULES[type(shape)](hidden_size, num_labels, shape)
