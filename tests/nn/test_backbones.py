import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    MegatronBertConfig,
    MegatronBertForSequenceClassification,
    PreTrainedModel,
)

from fastbert.errors import BackboneError
from fastbert.nn import backbone as backbone_module
from fastbert.nn.backbone import Backbone, LayerState
from fastbert.nn.backbones import backbone_for
from tests.tiny import FAMILIES, tiny_batch, tiny_classifier, tiny_encoder

DOCS = Path(__file__).parents[2] / "docs" / "backbones.md"

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "albert of three groups": ("albert", {"num_hidden_layers": 5, "num_hidden_groups": 3}),
    "albert where the library rounds": (
        "albert",
        {"num_hidden_layers": 18, "num_hidden_groups": 14},
    ),
    "albert of two layers a group": ("albert", {"num_hidden_layers": 3, "inner_group_num": 2}),
    "bert with eager attention": ("bert", {"attn_implementation": "eager"}),
    "deberta with absolute positions only": (
        "deberta-v2",
        {"relative_attention": False, "pos_att_type": None, "position_biased_input": True},
    ),
    "deberta-v2 as published, with convolution": (
        "deberta-v2",
        {"conv_kernel_size": 3, "conv_act": "gelu", "share_att_key": True},
    ),
    "deberta-v2 with own position keys and segments": (
        "deberta-v2",
        {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1}
        | {"type_vocab_size": 2, "conv_kernel_size": 3},
    ),
    "electra of one width": ("electra", {"embedding_size": 30}),
    "ernie without tasks": ("ernie", {"use_task_id": False}),
    "modernbert, mean": ("modernbert", {"classifier_pooling": "mean"}),
    "modernbert with eager attention": ("modernbert", {"attn_implementation": "eager"}),
    "modernbert, window wider than the text": ("modernbert", {"local_attention": 64}),
    "roberta with segments": ("roberta", {"type_vocab_size": 2}),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {f: (f, {}) for f in FAMILIES} | OPTIONS

every_model = pytest.mark.parametrize("name", MODELS)
every_padding = pytest.mark.parametrize(
    ("lengths", "side"),
    [((9, 4, 6), "right"), ((9, 4, 6), "left"), ((7, 7), "right"), ((5,), "right")],
    ids=["padded right", "padded left", "unpadded", "one row"],
)


def classifier(name: str) -> PreTrainedModel:
    family, overrides = MODELS[name]
    return tiny_classifier(family, **overrides)


def run(backbone: Backbone, batch: dict[str, torch.Tensor]) -> list[LayerState]:
    """Return the state after the embeddings and after every layer."""
    states = [backbone.start(**batch)]
    for index in range(backbone.num_layers):
        states.append(backbone.layer(index, states[-1]))
    return states


@every_model
@every_padding
@torch.inference_mode()
def test_every_layer_gives_exactly_what_the_library_gives(
    name: str, lengths: tuple[int, ...], side: Any
) -> None:
    model = classifier(name)
    backbone = backbone_for(model)
    batch = tiny_batch(model, lengths, side)

    *expected, last = model(**batch, output_hidden_states=True).hidden_states
    states = run(backbone, batch)

    assert len(states) == len(expected) + 1
    for state, hidden in zip(states, expected, strict=False):
        assert torch.equal(state.hidden, hidden)
    # The library's last entry is what heads read: ModernBERT's has gone through the last norm.
    assert torch.equal(backbone.exit_view(states[-1].hidden), last)


@every_model
@every_padding
@torch.inference_mode()
def test_the_teacher_gives_exactly_the_logits_of_the_library(
    name: str, lengths: tuple[int, ...], side: Any
) -> None:
    model = classifier(name)
    backbone = backbone_for(model)
    batch = tiny_batch(model, lengths, side)

    logits = backbone.teacher_logits(model, run(backbone, batch)[-1])

    assert torch.equal(logits, model(**batch).logits)


@every_model
def test_dropout_and_gradients_are_the_library_s_while_a_model_trains(name: str) -> None:
    model = classifier(name).train()
    backbone = backbone_for(model)
    batch = tiny_batch(model)

    torch.manual_seed(5)
    expected = model(**batch).logits
    torch.manual_seed(5)
    logits = backbone.teacher_logits(model, run(backbone, batch)[-1])

    assert torch.equal(logits, expected)
    embeddings = model.get_input_embeddings().weight
    [by_library] = torch.autograd.grad(expected.square().sum(), embeddings)
    [by_us] = torch.autograd.grad(logits.square().sum(), embeddings)
    torch.testing.assert_close(by_us, by_library)


@every_model
@torch.inference_mode()
def test_rows_that_are_kept_go_on_as_if_nobody_had_left(name: str) -> None:
    model = classifier(name)
    backbone = backbone_for(model)
    states = run(backbone, tiny_batch(model))
    rows = torch.tensor([2, 0])

    for layers_done, state in enumerate(states[:-1]):
        kept = state.keep(rows)
        for index in range(layers_done, backbone.num_layers):
            kept = backbone.layer(index, kept)
            expected = states[index + 1].hidden[rows]
            torch.testing.assert_close(kept.hidden, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            backbone.teacher_logits(model, kept),
            backbone.teacher_logits(model, states[-1])[rows],
            rtol=0,
            atol=1e-5,
        )


@every_model
@torch.inference_mode()
def test_keeping_rows_compacts_every_per_row_tensor_and_leaves_the_state_alone(name: str) -> None:
    model = classifier(name)
    state = backbone_for(model).start(**tiny_batch(model))
    before = state.hidden.clone(), state.attention_mask.clone()

    kept = state.keep(torch.tensor([1]))

    assert torch.equal(kept.attention_mask, state.attention_mask[[1]])
    assert kept.per_row.keys() == state.per_row.keys()
    assert [tensor.shape[0] for tensor in kept.per_row.values() if tensor is not None] == [
        1 for tensor in state.per_row.values() if tensor is not None
    ]
    assert torch.equal(state.hidden, before[0])
    assert torch.equal(state.attention_mask, before[1])


@every_model
@torch.inference_mode()
def test_rows_merged_after_any_layer_go_on_as_if_alone(name: str) -> None:
    model = classifier(name)
    backbone = backbone_for(model)
    batches = [tiny_batch(model, lengths) for lengths in ((9, 4, 6), (5,), (11, 7))]
    alone = [run(backbone, batch) for batch in batches]
    expected = torch.cat([backbone.teacher_logits(model, states[-1]) for states in alone])

    for layers_done in range(backbone.num_layers):
        merged = backbone.merge([states[layers_done] for states in alone])
        for index in range(layers_done, backbone.num_layers):
            merged = backbone.layer(index, merged)
        ends = [
            (h, m) for *_, end in alone for h, m in zip(end.hidden, end.attention_mask, strict=True)
        ]
        for row, (hidden, mask) in enumerate(ends):
            real = mask.bool()
            found = merged.hidden[row, : len(real)][real]
            torch.testing.assert_close(found, hidden[real], rtol=0, atol=1e-5)
        logits = backbone.teacher_logits(model, merged)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@every_model
@torch.inference_mode()
def test_merged_rows_are_as_long_as_the_longest_that_is_left(name: str) -> None:
    model = classifier(name)
    backbone = backbone_for(model)
    one, other = (backbone.start(**tiny_batch(model, lengths)) for lengths in ((9, 4, 6), (5,)))
    merged = backbone.merge([one.keep(torch.tensor([1])), other])
    assert merged.attention_mask.sum(dim=1).tolist() == [4, 5]
    assert merged.attention_mask.shape == merged.hidden.shape[:2] == (2, 5)


@every_model
@torch.inference_mode()
def test_nothing_shared_grows_with_the_rows(name: str) -> None:
    model = classifier(name)
    backbone = backbone_for(model)

    def shapes(value: Any) -> Any:
        if isinstance(value, tuple):  # ModernBERT's cosines and sines
            return [shapes(part) for part in value]
        return None if value is None else value.shape

    one, five = (backbone.start(**tiny_batch(model, [7] * rows)).shared for rows in (1, 5))

    assert one.keys() == five.keys()
    assert [shapes(one[name]) for name in one] == [shapes(five[name]) for name in one]


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_plain_encoder_is_a_backbone_too(family: str) -> None:
    encoder = tiny_encoder(family)
    backbone = backbone_for(encoder)
    batch = tiny_batch(encoder)

    hidden = backbone.exit_view(run(backbone, batch)[-1].hidden)

    assert torch.equal(hidden, encoder(**batch).last_hidden_state)
    assert hidden.shape[-1] == backbone.hidden_size


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_segments_reach_the_embeddings_where_a_family_has_them(family: str) -> None:
    model = tiny_classifier(family)
    backbone = backbone_for(model)
    batch = tiny_batch(model)
    segments = batch.pop("token_type_ids", None)

    without = backbone.start(**batch).hidden
    # A family without segments takes the zeros that its tokenizer may give, and ignores them.
    segments_or_zeros = torch.zeros_like(batch["input_ids"]) if segments is None else segments
    with_segments = backbone.start(**batch, token_type_ids=segments_or_zeros).hidden

    assert torch.equal(without, with_segments) == (segments is None)


def test_the_families_that_have_segments_are_tested_with_segments() -> None:
    having = [f for f in FAMILIES if "token_type_ids" in tiny_batch(tiny_classifier(f))]
    assert having == ["albert", "bert", "electra", "ernie"]


@every_model
def test_no_layer_stands_for_another(name: str) -> None:
    """bert-squeeze built its layers as `[BertLayer(config)] * n`: n times the same object."""
    model = classifier(name)
    backbone = backbone_for(model)
    weights = {next(layer.parameters()).data_ptr() for layer in backbone.layers}

    if model.config.model_type == "albert":
        distinct = model.config.num_hidden_groups * model.config.inner_group_num
    else:
        distinct = model.config.num_hidden_layers
        assert backbone.num_layers == distinct
    assert len({id(layer) for layer in backbone.layers}) == distinct
    assert len(weights) == distinct


@pytest.mark.parametrize(
    "name", [*FAMILIES, "deberta with absolute positions only", "roberta with segments"]
)
@torch.inference_mode()
def test_the_longest_text_is_the_longest_that_has_positions(name: str) -> None:
    model = classifier(name)
    backbone = backbone_for(model)

    def run_a_text_of(length: int) -> None:
        run(backbone, tiny_batch(model, [length]))

    run_a_text_of(backbone.max_length)
    if name in ("deberta-v2", "modernbert"):  # relative positions go on, untrained
        assert backbone.max_length == model.config.max_position_embeddings
    else:
        with pytest.raises((IndexError, RuntimeError)):
            run_a_text_of(backbone.max_length + 1)


def tiny_megatron() -> PreTrainedModel:
    """Return a model of a family that has no adapter here."""
    config = MegatronBertConfig(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=40,
        initializer_range=0.3,
    )
    return MegatronBertForSequenceClassification(config).eval()


def test_an_unknown_family_is_refused_with_the_known_ones_and_where_to_read() -> None:
    with pytest.raises(BackboneError, match="unknown encoder family 'megatron-bert'") as refusal:
        backbone_for(tiny_megatron())

    message = str(refusal.value)
    assert ", ".join(sorted(FAMILIES)) in message
    assert "'How to add a family' in docs/backbones.md" in message
    assert "## How to add a family" in DOCS.read_text(encoding="utf-8")
    assert "\n" not in message


def test_a_decoder_is_refused() -> None:
    with pytest.raises(BackboneError, match="set is_decoder to false"):
        backbone_for(tiny_classifier("roberta", is_decoder=True))


def test_attention_whose_masks_cannot_lose_rows_is_refused() -> None:
    model = tiny_classifier("bert")
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(BackboneError, match="attn_implementation='sdpa'"):
        backbone_for(model)


def test_the_docs_name_every_family() -> None:
    known = set(re.findall(r"`([a-z0-9-]+)`", DOCS.read_text(encoding="utf-8")))
    assert set(FAMILIES) == set(backbone_module.registry)
    assert set(FAMILIES) <= known


def docs_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@torch.inference_mode()
def test_the_family_that_the_docs_add_equals_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(backbone_module.registry, "megatron-bert", Backbone)  # removed in the end
    model = tiny_megatron()
    batch = tiny_batch(model)

    adapter, check = docs_examples()
    assert len(adapter.strip().splitlines()) <= 20
    names: dict[str, Any] = {"model": model, "batch": batch}
    exec(adapter, names)
    exec(check, names)

    backbone = backbone_for(model)
    states = run(backbone, batch)
    expected = model(**batch, output_hidden_states=True).hidden_states
    for state, hidden in zip(states[:-1], expected[:-1], strict=True):
        assert torch.equal(state.hidden, hidden)
    assert torch.equal(backbone.exit_view(states[-1].hidden), expected[-1])
    assert torch.equal(backbone.teacher_logits(model, states[-1]), model(**batch).logits)
