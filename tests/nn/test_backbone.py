"""What every adapter shares: a state whose rows can be kept, a registry, a finite mask."""

from collections.abc import Iterator

import pytest
import torch

from fastbert.nn import backbone as module
from fastbert.nn.backbone import Backbone, LayerState, key_bias, register_backbone
from fastbert.nn.backbones import BertBackbone, backbone_for
from tests.tiny import tiny_batch, tiny_classifier

ROWS, LENGTH, WIDTH = 5, 7, 3


@pytest.fixture
def registry() -> Iterator[dict[str, type[Backbone]]]:
    before = dict(module.registry)
    yield module.registry
    module.registry.clear()
    module.registry.update(before)


def state() -> LayerState:
    numbered = torch.arange(ROWS)
    hidden = numbered[:, None, None].expand(ROWS, LENGTH, WIDTH).float()
    mask = torch.ones(ROWS, LENGTH, dtype=torch.long)
    return LayerState(hidden, mask, {"bias": numbered.float(), "mask": None}, {"table": numbered})


def test_rows_are_kept_in_the_order_given_and_what_is_shared_stays_whole() -> None:
    kept = state().keep(torch.tensor([3, 0]))
    assert kept.hidden[:, 0, 0].tolist() == [3, 0]
    assert kept.attention_mask.shape == (2, LENGTH)
    bias = kept.per_row["bias"]
    assert bias is not None
    assert bias.tolist() == [3, 0]
    assert kept.per_row["mask"] is None
    assert len(kept.shared["table"]) == ROWS


def test_a_layer_changes_the_hidden_states_alone() -> None:
    before = state()
    after = before.after(before.hidden + 1)
    assert torch.equal(after.hidden, before.hidden + 1)
    assert after.attention_mask is before.attention_mask
    assert (after.per_row, after.shared) == (before.per_row, before.shared)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_gets_no_weight_and_a_row_of_padding_alone_no_nan(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    weights = torch.softmax(torch.zeros(2, 3, dtype=dtype) + key_bias(mask, dtype), dim=-1)
    assert weights[0].tolist() == [0.5, 0.5, 0.0]
    assert torch.isfinite(weights[1]).all()


def test_the_class_registered_last_is_a_familys_adapter(
    registry: dict[str, type[Backbone]],
) -> None:
    @register_backbone("bert", "another")
    class Mine(BertBackbone):
        pass

    assert registry["another"] is registry["bert"] is Mine
    assert isinstance(backbone_for(tiny_classifier("bert")), Mine)


@torch.inference_mode()
def test_a_backbone_without_a_classification_head_says_so() -> None:
    model = tiny_classifier("bert")
    backbone = Backbone(model)
    with pytest.raises(NotImplementedError, match="Backbone knows no classification head"):
        backbone.teacher_logits(model, backbone.start(**tiny_batch(model)))


def test_a_bare_backbone_reads_its_sizes_from_the_configuration() -> None:
    backbone = Backbone(tiny_classifier("bert"))
    sizes = (backbone.num_layers, backbone.hidden_size, backbone.max_length)
    assert sizes == (4, 24, 34)
