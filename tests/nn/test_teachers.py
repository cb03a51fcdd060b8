"""Teachers from checkpoints: only a head may be new, and a trained classifier must be one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastbert.errors import BackboneError
from fastbert.head_shapes import PaperHead
from fastbert.nn.model import PaperClassifier
from fastbert.nn.teachers import read_config, save_tokenizer, teacher_to_train, trained_teacher
from fastbert.shape import TeacherHead
from fastbert.tasks.single_label import SingleLabel
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, save_classifier, save_encoder, tiny_tokenizer

CLASSES = ("a", "b", "c", "d", "e")


def without(folder: Path, part: str) -> Path:
    """Take the weights with this in their name out of a checkpoint."""
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if part not in name}
    save_file(kept, path, {"format": "pt"})
    return folder


def test_a_configuration_is_read_from_a_folder(tmp_path: Path) -> None:
    assert read_config(save_encoder(tmp_path)).model_type == "bert"


@pytest.mark.parametrize("head", ["pretrained", PaperHead("mean", 6, 3)])
def test_an_encoder_gets_a_fresh_head_of_the_labels_asked_for(
    head: TeacherHead, tmp_path: Path
) -> None:
    teacher = teacher_to_train(save_encoder(tmp_path), SingleLabel(CLASSES), head)
    config: Any = teacher.config
    assert config.id2label == dict(enumerate(CLASSES))
    assert (teacher.head.shape if isinstance(teacher, PaperClassifier) else "pretrained") == head
    saved = load_file(tmp_path / "model.safetensors")
    encoder = teacher.encoder if isinstance(teacher, PaperClassifier) else teacher.base_model
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in saved.items())


@pytest.mark.parametrize("head", ["pretrained", PaperHead("mean", 6, 3)])
def test_a_weight_of_the_encoder_that_is_missing_is_never_random(
    head: TeacherHead, tmp_path: Path
) -> None:
    folder = without(save_encoder(tmp_path), "layer.2.")
    with pytest.raises(BackboneError, match=r"16 weights of the encoder are missing.* and 13 more"):
        teacher_to_train(folder, SingleLabel(LABELS), head)


def test_a_pooler_may_be_new(tmp_path: Path) -> None:
    assert teacher_to_train(without(save_encoder(tmp_path), "pooler."), SingleLabel(LABELS))


def test_a_classifier_is_taken_as_it_is(tmp_path: Path) -> None:
    teacher = trained_teacher(save_classifier(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in saved.items())


def test_an_encoder_is_no_trained_classifier(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"it lacks classifier\.bias.*`fastbert train`"):
        trained_teacher(save_encoder(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_labels": 1}, "has 1 and solves regression"),
        ({"num_labels": 3, "problem_type": "regression"}, "has 3 and solves regression"),
        ({"id2label": {0: "a", 1: "a", 2: "b"}}, "by different names"),
    ],
)
def test_a_classifier_of_another_kind_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tiny_classifier("bert", **settings).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=message):
        trained_teacher(tmp_path)


def test_a_tokenizer_is_written_as_serving_reads_it(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "from")
    (tmp_path / "from" / "config.json").write_text('{"model_type": "bert"}')
    save_tokenizer(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / "tokenizer.json").exists()
