"""A backbone: an encoder of transformers, run one layer at a time.

An adapter says in a few lines which of the library's own modules a family is made of: embeddings,
masks, layers, classification head. It holds no weights and no modelling code, so the hidden states
after k layers are, bit for bit, what the library gives as `hidden_states[k]`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import (
    create_bidirectional_mask,
)

NO_WEIGHT = -1e30  # added to an attention score

Tokens = Int[Tensor, "rows length"]
Hidden = Float[Tensor, "rows length width"]
Logits = Float[Tensor, "rows classes"]


@dataclass(frozen=True)
class LayerState:
    """What the next layer needs to know about the rows still running.

    Attributes:
        hidden: What the layer before, or the embeddings, produced.
        attention_mask: 1 for a real token, 0 for padding.
        per_row: What else the layers take that has the rows on its first axis; None where the
            library needs nothing, such as a mask in a batch without padding.
        shared: What else the layers take that is the same for all rows.
    """

    hidden: Hidden
    attention_mask: Tokens
    per_row: Mapping[str, Tensor | None] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def after(self, hidden: Hidden) -> "LayerState":
        """Return the state once a layer has produced `hidden`."""
        return LayerState(hidden, self.attention_mask, self.per_row, self.shared)

    def keep(self, rows: Int[Tensor, " kept"]) -> "LayerState":
        """Return the state of the numbered rows only, in the order in which they are given."""
        per_row = {
            name: None if tensor is None else tensor.index_select(0, rows)
            for name, tensor in self.per_row.items()
        }
        hidden = self.hidden.index_select(0, rows)
        return LayerState(hidden, self.attention_mask.index_select(0, rows), per_row, self.shared)


class Backbone:
    """The encoder of a model, run layer by layer.

    A family's class overrides what differs from BERT: where the layers are, how they are called,
    what they take besides the hidden states, and the classification head.

    Attributes:
        encoder: The model without its head.
        config: The model's configuration.
        layers: The encoder layers in the order in which they run.
        num_layers: How many they are.
        hidden_size: The width of the hidden states.
        max_length: The longest sequence, in tokens, that has positions. Relative and rotary
            positions could go on, but the model has seen nothing longer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Find the parts of a model.

        Args:
            model: A `*ForSequenceClassification` model or a plain encoder.
        """
        # Any, because what these hold differs by family, and adapters are there to know it.
        self.encoder: Any = model.base_model
        self.config: Any = model.config
        self.layers: list[Any] = list(self.find_layers())
        self.num_layers = len(self.layers)
        self.hidden_size: int = self.config.hidden_size
        self.max_length = self.count_positions()

    def start(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None = None
    ) -> LayerState:
        """Embed a batch.

        Args:
            input_ids: Token ids, padding included.
            attention_mask: 1 for a real token, 0 for padding.
            token_type_ids: The segment of each token; a family without segments ignores it.
        """
        hidden = self.embed(input_ids, attention_mask, token_type_ids)
        return self.resume(hidden, attention_mask)

    def resume(self, hidden: Hidden, attention_mask: Tokens) -> LayerState:
        """Return the state of rows after any layer: all else that a layer takes follows from these.

        Args:
            hidden: What that layer, or the embeddings, produced.
            attention_mask: 1 for a real token, 0 for padding.
        """
        per_row = self.per_row_inputs(hidden, attention_mask)
        return LayerState(hidden, attention_mask, per_row, self.shared_inputs(hidden))

    def merge(self, states: Sequence[LayerState]) -> LayerState:
        """Return the rows of all states, after the same layer, one after another.

        All are padded to the longest row that is left: masks, rotations and relative positions
        belong to a length, so they are made anew.
        """
        padded = max(state.attention_mask.shape[1] for state in states)
        mask = _joined([state.attention_mask for state in states], padded)
        hidden = _joined([state.hidden for state in states], padded)
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        return self.resume(hidden[:, :longest], mask[:, :longest])

    def layer(self, index: int, state: LayerState) -> LayerState:
        """Run the layer `index`, counted from 0."""
        return state.after(self.layers[index](state.hidden, state.per_row["mask"]))

    def exit_view(self, hidden: Hidden) -> Hidden:
        """Return what a head reads of a layer's output: the same, unless a norm comes between."""
        return hidden

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Ask the family's own classification head.

        Args:
            model: The `*ForSequenceClassification` model of which this is the backbone.
            state: The state after the last layer.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no classification head")

    def find_layers(self) -> Iterable[Any]:
        """Return the encoder layers in the order in which they run."""
        return self.encoder.encoder.layer

    def count_positions(self) -> int:
        """Return the longest sequence, in tokens, that has positions."""
        return self.config.max_position_embeddings

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Return what the first layer reads."""
        return self.encoder.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)

    def per_row_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return what the layers take for each row besides its hidden states."""
        return {"mask": full_attention_mask(self.config, hidden, attention_mask)}

    def traced_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return `per_row_inputs` for a graph that is traced once and run on any batch.

        Nothing may depend on whether there is padding, and of the mask one query's part is enough:
        it is the same for all queries and broadcasts over them.
        """
        return {"mask": key_bias(attention_mask, hidden.dtype)[:, None, None]}

    def shared_inputs(self, hidden: Hidden) -> Mapping[str, Any]:
        """Return what the layers take for all rows alike."""
        return {}


def _joined(tensors: Sequence[Tensor], length: int) -> Tensor:
    """Return tensors as one along their rows, each filled up with zeros to a length."""
    filled = []
    for tensor in tensors:
        missing = tensor.new_zeros(len(tensor), length - tensor.shape[1], *tensor.shape[2:])
        filled.append(torch.cat([tensor, missing], dim=1))
    return torch.cat(filled)


def full_attention_mask(config: Any, hidden: Hidden, attention_mask: Tokens) -> Tensor | None:
    """Return the library's mask for layers where every token sees every real token."""
    mask = create_bidirectional_mask(config, hidden, attention_mask)
    assert mask is None or isinstance(mask, Tensor)  # backbone_for refuses flex_attention
    return mask


def key_bias(attention_mask: Tokens, dtype: torch.dtype) -> Float[Tensor, "rows length"]:
    """Return what to add to attention scores so that padding gets no weight.

    Finite, also in bfloat16: a row of nothing but padding must not become NaN.
    """
    return (1 - attention_mask.to(dtype)) * NO_WEIGHT


BackboneClass = TypeVar("BackboneClass", bound=type[Backbone])

registry: dict[str, type[Backbone]] = {}


def register_backbone(*model_types: str) -> Callable[[BackboneClass], BackboneClass]:
    """Make a class the adapter of these families, in place of an earlier one.

    Args:
        model_types: What the `config.json` of their checkpoints has under `model_type`.
    """

    def register(backbone: BackboneClass) -> BackboneClass:
        registry.update(dict.fromkeys(model_types, backbone))
        return backbone

    return register
