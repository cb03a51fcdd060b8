"""Heads that pool the hidden states themselves: by queries, or as their mean.

Where the paper's head first narrows every token, these read the tokens as they are and narrow what
they have pooled, once for each row. So a short look at every token is all that grows with the
length.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fastbert.head_shapes import MeanHead, QueryHead

QUERY_STD = 0.02  # of new learned queries: nearly a mean, but no two alike
ASKING_STD = 0.05  # of the weights that turn the first token into queries, for the same reason
POOLED_DROPOUT = 0.1  # as in the paper's head

Hidden = Float[Tensor, "rows length hidden"]
Bias = Float[Tensor, "rows 1 length"] | None
Scores = Float[Tensor, "rows queries length"]
Logits = Float[Tensor, "rows classes"]


class LearnedQueries(nn.Module):
    """Queries that are the same for every text."""

    def __init__(self, hidden_size: int, shape: QueryHead) -> None:
        """Make new ones.

        Args:
            hidden_size: Width of the backbone.
            shape: Says how many.
        """
        super().__init__()
        self.weight = nn.Parameter(QUERY_STD * torch.randn(shape.queries, hidden_size))

    def forward(self, hidden: Hidden) -> Scores:
        """Return how much each query looks at each token, before softmax."""
        return _scores_of_learned(self.weight, hidden) * hidden.shape[-1] ** -0.5

    def folded(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return the same function with the scale in the queries."""
        queries = self.weight.double()
        return partial(_scores_of_learned, (queries * queries.shape[1] ** -0.5).to(dtype))


class QueriesOfFirstToken(nn.Module):
    """Queries that the first token of each text asks, through a bottleneck."""

    def __init__(self, hidden_size: int, shape: QueryHead) -> None:
        """Make the two layers.

        Args:
            hidden_size: Width of the backbone.
            shape: Says how many queries, and how wide the bottleneck is.
        """
        super().__init__()
        self.narrow = nn.Linear(hidden_size, shape.width)
        self.widen = nn.Linear(shape.width, shape.queries * hidden_size)
        nn.init.normal_(self.widen.weight, std=ASKING_STD)

    def forward(self, hidden: Hidden) -> Scores:
        """Return how much each query looks at each token, before softmax."""
        asked = self.widen(torch.tanh(self.narrow(hidden[:, 0])))
        return _scores_of_each(asked, hidden) * hidden.shape[-1] ** -0.5

    def folded(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return the same function with the scale in the second layer."""
        scale = self.narrow.in_features**-0.5
        weight, bias = (scale * tensor for tensor in _weights(self.widen, torch.float64))
        narrow, widen = _weights(self.narrow, dtype), (weight.to(dtype), bias.to(dtype))
        return partial(_scores_of_first, narrow, widen)


def _scores_of_learned(queries: Float[Tensor, "queries hidden"], hidden: Hidden) -> Scores:
    return functional.linear(hidden, queries).mT


def _scores_of_first(
    narrow: tuple[Tensor, Tensor], widen: tuple[Tensor, Tensor], hidden: Hidden
) -> Scores:
    narrowed = functional.linear(hidden[:, 0], *narrow).tanh_()
    return _scores_of_each(functional.linear(narrowed, *widen), hidden)


def _scores_of_each(asked: Float[Tensor, "rows asked"], hidden: Hidden) -> Scores:
    return torch.bmm(asked.view(hidden.shape[0], -1, hidden.shape[2]), hidden.mT)


_QUERIES: dict[str, type[QueriesOfFirstToken] | type[LearnedQueries]] = {
    "first": QueriesOfFirstToken,
    "learned": LearnedQueries,
}


class QueryExitHead(nn.Module):
    """K queries look at the hidden states; two layers classify what they read together.

    Source: attentive pooling as in Lin et al., A Structured Self-attentive Sentence Embedding (ICLR
    2017), with queries in place of its tanh layer. Why they come from the first token: decision 21.
    """

    def __init__(self, hidden_size: int, num_labels: int, shape: QueryHead) -> None:
        """Make a head with random weights.

        Args:
            hidden_size: Width of the backbone.
            num_labels: Classes to tell apart.
            shape: Number of queries, inner width, and where queries come from.
        """
        super().__init__()
        self.shape = shape
        self.queries = _QUERIES[shape.source](hidden_size, shape)
        self.dense = nn.Linear(shape.queries * hidden_size, shape.width)
        self.classify = nn.Linear(shape.width, num_labels)

    def forward(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits.

        Args:
            hidden: What the backbone's layer produced.
            bias: `padding_bias` of the batch.
        """
        scores = self.queries(hidden)
        read = (scores if bias is None else scores + bias).softmax(-1) @ hidden
        pooled = functional.dropout(read.flatten(1), POOLED_DROPOUT, self.training)
        return self.classify(torch.tanh(self.dense(pooled)))

    @torch.no_grad()
    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedQueryHead":
        """Return the same function for inference, computing in `dtype`."""
        return FoldedQueryHead(self, dtype)


class FoldedQueryHead:
    """A `QueryExitHead` for inference, in plain tensors; the scale of softmax is in the queries."""

    def __init__(self, head: QueryExitHead, dtype: torch.dtype = torch.float32) -> None:
        """Take the weights of a trained head, rounded to `dtype` once."""
        self.look = head.queries.folded(dtype)
        self.dense = _weights(head.dense, dtype)
        self.classify = _weights(head.classify, dtype)

    def __call__(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits; arguments as for `QueryExitHead`."""
        scores = self.look(hidden)  # [rows, queries, length]
        if bias is not None:
            scores = scores + bias.to(hidden.dtype)
        pooled = torch.bmm(scores.softmax(-1), hidden).flatten(1)
        dense = functional.linear(pooled, *self.dense).tanh_()
        return functional.linear(dense, *self.classify)


class MeanExitHead(nn.Module):
    """One linear layer on the mean of the real tokens."""

    def __init__(self, hidden_size: int, num_labels: int, shape: MeanHead) -> None:
        """Make a head with random weights.

        Args:
            hidden_size: Width of the backbone.
            num_labels: Classes to tell apart.
            shape: Which has no sizes.
        """
        super().__init__()
        self.shape = shape
        self.classify = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits; arguments as for `QueryExitHead`."""
        pooled = functional.dropout(mean_of(hidden, bias), POOLED_DROPOUT, self.training)
        return self.classify(pooled)

    @torch.no_grad()
    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedMeanHead":
        """Return the same function for inference, computing in `dtype`."""
        return FoldedMeanHead(self, dtype)


class FoldedMeanHead:
    """A `MeanExitHead` for inference, in plain tensors."""

    def __init__(self, head: MeanExitHead, dtype: torch.dtype = torch.float32) -> None:
        """Take the weights of a trained head, rounded to `dtype` once."""
        self.classify = _weights(head.classify, dtype)

    def __call__(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits; arguments as for `QueryExitHead`."""
        return functional.linear(mean_of(hidden, bias), *self.classify)


def mean_of(hidden: Hidden, bias: Bias) -> Float[Tensor, "rows hidden"]:
    """Return the mean of the real tokens of each row."""
    if bias is None:
        return hidden.mean(1)
    weights = bias.softmax(-1).to(hidden.dtype)  # equal where the bias is 0, and none elsewhere
    return (weights @ hidden).squeeze(1)


def _weights(layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return layer.weight.to(dtype), layer.bias.to(dtype)
