"""Running a stage: accumulated batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastbert.nn import heads
from fastbert.nn.model import FastBertModel
from fastbert.shape import StudentShape
from fastbert.text import TextTokenizer
from fastbert.training.callbacks import StopOnBrokenLoss
from fastbert.training.stage import StageSettings
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples, tiny_tokenizer
from tests.training.learning import distill, fine_tune

WITHOUT_DROPOUT = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return TextTokenizer.from_folder(tmp_path / "tokenizer", 16)


def one_step(
    stage: str,
    tokenizer: TextTokenizer,
    folder: Path,
    rows: int,
    settings: StageSettings,
    label_smoothing: float,
) -> dict[str, float]:
    """Train one epoch of one step, without dropout; return what was logged of it."""
    logged: dict[str, float] = {}
    texts = examples(rows)
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    numbers = {label: number for number, label in names.items()}
    teacher = tiny_classifier("bert", id2label=names, label2id=numbers, **WITHOUT_DROPOUT)
    model = FastBertModel(teacher, StudentShape("first", 8, 2))

    def note(_self: object, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
        logged.update(kwargs["logs"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnBrokenLoss, "on_log", note)
        patch.setattr(heads, "ATTENTION_DROPOUT", 0.0)
        if stage == "teacher":
            fine_tune(model, tokenizer, texts, texts[:1], folder, settings, label_smoothing)
        else:
            distill(model, tokenizer, texts, [], folder, settings)
    return logged


@pytest.mark.parametrize(
    ("stage", "label_smoothing", "rows"),
    # Of 6 rows the last accumulation is incomplete.
    [("teacher", 0.0, 8), ("teacher", 0.0, 6), ("teacher", 0.1, 6), ("students", 0.0, 6)],
)
def test_accumulated_batches_make_the_step_of_one_large_batch(
    stage: str, label_smoothing: float, rows: int, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    whole = StageSettings(epochs=1, learning_rate=1e-3, batch_size=8, warmup=0.0, bf16=False)
    parts = replace(whole, batch_size=2, gradient_accumulation=4)
    accumulated = one_step(stage, tokenizer, tmp_path / "parts", rows, parts, label_smoothing)
    at_once = one_step(stage, tokenizer, tmp_path / "whole", rows, whole, label_smoothing)
    # The weights after it would tell less: Adam takes a step of the same size for any scale.
    assert accumulated["loss"] == pytest.approx(at_once["loss"], rel=1e-4)
    assert accumulated["grad_norm"] == pytest.approx(at_once["grad_norm"], rel=1e-4)
