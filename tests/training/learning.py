"""The stages of the paper run on a few texts in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastbert.data.example import Example
from fastbert.nn.model import FastBertModel
from fastbert.recipes.outcome import known_truth
from fastbert.text import TextTokenizer
from fastbert.training.scheme import SchemeSettings, paper
from fastbert.training.stage import StageSettings
from fastbert.training.stream import TrainingTexts
from fastbert.training.tokens import TokenFile
from fastbert.training.trainer import run_stage
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples

HEADS = "paper/first/8"
SETTINGS = StageSettings(epochs=2, learning_rate=1e-2, batch_size=8, bf16=False)


def fresh_model() -> FastBertModel:
    """Return a model with random weights, the same every time."""
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    labels = {label: index for index, label in names.items()}
    return FastBertModel(tiny_classifier("bert", id2label=names, label2id=labels), HEADS)


def texts_of(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    train: Sequence[Example],
    dev: Sequence[Example],
    folder: Path,
) -> TrainingTexts:
    """Return texts as a stage reads them; their tokens lie beside the folder."""

    def tokens(name: str, texts: Sequence[Example]) -> TokenFile:
        place = folder.with_name(f"{folder.name}-{name}")
        return TokenFile.write(place, [text.content for text in texts], tokenizer)

    return TrainingTexts(
        tokens("train", train),
        known_truth(model.task, train),
        tokens("dev", dev) if dev else None,
        known_truth(model.task, dev),
    )


def fine_tune(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    train: Sequence[Example],
    dev: Sequence[Example],
    folder: Path,
    settings: StageSettings,
    label_smoothing: float = 0.0,
) -> list[dict[str, float]]:
    """Run the paper's first stage."""
    stage, _ = paper(SchemeSettings(settings, label_smoothing=label_smoothing)).stages
    return run_stage(
        stage, model, tokenizer, texts_of(model, tokenizer, train, dev, folder), folder
    )


def distill(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    train: Sequence[Example],
    dev: Sequence[Example],
    folder: Path,
    settings: StageSettings,
    **options: Any,
) -> list[dict[str, float]]:
    """Run the paper's second stage."""
    _, stage = paper(SchemeSettings(distillation=settings, **options)).stages
    return run_stage(
        stage, model, tokenizer, texts_of(model, tokenizer, train, dev, folder), folder
    )


def distill_some(
    model: FastBertModel, tokenizer: TextTokenizer, folder: Path, *, cache: bool = False
) -> None:
    """Distil the students of a model from forty texts, with ten for dev."""
    dev = examples(10, seed=1)
    distill(model, tokenizer, examples(40), dev, folder, SETTINGS, cache_hidden_states=cache)
