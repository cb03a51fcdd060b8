"""The families of encoders, each adapted in a few lines.

A family that is not here is added with `register_backbone`; docs/backbones.md shows how.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import (
    create_bidirectional_sliding_window_mask,
)

from fastbert.errors import BackboneError
from fastbert.nn.backbone import (
    NO_WEIGHT,
    Backbone,
    Hidden,
    LayerState,
    Logits,
    Tokens,
    full_attention_mask,
    key_bias,
    register_backbone,
    registry,
)


def backbone_for(model: PreTrainedModel) -> Backbone:
    """Return the backbone of a model.

    Args:
        model: A `*ForSequenceClassification` model or a plain encoder.

    Raises:
        BackboneError: The family is unknown, the configuration makes the model a decoder, or its
            attention takes masks that cannot be cut down to some of the rows.
    """
    config = model.config
    if config.model_type not in registry:
        raise BackboneError(
            f"unknown encoder family {config.model_type!r}, known are "
            f"{', '.join(sorted(registry))}; see 'How to add a family' in docs/backbones.md"
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
    return registry[config.model_type](model)


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
