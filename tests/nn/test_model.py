"""A teacher and its students: what they answer together, and that they come back from a folder."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastbert.errors import FolderError
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import STUDENTS_FILE, TEACHER_FILE
from fastbert.folder.read import open_folder
from fastbert.folder.write import seal, staged_folder
from fastbert.head_shapes import MeanHead, PaperHead, QueryHead
from fastbert.nn.heads import padding_bias
from fastbert.nn.model import FastBertModel, PaperClassifier, Teacher
from fastbert.tasks.single_label import SingleLabel
from tests.tiny import tiny_batch, tiny_classifier, tiny_encoder
from tests.tiny_data import LABELS, tiny_tokenizer

SHAPE = PaperHead("first", 8, 2)
HEADS = (SHAPE, QueryHead(3, 6), MeanHead())
NAMES = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: number for number, label in enumerate(LABELS)},
}
Head = Literal["pretrained", "paper"]


def made(head: Head) -> FastBertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        teacher: Teacher = tiny_classifier("bert", **NAMES)
        if head == "paper":
            teacher = PaperClassifier(tiny_encoder("bert", **NAMES), len(LABELS), SHAPE)
        return FastBertModel(teacher, HEADS).eval()


@pytest.fixture(params=["pretrained", "paper"])
def head(request: pytest.FixtureRequest) -> Head:
    name: Head = request.param
    return name


def save(model: FastBertModel, folder: Path, head: Head) -> Path:
    with staged_folder(folder) as staging:
        model.save(staging)
        tiny_tokenizer().save_pretrained(staging)
        task = SingleLabel(LABELS)
        teacher_head = SHAPE if head == "paper" else head
        seal(staging, EarlyExitConfig(teacher_head, task, model.num_exits, 20, HEADS))
    return folder


def test_there_is_a_student_after_every_layer_but_the_last(head: Head) -> None:
    model = made(head)
    assert (model.num_exits, len(model.students)) == (4, 3)
    assert len(model.heads) == (4 if head == "paper" else 3)
    assert model.labels == LABELS
    assert model.task == SingleLabel(LABELS)
    assert model.device.type == "cpu"


@torch.inference_mode()
def test_teaching_runs_the_backbone_once_and_answers_as_the_teacher_by_itself(head: Head) -> None:
    model = made(head)
    batch = tiny_batch(model.backbone.encoder)
    calls: list[int] = []
    model.backbone.layers[0].register_forward_hook(lambda *_: calls.append(1))
    readings, logits = model.teach(**batch)
    assert len(calls) == 1

    torch.testing.assert_close(logits, model.teacher(**batch).logits)
    hidden = model.backbone.encoder(**batch, output_hidden_states=True).hidden_states
    assert len(readings) == model.num_exits - 1
    for reading, expected in zip(readings, hidden[1:-1], strict=True):
        torch.testing.assert_close(reading, expected)
    bias = padding_bias(batch["attention_mask"])
    assert len({tuple(student(readings[0], bias)[0].tolist()) for student in model.students}) == 3


@torch.inference_mode()
def test_forward_gives_all_exits_the_teachers_last(head: Head) -> None:
    model = made(head)
    batch = tiny_batch(model.backbone.encoder)
    readings, _ = model.teach(**batch)
    bias = padding_bias(batch["attention_mask"])
    exits = model(**batch)
    assert len(exits) == model.num_exits
    for logits, student, reading in zip(exits[:-1], model.students, readings, strict=True):
        torch.testing.assert_close(logits, student(reading, bias))
    torch.testing.assert_close(exits[-1], model.teacher(**batch).logits)


def test_a_model_comes_back_from_its_folder_to_the_bit(head: Head, tmp_path: Path) -> None:
    model = made(head)
    loaded = FastBertModel.load(open_folder(save(model, tmp_path / "model", head)))
    assert not loaded.training
    assert isinstance(loaded.teacher, PaperClassifier) == (head == "paper")
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def spoil(path: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(path)
    first = next(key for key in tensors if key.endswith(name))
    if tensor is None:
        del tensors[first]
    else:
        tensors[first] = tensor
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "name", "tensor", "message"),
    [
        (STUDENTS_FILE, "classify.bias", None, r"students\.0\.classify\.bias is missing"),
        (STUDENTS_FILE, "classify.bias", torch.zeros(9), r"classify\.bias"),
        (STUDENTS_FILE, "classify.bias", torch.full((3,), torch.nan), "NaN or infinite"),
        (TEACHER_FILE, "classifier.bias", None, r"missing or of another shape: classifier\.bias"),
        (TEACHER_FILE, "classifier.bias", torch.full((3,), torch.inf), "NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    file: str, name: str, tensor: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    with staged_folder(tmp_path / "model") as staging:
        made("pretrained").save(staging)
        tiny_tokenizer().save_pretrained(staging)
        spoil(staging / file, name, tensor)
        seal(staging, EarlyExitConfig("pretrained", SingleLabel(LABELS), 4, 20, HEADS))
    with pytest.raises(FolderError, match=message):
        FastBertModel.load(open_folder(tmp_path / "model"))
