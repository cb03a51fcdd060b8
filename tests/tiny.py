"""Tiny models with random weights, one of every family, and batches for them.

No two sizes of a model are equal, so a swapped axis cannot pass unseen, and every parameter is
random, biases and norms included, so one that is left out cannot either.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

CLASSES = 3

_BERT = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 34,
}
_SEGMENTS = {"type_vocab_size": 2}

# What the authors of a family made of it, in small. The keys are the `model_type`s.
FAMILIES: dict[str, dict[str, Any]] = {
    "albert": _BERT | _SEGMENTS | {"hidden_size": 28, "embedding_size": 10},
    "bert": _BERT | _SEGMENTS,
    "camembert": _BERT | {"hidden_size": 20, "num_hidden_layers": 3, "type_vocab_size": 1},
    "deberta-v2": _BERT
    | {"hidden_size": 26, "relative_attention": True, "position_buckets": 5}
    | {"pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm"}
    | {"position_biased_input": False, "type_vocab_size": 0},
    "distilbert": {"vocab_size": 61, "dim": 18, "n_layers": 3, "n_heads": 2, "hidden_dim": 40}
    | {"max_position_embeddings": 34},
    "electra": _BERT | _SEGMENTS | {"hidden_size": 30, "embedding_size": 10},
    "ernie": _BERT | _SEGMENTS | {"hidden_size": 14, "use_task_id": True},
    "modernbert": _BERT
    | {"hidden_size": 32, "num_hidden_layers": 5, "local_attention": 6}
    | {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1}
    | dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 0)
    | dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "mpnet": _BERT | {"hidden_size": 22, "num_hidden_layers": 3},
    "roberta": _BERT | {"hidden_size": 12, "num_hidden_layers": 5, "type_vocab_size": 1},
    "xlm-roberta": _BERT | {"hidden_size": 16, "type_vocab_size": 1},
}


def tiny_classifier(family: str, **overrides: Any) -> PreTrainedModel:
    """Return a `*ForSequenceClassification` model in evaluation mode, always the same one.

    Args:
        family: One of `FAMILIES`.
        overrides: What its configuration shall have instead.
    """
    return _randomised(AutoModelForSequenceClassification, tiny_config(family, **overrides))


def tiny_encoder(family: str, **overrides: Any) -> PreTrainedModel:
    """Return a plain encoder without a head, else as `tiny_classifier`."""
    return _randomised(AutoModel, tiny_config(family, **overrides))


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """Return the configuration of a tiny model."""
    settings = {"num_labels": CLASSES} | FAMILIES[family] | overrides
    config: PreTrainedConfig = AutoConfig.for_model(family, **settings)
    return config


def tiny_batch(
    model: PreTrainedModel,
    lengths: Sequence[int] = (9, 4, 6),
    padding_side: Literal["left", "right"] = "right",
) -> dict[str, Tensor]:
    """Return random tokens, always the same, as the keyword arguments that a model takes.

    Args:
        model: Gives the vocabulary and the padding id, and has segments or not.
        lengths: The number of real tokens of each row.
        padding_side: Where the shorter rows are filled up.
    """
    config, longest = model.config, max(lengths)
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens = torch.randint(3, config.vocab_size, (len(lengths), longest), generator=generator)
    places = torch.arange(longest)
    if padding_side == "left":
        places = places.flip(0)
    mask = (places < torch.tensor(lengths).unsqueeze(1)).long()
    batch = {
        "input_ids": tokens.where(mask == 1, torch.tensor(config.pad_token_id)),
        "attention_mask": mask,
    }
    if getattr(config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = (torch.arange(longest) >= 3).long() * mask
    return batch


def _randomised(auto: Any, config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model: PreTrainedModel = auto.from_config(config)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        model.eval()
    return model
