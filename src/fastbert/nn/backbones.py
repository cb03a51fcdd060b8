"""Backbones: an encoder of transformers, run one layer at a time.

An adapter says in a few lines which of the library's own modules a family is made of: embeddings,
masks, layers, classification head. It holds no weights and no modelling code, so the hidden states
after k layers are, bit for bit, what the library gives as `hidden_states[k]`. A family that is not
here is added with `register_backbone`; docs/backbones.md shows how.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
)

from fastbert.errors import BackboneError

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
        per_row = self.per_row_inputs(hidden, attention_mask)
        return LayerState(hidden, attention_mask, per_row, self.shared_inputs(hidden))

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

_registry: dict[str, type[Backbone]] = {}


def register_backbone(*model_types: str) -> Callable[[BackboneClass], BackboneClass]:
    """Make a class the adapter of these families, in place of an earlier one.

    Args:
        model_types: What the `config.json` of their checkpoints has under `model_type`.
    """

    def register(backbone: BackboneClass) -> BackboneClass:
        _registry.update(dict.fromkeys(model_types, backbone))
        return backbone

    return register


def backbone_for(model: PreTrainedModel) -> Backbone:
    """Return the backbone of a model.

    Args:
        model: A `*ForSequenceClassification` model or a plain encoder.

    Raises:
        BackboneError: The family is unknown, the configuration makes the model a decoder, or its
            attention takes masks that cannot be cut down to some of the rows.
    """
    config = model.config
    if config.model_type not in _registry:
        raise BackboneError(
            f"unknown encoder family {config.model_type!r}, known are "
            f"{', '.join(sorted(_registry))}; see 'How to add a family' in docs/backbones.md"
        )
    if getattr(config, "is_decoder", False):
        raise BackboneError(
            f"this {config.model_type} model is a decoder; set is_decoder to false in its config"
        )
    if config._attn_implementation == "flex_attention":
        raise BackboneError(
            "the masks of flex_attention cannot be cut down to the rows still running; load the "
            "model with attn_implementation='sdpa'"
        )
    return _registry[config.model_type](model)


@register_backbone("bert", "ernie")
class BertBackbone(Backbone):
    """BERT and ERNIE: a pooler in the encoder, a linear classifier on it."""

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Pool the first token and classify it."""
        return model.classifier(model.dropout(self.encoder.pooler(state.hidden)))


@register_backbone("electra")
class ElectraBackbone(Backbone):
    """ELECTRA: embeddings may be narrower than the layers; the head pools by itself."""

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed, and widen where the widths differ."""
        hidden = super().embed(input_ids, attention_mask, token_type_ids)
        if hasattr(self.encoder, "embeddings_project"):
            hidden = self.encoder.embeddings_project(hidden)
        return hidden

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Let the head pool and classify."""
        return model.classifier(state.hidden)


@register_backbone("roberta", "xlm-roberta", "camembert")
class RobertaBackbone(Backbone):
    """RoBERTa and its kin: positions are counted from the padding id; the head pools by itself."""

    def count_positions(self) -> int:
        """Leave out the positions up to the padding id, which no real token takes."""
        return self.config.max_position_embeddings - self.encoder.embeddings.padding_idx - 1

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Let the head pool and classify."""
        return model.classifier(state.hidden)


@register_backbone("mpnet")
class MPNetBackbone(RobertaBackbone):
    """MPNet: RoBERTa without segments, and with one relative position bias for all layers."""

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed; there are no segments."""
        return self.encoder.embeddings(input_ids)

    def shared_inputs(self, hidden: Hidden) -> Mapping[str, Any]:
        """Return the bias of one row; the library copies it for every row, but it broadcasts."""
        return {"position_bias": self.encoder.encoder.compute_position_bias(hidden[:1])}

    def layer(self, index: int, state: LayerState) -> LayerState:
        """Run the layer `index`, counted from 0."""
        outputs = self.layers[index](state.hidden, state.per_row["mask"], **state.shared)
        return state.after(outputs[0])


@register_backbone("distilbert")
class DistilBertBackbone(Backbone):
    """DistilBERT: no segments and no pooler, but a wider head."""

    def find_layers(self) -> Iterable[Any]:
        """Return the encoder layers in the order in which they run."""
        return self.encoder.transformer.layer

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed; there are no segments."""
        return self.encoder.embeddings(input_ids)

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Classify the first token."""
        pooled = functional.relu(model.pre_classifier(state.hidden[:, 0]))
        return model.classifier(model.dropout(pooled))


@register_backbone("albert")
class AlbertBackbone(Backbone):
    """ALBERT: a few layers run again and again, on embeddings that are widened first."""

    def find_layers(self) -> Iterable[Any]:
        """Return the layers as they run, so that each occurs more than once."""
        groups, steps = self.encoder.encoder.albert_layer_groups, self.config.num_hidden_layers
        for step in range(steps):
            # In floats, as the library divides: of 18 steps on 14 groups, integers move the tenth.
            yield from groups[int(step / (steps / len(groups)))].albert_layers

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed and widen."""
        narrow = self.encoder.embeddings(input_ids, token_type_ids)
        return self.encoder.encoder.embedding_hidden_mapping_in(narrow)

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Pool the first token and classify it."""
        pooled = self.encoder.pooler_activation(self.encoder.pooler(state.hidden[:, 0]))
        return model.classifier(model.dropout(pooled))


@register_backbone("deberta-v2")
class DebertaV2Backbone(Backbone):
    """DeBERTa v2 and v3: relative positions in every layer, perhaps a convolution beside one."""

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed; padding is set to zero."""
        return self.encoder.embeddings(input_ids, token_type_ids, mask=attention_mask)

    def per_row_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return the mask as bool, or every layer would convert it again."""
        return {"mask": self.encoder.encoder.get_attention_mask(attention_mask).bool()}

    def traced_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return the mask of one query."""
        return {"mask": attention_mask[:, None, None].bool()}

    def shared_inputs(self, hidden: Hidden) -> Mapping[str, Any]:
        """Return the relative positions and what they are embedded as, each None if unused."""
        return {
            "relative_pos": self.encoder.encoder.get_rel_pos(hidden),
            "rel_embeddings": self.encoder.encoder.get_rel_embedding(),
        }

    def layer(self, index: int, state: LayerState) -> LayerState:
        """Run the layer `index`, counted from 0, and with the first the convolution beside it."""
        hidden = self.layers[index](state.hidden, state.per_row["mask"], **state.shared)[0]
        if index == 0 and self.encoder.encoder.conv is not None:
            hidden = self.encoder.encoder.conv(state.hidden, hidden, state.attention_mask)
        return state.after(hidden)

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Pool the first token and classify it."""
        return model.classifier(model.dropout(model.pooler(state.hidden)))


@register_backbone("modernbert")
class ModernBertBackbone(Backbone):
    """ModernBERT: a layer sees all tokens or a window of them, by its kind; a norm comes last."""

    def find_layers(self) -> Iterable[Any]:
        """Return the encoder layers in the order in which they run."""
        return self.encoder.layers

    def embed(
        self, input_ids: Tokens, attention_mask: Tokens, token_type_ids: Tokens | None
    ) -> Hidden:
        """Embed; there are no segments."""
        return self.encoder.embeddings(input_ids)

    def per_row_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return the mask of each kind of layer."""
        window = create_bidirectional_sliding_window_mask(self.config, hidden, attention_mask)
        assert window is None or isinstance(window, Tensor)  # as in full_attention_mask
        return {
            "full_attention": full_attention_mask(self.config, hidden, attention_mask),
            "sliding_attention": window,
        }

    def traced_inputs(self, hidden: Hidden, attention_mask: Tokens) -> Mapping[str, Tensor | None]:
        """Return the mask of one query, and for the windows one of every query."""
        everywhere = key_bias(attention_mask, hidden.dtype)[:, None, None]
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        distance = (positions[:, None] - positions).abs()
        reach = self.config.local_attention // 2
        outside = (distance > reach).to(hidden.dtype) * NO_WEIGHT
        return {
            "full_attention": everywhere,
            "sliding_attention": torch.minimum(everywhere, outside),
        }

    def shared_inputs(self, hidden: Hidden) -> Mapping[str, Any]:
        """Return the rotations of each kind of layer."""
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        return {
            kind: self.encoder.rotary_emb(hidden, positions, kind)
            for kind in set(self.config.layer_types)
        }

    def layer(self, index: int, state: LayerState) -> LayerState:
        """Run the layer `index`, counted from 0."""
        layer = self.layers[index]
        kind = layer.attention_type
        hidden = layer(
            state.hidden,
            attention_mask=state.per_row[kind],
            position_embeddings=state.shared[kind],
        )
        return state.after(hidden)

    def exit_view(self, hidden: Hidden) -> Hidden:
        """Apply the last norm, as the library does to what its own head reads."""
        return self.encoder.final_norm(hidden)

    def teacher_logits(self, model: Any, state: LayerState) -> Logits:
        """Pool the first token or the mean, as the configuration says, and classify it."""
        hidden, mask = self.exit_view(state.hidden), state.attention_mask
        if self.config.classifier_pooling == "cls":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return model.classifier(model.drop(model.head(pooled)))
