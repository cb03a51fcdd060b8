"""Runs of the recipes on tiny files, and how one is killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.recipes.run import StudentSettings
from fastbert.recipes.train import train
from fastbert.training import checkpoints
from fastbert.training.stage import StageSettings
from tests.tiny_data import examples, save_encoder, write_csv

FINE_TUNING = StageSettings(
    epochs=2, learning_rate=5e-3, batch_size=8, checkpoint_steps=3, bf16=False
)


STUDENTS = StudentSettings("paper/first/8", replace(FINE_TUNING, epochs=2, learning_rate=1e-2))


def write_files(folder: Path) -> dict[str, Path]:
    return {
        "train": write_csv(folder / "train.csv", examples(60, seed=1)),
        "dev": write_csv(folder / "dev.csv", examples(30, seed=2)),
        "model": save_encoder(folder / "encoder"),
        "output": folder / "output",
    }


def folder_of_run(files: dict[str, Path]) -> Path:
    return files["output"].with_name(f"{files['output'].name}.training")


def never(*_: object, **__: object) -> None:
    raise AssertionError("this must not be reached")


def run(files: dict[str, Path], **options: Any) -> FastBertClassifier:
    settings = {"max_length": 16, "fine_tuning": FINE_TUNING, "students": STUDENTS}
    settings["scheme"] = "paper"  # the shortest
    return train(**{**files, **settings, **options})


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in ("model.safetensors", "students.safetensors")
    }


def history_of(folder: Path) -> dict[str, list[dict[str, float]]]:
    training = json.loads((folder / "early_exit.json").read_text("utf-8"))["training"]
    history: dict[str, list[dict[str, float]]] = training["history"]
    return history


class Kill(BaseException):
    """Stands for a kill: nothing between here and the top cleans up after it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Make the process end the `number`th time that `call` of the checkpoint writer is reached."""
    original: Callable[..., None] = getattr(checkpoints.CheckpointWriter, call)
    left = iter(range(number))

    def dying(self: object, *args: object, **kwargs: object) -> None:
        if next(left, None) is None:
            raise Kill
        original(self, *args, **kwargs)

    monkeypatch.setattr(checkpoints.CheckpointWriter, call, dying)
