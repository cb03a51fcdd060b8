"""A tiny checkpoint on disk, and texts that it can learn to classify in seconds."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import BertTokenizer

from fastbert.data.example import Example
from fastbert.folder.names import CALIBRATION_FILE
from fastbert.folder.read import open_folder
from fastbert.folder.write import fill_staging, seal, staged_folder
from tests.tiny import tiny_classifier, tiny_encoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNALS = {"negative": "awful", "neutral": "plain", "positive": "lovely"}
LABELS = tuple(SIGNALS)
FILLERS = [f"word{number}" for number in range(40)]
VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *SIGNALS.values(), *FILLERS])}


def save_encoder(folder: Path, family: str = "bert") -> Path:
    """Write a plain encoder with random weights and its tokeniser; return the folder."""
    tiny_encoder(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_classifier(folder: Path, family: str = "bert") -> Path:
    """Write a classifier of `LABELS` with random weights and its tokeniser; return the folder."""
    names = dict(enumerate(LABELS))
    model = tiny_classifier(
        family, id2label=names, label2id={label: index for index, label in names.items()}
    )
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_uncalibrated(source: Path, target: Path) -> Path:
    """Write a copy of a model folder without its calibration and default; return the folder."""
    with staged_folder(target) as staging:
        fill_staging(open_folder(source), staging)
        config = open_folder(staging).config
        seal(staging, replace(config, calibration=None, default=None))
        (staging / CALIBRATION_FILE).unlink()
    return target


def tiny_tokenizer() -> BertTokenizer:
    """Return a tokeniser of whole words."""
    return BertTokenizer(vocab=VOCABULARY)


def examples(rows: int, seed: int = 0) -> list[Example]:
    """Return texts of 2 to 12 words, one of which gives the label away."""
    random = np.random.default_rng(seed)
    made = []
    for row in range(rows):
        label = LABELS[random.integers(len(LABELS))]
        words = random.choice(FILLERS, size=random.integers(1, 12)).tolist()
        words.insert(random.integers(len(words) + 1), SIGNALS[label])
        made.append(Example(f"made:{row + 1}", " ".join(words), label=label))
    return made


def write_csv(path: Path, rows: Sequence[Example], *, labelled: bool = True) -> Path:
    """Write examples as a file that the commands read; return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"] if labelled else ["text"])
        for row in rows:
            writer.writerow([row.text, row.label] if labelled else [row.text])
    return path
