"""Hidden states on disk teach what the backbone does, and only what they were made of."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fastbert.data.example import Example
from fastbert.errors import TrainingError
from fastbert.nn.backend import batch_tensors
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.trainer import StageTrainer
from tests.tiny_data import examples
from tests.training.learning import SETTINGS, distill, distill_some, fresh_model


def test_the_cache_teaches_what_the_backbone_does(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    model = fresh_model()
    model.eval()
    tokens = tokenizer.encode([row.text for row in examples(9)])
    lengths = np.array([len(row) for row in tokens])
    order = [[3, 0, 7, 8], [1, 2, 4, 5, 6]]  # rows arrive in any order
    batches = [
        {
            **batch_tensors(tokenizer.collate([tokens[row] for row in rows])),
            "row": torch.tensor(rows),
        }
        for rows in order
    ]
    cache = HiddenCache.build(model, batches, lengths, tmp_path, identity="its", bf16=False)

    wanted = [6, 3, 1]
    batch = batch_tensors(tokenizer.collate([tokens[row] for row in wanted]))
    with torch.no_grad():
        readings, logits = model.teach(**batch)
    cached_readings, cached_logits = cache.teach(row=torch.tensor(wanted), **batch)
    real = batch["attention_mask"].bool()
    assert len(cached_readings) == len(readings)
    for cached, live in zip(cached_readings, readings, strict=True):
        torch.testing.assert_close(cached[real], live[real], atol=5e-3, rtol=5e-3)
        assert not cached[~real].any()
    torch.testing.assert_close(cached_logits, logits)


def test_students_learn_from_the_cache_too(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    live, cached = fresh_model(), fresh_model()
    distill_some(live, tokenizer, tmp_path / "live")
    distill_some(cached, tokenizer, tmp_path / "cached", cache=True)
    for name, tensor in live.students.state_dict().items():
        torch.testing.assert_close(cached.students.state_dict()[name], tensor, atol=0.05, rtol=0.05)


def change_a_text(model: FastBertModel, texts: list[Example]) -> None:
    texts[3] = replace(texts[3], text="word1 word2")


def change_a_weight(model: FastBertModel, texts: list[Example]) -> None:
    with torch.no_grad():
        next(model.teacher.parameters())[3, 0] += 1


@pytest.mark.parametrize("change", [None, change_a_text, change_a_weight])
def test_a_cache_serves_the_weights_and_texts_it_was_made_of_alone(
    change: Callable[[FastBertModel, list[Example]], None] | None,
    tokenizer: TextTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Only the cache is of interest, so no stage is run.
    monkeypatch.setattr(StageTrainer, "train", lambda *_, **__: None)
    distill_some(fresh_model(), tokenizer, tmp_path, cache=True)
    built: list[Path] = []
    build = HiddenCache.build

    def note(*args: Any, **rest: Any) -> HiddenCache:
        built.append(args[3])
        return build(*args, **rest)

    monkeypatch.setattr(HiddenCache, "build", note)
    model, texts = fresh_model(), examples(40)
    if change is not None:
        change(model, texts)
    dev = examples(10, seed=1)
    distill(model, tokenizer, texts, dev, tmp_path, SETTINGS, cache_hidden_states=True)
    assert bool(built) == (change is not None)
    assert ("is of other texts or weights" in caplog.text) == (change is not None)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_such_call(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.mark.parametrize("reserve", [full_disk, no_such_call])
def test_a_disk_too_small_for_the_cache_is_refused_with_what_it_needs(
    reserve: Callable[..., None],
    tokenizer: TextTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1234))
    with pytest.raises(TrainingError, match=r"hidden\.npy: .* need [\d,]+ bytes, .* 1,234 free"):
        distill_some(fresh_model(), tokenizer, tmp_path, cache=True)
    assert not (tmp_path / "hidden.npy").exists()


def test_a_disk_that_is_really_full_does_not_kill_the_process(
    tokenizer: TextTokenizer, small_disk: Path
) -> None:
    (small_disk / "other").write_bytes(bytes(1000 * 1024))
    with pytest.raises(TrainingError, match=r"hidden\.npy: .* the disk has 24,576 free"):
        distill_some(fresh_model(), tokenizer, small_disk, cache=True)
    assert [path.name for path in small_disk.iterdir()] == ["other"]
