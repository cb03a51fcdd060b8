"""Single passes: the teacher answers all rows, without dropout, and once for the same weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastbert.exits.engine import record
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.passes import all_rows, hidden_states, identity_of, teacher_answers
from fastbert.training.stream import TrainingTexts
from tests.recipes.runs import never
from tests.tiny_data import examples
from tests.training.learning import SETTINGS, fresh_model, texts_of

TRAIN, DEV = examples(21), examples(10, seed=1)


@pytest.fixture
def model() -> FastBertModel:
    return fresh_model()


@pytest.fixture
def texts(model: FastBertModel, tokenizer: TextTokenizer, tmp_path: Path) -> TrainingTexts:
    made = texts_of(model, tokenizer, TRAIN, DEV, tmp_path / "texts")
    assert made.labels is not None
    return replace(made, labels=made.labels[:15])  # the last six are without


def test_the_teacher_answers_all_rows_those_of_dev_last_as_in_use(
    model: FastBertModel, tokenizer: TextTokenizer, texts: TrainingTexts, tmp_path: Path
) -> None:
    model.train()
    answers = teacher_answers(model, tokenizer, texts, tmp_path / "answers", SETTINGS)
    batch = tokenizer.collate(tokenizer.encode([row.text for row in TRAIN + DEV]))
    expected = record(TorchBackend(model.eval()), batch)[-1]
    assert answers.logits == pytest.approx(expected, abs=1e-5)


def test_answers_that_are_there_are_not_computed_again_unless_the_teacher_has_changed(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = teacher_answers(model, tokenizer, texts, tmp_path / "answers", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(TeacherAnswers, "write", never)
        again = teacher_answers(model, tokenizer, texts, tmp_path / "answers", SETTINGS)
    assert (again.logits == first.logits).all()
    before = torch.tensor(first.logits)
    with torch.no_grad():
        next(model.teacher.parameters()).add_(0.5)
    changed = teacher_answers(model, tokenizer, texts, tmp_path / "answers", SETTINGS)
    assert not torch.equal(torch.tensor(changed.logits), before)


def test_a_pass_is_told_apart_by_texts_weights_and_precision(
    model: FastBertModel, texts: TrainingTexts
) -> None:
    both = all_rows(texts, SETTINGS)
    assert [stream.first_row for stream in both] == [0, 21]
    found = {identity_of(model, both, bf16=False), identity_of(model, both, bf16=True)}
    found.add(identity_of(model, all_rows(replace(texts, dev=None), SETTINGS), bf16=False))
    with torch.no_grad():
        next(model.teacher.parameters()).add_(0.5)
    found.add(identity_of(model, both, bf16=False))
    assert len(found) == 4
    with torch.no_grad():
        next(model.students.parameters()).add_(0.5)  # they have no part in it
    assert identity_of(model, both, bf16=False) in found


def test_hidden_states_are_of_all_rows_labelled_or_not(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = hidden_states(model, tokenizer, texts, tmp_path / "cache", SETTINGS)
    assert len(cache.logits) == len(TRAIN) + len(DEV)
    monkeypatch.setattr(HiddenCache, "build", never)
    again = hidden_states(model, tokenizer, texts, tmp_path / "cache", SETTINGS)
    assert (again.logits == cache.logits).all()
