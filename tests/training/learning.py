"""The stages of the paper run on a few texts in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastbert.data.example import Example
from fastbert.nn.model import FastBertModel
from fastbert.recipes.outcome import known_truth
from fastbert.text import TextTokenizer
from fastbert.training.scheme import paper
from fastbert.training.stage import StageSettings
from fastbert.training.stream import TrainingTexts
from fastbert.training.tokens import TokenFile
from fastbert.training.trainer import run_stage


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
    stage, _ = paper(settings, label_smoothing=label_smoothing)
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
    _, stage = paper(distillation=settings, **options)
    return run_stage(
        stage, model, tokenizer, texts_of(model, tokenizer, train, dev, folder), folder
    )
