"""A model as ONNX graphs, one for the embeddings and one for each layer with its exit.

Every piece reads `hidden` and `attention_mask`, so any run of neighbours can be joined again by its
names, whatever the family. Masks, rotations and relative positions are computed inside each piece:
joined, the runtimes compute equal ones once.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fastbert.errors import ExportError
from fastbert.nn.backbone import LayerState, key_bias
from fastbert.nn.model import FastBertModel

OPSET = 20  # the first with Gelu as one operator
ROWS, LENGTH = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=1)
TRACED_SHAPE = (3, 7)  # any but 0 and 1, which a trace takes for constants


class Embeddings(nn.Module):
    """Tokens to the hidden states that the first layer reads."""

    def __init__(self, model: FastBertModel) -> None:
        """Take the embeddings of a model."""
        super().__init__()
        self.teacher = model.teacher
        self.backbone = model.backbone

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"] | None = None,
    ) -> Float[Tensor, "rows length hidden"]:
        """Embed."""
        return self.backbone.embed(input_ids, attention_mask, token_type_ids)


class LayerAndExit(nn.Module):
    """An encoder layer and the exit behind it: a student, or the teacher after the last layer."""

    def __init__(self, model: FastBertModel, index: int) -> None:
        """Take the layer `index`, counted from 0, and its exit."""
        super().__init__()
        self.model, self.index = model, index
        self.head = model.heads[index].folded() if index < len(model.heads) else None

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        attention_mask: Int[Tensor, "rows length"],
    ) -> tuple[Float[Tensor, "rows length hidden"], Float[Tensor, "rows classes"]]:
        """Return the hidden states and the logits."""
        backbone = self.model.backbone
        state = LayerState(
            hidden,
            attention_mask,
            backbone.traced_inputs(hidden, attention_mask),
            backbone.shared_inputs(hidden),
        )
        state = backbone.layer(self.index, state)
        if self.head is None:
            return state.hidden, self.model.teacher_logits(state)
        bias = key_bias(attention_mask, hidden.dtype)[:, None]
        return state.hidden, self.head(backbone.exit_view(state.hidden), bias)


def piece_models(model: FastBertModel, *, gives_segments: bool) -> list[onnx.ModelProto]:
    """Return the pieces of a model: the embeddings, then each layer with its exit.

    Embeddings take `input_ids`, `attention_mask` and, if asked for, `token_type_ids`, all int64
    [rows, length], and give `hidden`, float32 [rows, length, width]. A layer takes `hidden` and
    `attention_mask` and gives `hidden_after` and `logits`, float32 [rows, classes]; the last one
    gives `logits` alone.

    Args:
        model: What is exported; it stays as it is.
        gives_segments: Whether the tokenizer gives segment ids.
    """
    model = _prepared(model)
    tokens = tokens_to_trace(gives_segments=gives_segments)
    hidden = torch.zeros(*TRACED_SHAPE, model.backbone.hidden_size)
    state = {"hidden": hidden, "attention_mask": tokens["attention_mask"]}
    pieces = [to_onnx(Embeddings(model), tokens, ["hidden"])]
    pieces += [
        to_onnx(LayerAndExit(model, index), state, ["hidden_after", "logits"])
        for index in range(model.num_exits)
    ]
    del pieces[-1].graph.output[0]
    return pieces


def tokens_to_trace(*, gives_segments: bool) -> dict[str, Int[Tensor, "rows length"]]:
    """Return tokens by name, a tensor each: two names for one would be traced as one input."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if gives_segments else [])]
    return {name: torch.ones(TRACED_SHAPE, dtype=torch.long) for name in names}


def _prepared(model: FastBertModel) -> FastBertModel:
    """Return a copy whose attention is written out, in operators that the runtimes fuse."""
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    model.backbone.encoder.set_attn_implementation("eager")
    return model


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """Trace a module as a graph for any number of rows and any length.

    Raises:
        ExportError: It can only be traced for one shape.
    """
    dynamic: Any = {name: {0: ROWS, 1: LENGTH} for name in inputs}
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    piece = program.model_proto
    if not all(dim.dim_param for item in piece.graph.input for dim in _dims(item)[:2]):
        # The exporter does not say so when it falls back to the shape it traced.
        raise ExportError(
            f"{type(module).__name__}: the trace holds for one shape only; a layer of this family "
            "reads a size as a number"
        )
    _strip(piece)
    return piece


def _strip(piece: onnx.ModelProto) -> None:
    """Remove where the exporter found each operator: paths of this machine, in every file."""
    for item in (piece, piece.graph, *piece.graph.node, *piece.graph.input, *piece.graph.output):
        item.ClearField("metadata_props")
    del piece.graph.value_info[:]
    for node in piece.graph.node:
        node.ClearField("doc_string")


def _dims(item: onnx.ValueInfoProto) -> list[Any]:
    return list(item.type.tensor_type.shape.dim)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
