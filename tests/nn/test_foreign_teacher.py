"""Another model as the teacher: any family, its own tokenizer, with and without padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    PreTrainedModel,
)

from fastbert.errors import BackboneError
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.read import open_folder
from fastbert.folder.write import seal, staged_folder
from fastbert.head_shapes import PaperHead
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.nn.model import FastBertModel, PaperClassifier
from fastbert.tasks.single_label import SingleLabel
from tests.tiny import tiny_classifier, tiny_encoder
from tests.tiny_data import LABELS, VOCABULARY, examples, save_classifier, tiny_tokenizer
from tests.tiny_folder import save_model

TEXTS = [row.text for row in examples(5)] + [("word1 word2", "lovely word3 word4 word5")]
NAMES: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: number for number, label in enumerate(LABELS)},
}


def save_decoder(folder: Path, pad_token_id: int | None) -> Path:
    config = GPT2Config(
        vocab_size=61, n_embd=12, n_layer=2, n_head=2, n_positions=40, pad_token_id=pad_token_id,
        bos_token_id=2, eos_token_id=3, **NAMES,
    )  # fmt: skip
    torch.manual_seed(3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    BertTokenizer(vocab=VOCABULARY, model_input_names=names).save_pretrained(folder)
    return folder


def save_under_paper_head(folder: Path) -> None:
    torch.manual_seed(2)
    head = PaperHead("first", 8, 2)
    model = FastBertModel(PaperClassifier(tiny_encoder("bert", **NAMES), 3, head), "mean")
    with staged_folder(folder) as staging:
        model.save(staging)
        tiny_tokenizer().save_pretrained(staging)
        task = SingleLabel(LABELS)
        seal(staging, EarlyExitConfig(head, task, 4, 20, model.student_shapes))


def one_by_one(model: PreTrainedModel, max_length: int) -> np.ndarray:
    """Return what a model answers to each of `TEXTS` on its own."""
    segments = model.config.model_type == "bert"
    tokenizer, answers = tiny_tokenizer(), []
    for text in TEXTS:
        parts = (text,) if isinstance(text, str) else text
        batch: Any = tokenizer(
            *parts, truncation=True, max_length=max_length, return_tensors="pt",
            return_token_type_ids=segments,
        )  # fmt: skip
        with torch.no_grad():
            answers.append(model.eval()(**batch).logits[0].numpy())
    return np.stack(answers)


def test_it_answers_as_transformers_does_and_cuts_texts_to_its_own_length(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "some-teacher")
    teacher = ForeignTeacher.of(checkpoint, 6)
    rows = teacher.encode(TEXTS)
    assert max(len(row["input_ids"]) for row in rows) == 6
    answers = teacher.ask(teacher.load(), rows)
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert answers == pytest.approx(one_by_one(plain, 6), abs=1e-5)
    assert (teacher.name, teacher.task.labels) == ("some-teacher", LABELS)


@pytest.mark.parametrize("pad_token_id", [0, None])
def test_a_decoder_teaches_too_and_without_padding_it_is_asked_one_text_at_a_time(
    tmp_path: Path, pad_token_id: int | None
) -> None:
    checkpoint = save_decoder(tmp_path / "decoder", pad_token_id)
    teacher = ForeignTeacher.of(checkpoint, 40)
    assert teacher.answers_batches == (pad_token_id is not None)
    model, rows = teacher.load(), teacher.encode(TEXTS)
    if teacher.answers_batches:
        answers = teacher.ask(model, rows)
    else:
        answers = np.concatenate([teacher.ask(model, [row]) for row in rows])
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert answers == pytest.approx(one_by_one(plain, 40), abs=1e-5)
    assert teacher.flops(TEXTS) is None  # what its layers cost is not known here


def test_flops_are_those_of_its_own_tokens(tmp_path: Path) -> None:
    teacher = ForeignTeacher.of(save_classifier(tmp_path / "teacher"), 30)
    shape = FastBertModel(teacher.load(), "mean").backbone  # type: ignore[arg-type]
    assert (shape.num_layers, shape.hidden_size) == (4, 24)
    n = np.array([len(row["input_ids"]) for row in teacher.encode(TEXTS)])
    layer = 2 * n * (4 * 24**2 + 2 * 24 * 40) + 4 * n**2 * 24
    assert teacher.flops(TEXTS) == pytest.approx(float((4 * layer + 2 * 24**2 + 2 * 24 * 3).mean()))


def test_more_tokens_than_it_has_positions_are_refused_with_both_numbers(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "teacher", "roberta")
    with pytest.raises(BackboneError, match="at most 32 tokens, teacher_max_length is 33"):
        ForeignTeacher.of(checkpoint, 33).load()
    decoder = save_decoder(tmp_path / "decoder", 0)
    with pytest.raises(BackboneError, match="at most 40 tokens, teacher_max_length is 41"):
        ForeignTeacher.of(decoder, 41).load()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_labels": 1}, "two or more labels is needed, this one has 1"),
        ({"problem_type": "regression"}, "solves regression"),
        ({"id2label": {0: "a", 1: "a", 2: "b"}}, "must name the classes .* by different names"),
    ],
)
def test_what_answers_something_else_or_has_no_names_is_refused_before_its_weights_are_read(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    tiny_classifier("bert", **overrides).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=message):
        ForeignTeacher.of(tmp_path, 16)


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny_classifier("bert", **NAMES).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="has no tokenizer, such as"):
        ForeignTeacher.of(tmp_path, 16)


@pytest.mark.parametrize("paper_headed", [False, True])
def test_a_folder_of_ours_answers_as_its_last_exit_does(tmp_path: Path, paper_headed: bool) -> None:
    folder = tmp_path / "folder"
    if paper_headed:
        save_under_paper_head(folder)
    else:
        save_model(folder, "bert")
    teacher = ForeignTeacher.of(folder, 16)
    model = teacher.load()
    assert isinstance(model, PaperClassifier) == paper_headed
    ours = FastBertModel.load(open_folder(folder))
    rows = teacher.encode(TEXTS)
    batch: Any = tiny_tokenizer().pad(rows, return_tensors="pt")
    with torch.no_grad():
        expected = ours(**batch)[-1].numpy()
    assert teacher.ask(model, rows) == pytest.approx(expected, abs=1e-5)
    lengths = np.array([len(row["input_ids"]) for row in rows])
    assert teacher.flops(TEXTS) == open_folder(folder).shape.full_flops(lengths).mean()
