"""Stage 2: the divergence of the paper, and what may and may not change."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from fastbert.data.example import Example
from fastbert.errors import TrainingError
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import record
from fastbert.exits.recorded import RecordedExits
from fastbert.nn.backend import TorchBackend, batch_tensors
from fastbert.nn.model import FastBertModel
from fastbert.nn.objectives import divergence
from fastbert.shape import StudentShape
from fastbert.text import TextTokenizer
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.stage import StageSettings
from fastbert.training.trainer import StageTrainer
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples, tiny_tokenizer
from tests.training.learning import distill

STUDENTS, ROWS, CLASSES = 4, 6, 3
SHAPE = StudentShape("first", 8, 2)
SETTINGS = StageSettings(epochs=2, learning_rate=1e-2, batch_size=8, bf16=False)


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return TextTokenizer.from_folder(tmp_path / "tokenizer", 16)


def fresh_model() -> FastBertModel:
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    labels = {label: index for index, label in names.items()}
    return FastBertModel(tiny_classifier("bert", id2label=names, label2id=labels), SHAPE)


def run(
    model: FastBertModel, tokenizer: TextTokenizer, folder: Path, *, cache: bool = False
) -> None:
    dev = examples(10, seed=1)
    distill(model, tokenizer, examples(40), dev, folder, SETTINGS, cache_hidden_states=cache)


def test_backbone_and_teacher_stay_bit_equal_and_every_student_learns(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model = fresh_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(model, tokenizer, tmp_path)

    for name, tensor in model.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed == name.startswith("students."), name


def test_distillation_brings_the_students_closer_to_the_teacher(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model = fresh_model()
    batch = batch_tensors(tokenizer.collate(tokenizer.encode([row.text for row in examples(30)])))

    def distance() -> float:
        with torch.no_grad():
            readings, teacher = model.eval().teach(**batch)
            bias = torch.where(batch["attention_mask"] == 0, -torch.inf, 0.0).unsqueeze(1)
            answers = [head(h, bias) for head, h in zip(model.students, readings, strict=True)]
            return divergence(torch.stack(answers), teacher).item()

    before = distance()
    run(model, tokenizer, tmp_path)
    assert distance() < before / 2


def test_the_teacher_teaches_without_dropout(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    # The authors left the teacher in training mode, so its soft labels were noise.
    model = fresh_model()
    modes: set[bool] = set()
    teach = model.teach

    def spy(*args: Any, **tokens: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        modes.add(any(module.training for module in model.teacher.modules()))
        return teach(*args, **tokens)

    model.teach = spy  # type: ignore[method-assign]  # watched, not replaced
    run(model, tokenizer, tmp_path)
    assert modes == {False}


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
    run(live, tokenizer, tmp_path / "live")
    run(cached, tokenizer, tmp_path / "cached", cache=True)
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
    run(fresh_model(), tokenizer, tmp_path, cache=True)
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
        run(fresh_model(), tokenizer, tmp_path, cache=True)
    assert not (tmp_path / "hidden.npy").exists()


def test_a_disk_that_is_really_full_does_not_kill_the_process(
    tokenizer: TextTokenizer, small_disk: Path
) -> None:
    (small_disk / "other").write_bytes(bytes(1000 * 1024))
    with pytest.raises(TrainingError, match=r"hidden\.npy: .* the disk has 24,576 free"):
        run(fresh_model(), tokenizer, small_disk, cache=True)
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_fewer_texts_than_a_batch_still_train(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    # The authors' package dropped the last partial batch, so little data trained nothing.
    model, texts = fresh_model(), [Example("made:1", "lovely word1")]
    before = model.students.state_dict()["0.reduce.weight"].clone()
    distill(model, tokenizer, texts, [], tmp_path, SETTINGS)
    assert not torch.equal(model.students.state_dict()["0.reduce.weight"], before)


def test_the_history_follows_the_students_at_the_papers_speed(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model, texts, dev = fresh_model(), examples(40), examples(10, seed=1)
    before = record_of(model, tokenizer, dev)
    settings = replace(SETTINGS, epochs=1)
    [epoch] = distill(model, tokenizer, texts, dev, tmp_path, settings)

    recorded = record_of(model, tokenizer, dev)
    assert not np.array_equal(recorded.recorded, before.recorded)
    answered = recorded.replay(EntropyCriterion(0.5))
    agrees = answered.logits.argmax(-1) == recorded.recorded[-1].argmax(-1)
    p, q = softmax(recorded.recorded[:-1], axis=-1), softmax(recorded.recorded[-1:], axis=-1)
    judged = {"accuracy", "agreement", "mean_exit_layer"}
    assert epoch.keys() == {"epoch", "dev_loss"} | judged
    right = [LABELS[k] == row.label for k, row in zip(answered.logits.argmax(-1), dev, strict=True)]
    assert epoch["accuracy"] == pytest.approx(np.mean(right))
    assert epoch["epoch"] == 1.0
    assert epoch["agreement"] == pytest.approx(agrees.mean())
    assert epoch["mean_exit_layer"] == pytest.approx(answered.exit_layer.mean())
    assert epoch["dev_loss"] == pytest.approx(rel_entr(p, q).sum(-1).mean(-1).sum(), rel=1e-4)


def record_of(
    model: FastBertModel, tokenizer: TextTokenizer, rows: Sequence[Example]
) -> RecordedExits:
    batch = tokenizer.collate(tokenizer.encode([row.text for row in rows]))
    return RecordedExits(record(TorchBackend(model.eval()), batch))


@pytest.mark.parametrize("label", [None, "a label that the checkpoint does not have"])
def test_students_learn_without_labels_of_the_model(
    tokenizer: TextTokenizer, tmp_path: Path, label: str | None
) -> None:
    # Labels only add the accuracy to the history.
    dev = [replace(row, label=label) for row in examples(10, seed=1)]
    texts, settings = examples(16), replace(SETTINGS, epochs=1)
    [epoch] = distill(fresh_model(), tokenizer, texts, dev, tmp_path, settings)
    assert "accuracy" not in epoch
    assert "agreement" in epoch


def test_there_is_one_entry_an_epoch_and_none_without_dev(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    texts, dev = examples(24), examples(10, seed=1)
    settings = replace(SETTINGS, epochs=3)
    history = distill(fresh_model(), tokenizer, texts, dev, tmp_path / "a", settings)
    assert [epoch["epoch"] for epoch in history] == [1.0, 2.0, 3.0]
    assert history[-1]["dev_loss"] < history[0]["dev_loss"]
    assert distill(fresh_model(), tokenizer, texts, [], tmp_path / "b", settings) == []
