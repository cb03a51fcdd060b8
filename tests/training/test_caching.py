"""Hidden states are kept where that saves passes and fits, and a stage stays with its choice."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastbert.errors import TrainingError
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training import caching
from fastbert.training.caching import kept_hidden_states
from fastbert.training.hidden_cache import HiddenCache, bytes_of
from fastbert.training.scheme import SchemeSettings, paper
from fastbert.training.stage import Stage
from fastbert.training.stream import TrainingTexts
from tests.tiny_data import examples
from tests.training.learning import SETTINGS, fresh_model, texts_of


def students(*, epochs: int = 2, cached: bool | None = None) -> Stage:
    settings = replace(SETTINGS, epochs=epochs)
    return paper(SchemeSettings(distillation=settings, cache_hidden_states=cached)).stages[1]


class Case:
    """A model and its texts, and what a stage finds or makes in a folder."""

    def __init__(self, tokenizer: TextTokenizer, folder: Path) -> None:
        self.model: FastBertModel = fresh_model().eval()
        self.tokenizer, self.folder = tokenizer, folder
        self.texts: TrainingTexts = texts_of(
            self.model, tokenizer, examples(20), examples(7, seed=1), folder
        )

    def kept(self, stage: Stage, *, resume: bool = False) -> HiddenCache | None:
        return kept_hidden_states(
            stage, self.model, self.tokenizer, self.texts, self.folder, resume=resume
        )

    @property
    def size(self) -> int:
        """What the file needs, by what was written."""
        self.kept(students(cached=True))
        size = np.load(self.folder / "hidden.npy", mmap_mode="r").nbytes
        shutil.rmtree(self.folder)
        return size


@pytest.fixture
def case(tokenizer: TextTokenizer, tmp_path: Path) -> Case:
    return Case(tokenizer, tmp_path / "stage")


def free_bytes(patch: pytest.MonkeyPatch, free: int) -> None:
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_the_bytes_are_those_of_the_file(case: Case) -> None:
    tokens = int(case.texts.train.lengths().sum())
    assert case.texts.dev is not None
    tokens += int(case.texts.dev.lengths().sum())
    assert bytes_of(case.model, tokens) == case.size


@pytest.mark.parametrize(
    ("epochs", "asked", "kept"),
    [(2, None, True), (1, None, False), (1, True, True), (2, False, False)],
)
def test_it_is_kept_where_asked_for_and_else_where_there_are_several_epochs(
    epochs: int, asked: bool | None, kept: bool, case: Case
) -> None:
    found = case.kept(students(epochs=epochs, cached=asked))
    assert (found is not None) == kept == (case.folder / "hidden.npy").exists()


@pytest.mark.parametrize("short", [0, 1])
def test_it_may_take_a_quarter_of_the_free_disk(
    short: int, case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free_bytes(monkeypatch, 4 * case.size - short)
    assert (case.kept(students()) is None) == bool(short)
    assert [record.getMessage()[:41] for record in caplog.records] == [
        "students: runs the encoder in every epoch"
    ] * short


def test_it_may_take_so_many_bytes_and_no_more(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caching.MOST_BYTES == 16e9
    monkeypatch.setattr(caching, "MOST_BYTES", case.size - 1)
    assert case.kept(students()) is None


def test_a_resumed_stage_goes_on_as_it_began(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    size = case.size
    with monkeypatch.context() as patch:
        free_bytes(patch, size)
        assert case.kept(students()) is None
    assert case.kept(students(), resume=True) is None
    assert case.kept(students()) is not None
    free_bytes(monkeypatch, size)
    assert case.kept(students(), resume=True) is not None


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_began_with_a_cache_stops_where_there_is_no_room_and_what_begins_does_without(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert case.kept(students()) is not None
    (case.folder / "index.npz").unlink()
    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with pytest.raises(TrainingError, match=r"hidden\.npy: .* make room"):
        case.kept(students(), resume=True)
    assert case.kept(students()) is None
    assert "the hidden states need" in caplog.text


def test_what_exceeds_half_precision_is_not_kept_however_often_it_begins(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "isfinite", lambda tensor: tensor.isnan())
    with pytest.raises(TrainingError, match="exceeds half precision"):
        case.kept(students(cached=True))
    case.folder.joinpath(caching.CHOICE).write_text("true")  # killed while it was made
    assert case.kept(students(), resume=True) is None
    assert not (case.folder / "hidden.npy").exists()
    assert case.kept(students(), resume=True) is None
    assert caplog.text.count("exceeds half precision") == 1
