"""Single passes: the teacher answers all rows, without dropout, and once for the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastbert.errors import TrainingError
from fastbert.exits.engine import record
from fastbert.nn.backend import TorchBackend
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training import passes
from fastbert.training.answers import INDEX, TeacherAnswers
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.passes import (
    all_rows,
    foreign_answers,
    hidden_states,
    identity_of,
    teacher_answers,
)
from fastbert.training.stream import TrainingTexts
from tests.recipes.runs import never
from tests.tiny_data import examples, save_classifier
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


@pytest.fixture
def other(tmp_path: Path) -> ForeignTeacher:
    return ForeignTeacher.of(save_classifier(tmp_path / "other"), 9)


def asked(other: ForeignTeacher, folder: Path, rows: list[str], **options: Any) -> TeacherAnswers:
    settings = replace(SETTINGS, **options)
    return foreign_answers(other, iter(rows), len(rows), folder, settings, "some texts")


def test_another_model_answers_each_row_in_its_place_a_few_at_a_time(
    other: ForeignTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row.text for row in TRAIN]
    monkeypatch.setattr(passes, "TOKENISED_TOGETHER", 10)  # so 21 rows are read in three goes
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for row in rows:
            read += 1
            yield row

    write, ask = TeacherAnswers.write, ForeignTeacher.ask
    ahead = []

    def note(folder: Path, answered: Any, *of: Any) -> TeacherAnswers:
        def watched() -> Iterator[Any]:
            written = 0
            for numbers, logits in answered:
                ahead.append(read - written)
                written += len(numbers)
                yield numbers, logits

        return write(folder, watched(), *of)

    monkeypatch.setattr(TeacherAnswers, "write", note)
    answers = foreign_answers(other, counted(), 21, tmp_path / "answers", SETTINGS, "some texts")
    model = other.load()
    alone = [ask(other, model, other.encode([row]))[0] for row in rows]
    assert answers.logits == pytest.approx(np.stack(alone), abs=1e-5)
    assert (read, max(ahead)) == (21, 10)  # never more than a few in memory


def test_answers_of_another_model_are_taken_up_only_of_the_same_weights_length_and_precision(
    other: ForeignTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, folder = [row.text for row in TRAIN], tmp_path / "answers"
    first = np.array(asked(other, folder, rows).logits)
    with monkeypatch.context() as patch:
        patch.setattr(ForeignTeacher, "load", never)
        assert (asked(other, folder, rows).logits == first).all()
        for changed, options in (
            (replace(other, max_length=8), {}),
            (other, {"bf16": True}),
        ):
            with pytest.raises(AssertionError, match="must not be reached"):
                asked(changed, folder, rows, **options)
        with pytest.raises(AssertionError, match="must not be reached"):
            foreign_answers(other, iter(rows), len(rows), folder, SETTINGS, "other texts")
    model = other.load()
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    model.save_pretrained(other.checkpoint)  # type: ignore[operator]
    assert not (asked(other, folder, rows).logits == first).all()


def test_nothing_is_kept_of_a_teacher_that_answers_nan(
    other: ForeignTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ForeignTeacher.ask

    def broken(self: ForeignTeacher, model: Any, rows: Any) -> Any:
        logits = ask(self, model, rows)
        logits[[len(row["input_ids"]) == 4 for row in rows], 1] = np.nan
        return logits

    monkeypatch.setattr(ForeignTeacher, "ask", broken)
    rows = ["word1 word2 word3", "word4 lovely", "plain"]
    with pytest.raises(TrainingError, match="other: answers 'word4 lovely' by NaN or infinity"):
        asked(other, tmp_path / "answers", rows)
    assert not (tmp_path / "answers" / INDEX).exists()
