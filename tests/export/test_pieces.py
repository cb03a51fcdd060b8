"""Pieces, joined by hand one after the other, answer as the model does."""

import copy
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fastbert.errors import ExportError
from fastbert.export.pieces import piece_models, to_onnx
from fastbert.head_shapes import PaperHead
from fastbert.nn.heads import padding_bias
from fastbert.nn.model import FastBertModel, PaperClassifier
from tests.tiny import CLASSES, FAMILIES, tiny_batch, tiny_classifier, tiny_encoder

LENGTHS = (5, 11, 2, 8)  # neither the rows nor the length of the trace
# A layer takes seconds to trace. Of two, one has a student, and they differ where a family has two
# kinds; one, the teacher's, is enough for a family whose layers are alike and students as BERT's.
LAYERS = dict.fromkeys(("albert", "bert", "deberta-v2", "modernbert", "roberta"), 2)
HEADS = {
    "albert": "queries/3/8/learned",
    "deberta-v2": "mean",
    "modernbert": "queries/3/6",
    "roberta": "paper/mean/8",
}


def layers(family: str) -> dict[str, Any]:
    name = "n_layers" if family == "distilbert" else "num_hidden_layers"
    return {name: LAYERS.get(family, 1)}


def random_model(teacher: Any, heads: str = "paper/first/8") -> FastBertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return FastBertModel(teacher, heads).eval()


@cache
def traced(family: str) -> tuple[FastBertModel, list[onnx.ModelProto]]:
    """Return a model that was training when it was traced, and its pieces."""
    teacher = tiny_classifier(family, **layers(family))
    model = random_model(teacher, HEADS.get(family, "paper/first/8")).train()
    return model, piece_models(model, gives_segments="token_type_ids" in tiny_batch(teacher))


@torch.no_grad()
def answers_of_torch(model: FastBertModel, batch: dict[str, Tensor]) -> list[np.ndarray]:
    state, bias = model.backbone.start(**batch), padding_bias(batch["attention_mask"])
    answers = []
    for layer in range(model.num_exits):
        state = model.backbone.layer(layer, state)
        if layer < len(model.students):
            answers.append(model.students[layer](model.backbone.exit_view(state.hidden), bias))
        else:
            answers.append(model.teacher_logits(state))
    return [answer.numpy() for answer in answers]


def answers_of_pieces(pieces: list[onnx.ModelProto], batch: dict[str, Tensor]) -> list[np.ndarray]:
    feeds = {name: tensor.numpy() for name, tensor in batch.items()}
    answers = []
    for piece in pieces:
        session = onnxruntime.InferenceSession(piece.SerializeToString())
        outputs = [item.name for item in session.get_outputs()]
        inputs = {item.name: feeds[item.name] for item in session.get_inputs()}
        results = dict(zip(outputs, session.run(None, inputs), strict=True))
        answers += [results[name] for name in outputs if name == "logits"]
        if outputs[0] != "logits":
            feeds["hidden"] = results[outputs[0]]
    return answers


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_answers_alike_in_another_shape_than_was_traced(family: str) -> None:
    model, pieces = traced(family)
    batch = tiny_batch(model.backbone.encoder, LENGTHS)
    for ours, theirs in zip(
        answers_of_pieces(pieces, batch),
        answers_of_torch(copy.deepcopy(model).eval(), batch),
        strict=True,
    ):
        assert ours.shape == (len(LENGTHS), CLASSES)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_papers_teacher_answers_alike() -> None:
    encoder = tiny_encoder("bert", num_hidden_layers=1)
    encoder.config.id2label = {0: "a", 1: "b", 2: "c"}
    teacher = PaperClassifier(encoder, CLASSES, PaperHead("first", 8, 2)).eval()
    model = random_model(teacher)
    batch = tiny_batch(encoder, LENGTHS)
    [answer] = answers_of_pieces(piece_models(model, gives_segments=True), batch)
    np.testing.assert_allclose(answer, answers_of_torch(model, batch)[0], atol=1e-5)


def test_the_model_stays_as_it_is() -> None:
    model, _ = traced("bert")
    assert model.teacher.config._attn_implementation == "sdpa"
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


class ReadsItsSize(nn.Module):
    """Does what the exporter can only do for one number of rows."""

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return hidden.reshape(len(hidden), -1, 1)


def test_a_trace_that_holds_for_one_shape_only_is_refused() -> None:
    inputs = {"hidden": torch.zeros(3, 7, 4), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    with pytest.raises(ExportError, match=r"^ReadsItsSize: the trace holds for one shape only"):
        to_onnx(ReadsItsSize(), inputs, ["hidden_after"])


def test_a_piece_says_nothing_of_the_machine_that_traced_it() -> None:
    for piece in traced("bert")[1]:
        content = piece.SerializeToString()
        assert b"/src/fastbert" not in content
        assert b"site-packages" not in content
