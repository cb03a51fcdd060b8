"""Heads that pool the hidden states themselves: by learned queries, or as their mean.

Where the paper's head first narrows every token, these read the tokens as they are and narrow what
they have pooled, once for each row. So a short look at every token is all that grows with the
length.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fastbert.head_shapes import MeanHead, QueryHead

QUERY_STD = 0.02  # of new queries: nearly a mean, but no two alike
POOLED_DROPOUT = 0.1  # as in the paper's head

Hidden = Float[Tensor, "rows length hidden"]
Bias = Float[Tensor, "rows 1 length"] | None
Logits = Float[Tensor, "rows classes"]


class QueryExitHead(nn.Module):
    """K learned queries look at the hidden states; two layers classify what they read together.

    Source: attentive pooling as in Lin et al., A Structured Self-attentive Sentence Embedding (ICLR
    2017), with queries in place of its tanh layer.
    """

    def __init__(self, hidden_size: int, num_labels: int, shape: QueryHead) -> None:
        """Make a head with random weights.

        Args:
            hidden_size: Width of the backbone.
            num_labels: Classes to tell apart.
            shape: Number of queries, and inner width.
        """
        super().__init__()
        self.shape = shape
        self.queries = nn.Parameter(QUERY_STD * torch.randn(shape.queries, hidden_size))
        self.dense = nn.Linear(shape.queries * hidden_size, shape.width)
        self.classify = nn.Linear(shape.width, num_labels)

    def forward(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits.

        Args:
            hidden: What the backbone's layer produced.
            bias: `padding_bias` of the batch.
        """
        scores = functional.linear(hidden, self.queries).mT * hidden.shape[-1] ** -0.5
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
        queries = head.queries.double()
        self.queries = (queries * queries.shape[1] ** -0.5).to(dtype)
        self.dense = head.dense.weight.to(dtype), head.dense.bias.to(dtype)
        self.classify = head.classify.weight.to(dtype), head.classify.bias.to(dtype)

    def __call__(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits; arguments as for `QueryExitHead`."""
        scores = functional.linear(hidden, self.queries).mT  # [rows, queries, length]
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
        self.classify = head.classify.weight.to(dtype), head.classify.bias.to(dtype)

    def __call__(self, hidden: Hidden, bias: Bias) -> Logits:
        """Return the logits; arguments as for `QueryExitHead`."""
        return functional.linear(mean_of(hidden, bias), *self.classify)


def mean_of(hidden: Hidden, bias: Bias) -> Float[Tensor, "rows hidden"]:
    """Return the mean of the real tokens of each row."""
    if bias is None:
        return hidden.mean(1)
    weights = bias.softmax(-1).to(hidden.dtype)  # equal where the bias is 0, and none elsewhere
    return (weights @ hidden).squeeze(1)
