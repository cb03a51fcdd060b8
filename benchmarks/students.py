"""Which students learn best from one frozen teacher: heads, direction, learning rate, epochs.

    python benchmarks/students.py TEACHER DATASET WORK

TEACHER is a folder that `AutoModelForSequenceClassification` and `AutoTokenizer` read. Everything
is judged on dev; the test split is not read. The backbone runs once, for the cache on disk.
"""

import argparse
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import SHARED, require_shared, write_result
from recorded import fewest_layers, speed_curve
from stages import learn
from transformers import set_seed

from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.exits.recorded import RecordedExits
from fastbert.nn.backend import batch_tensors
from fastbert.nn.model import FastBertModel, all_exits
from fastbert.nn.objectives import Direction
from fastbert.nn.teachers import trained_teacher
from fastbert.text import TextTokenizer, batches_of_similar_length
from fastbert.training.scheme import DISTILLATION, SchemeSettings, paper

TRAIN_ROWS, MAX_LENGTH = 20_000, 128


@dataclass(frozen=True)
class Trial:
    """One way to make students."""

    heads: str = "paper"
    direction: Direction = "student-teacher"
    learning_rate: float = 2e-4
    epochs: int = 5
    seed: int = 42


TRIALS = [
    Trial(),
    Trial(heads="paper/mean"),
    Trial(direction="teacher-student"),
    Trial(learning_rate=1e-3),
    Trial(learning_rate=1e-3, epochs=10),
    Trial(heads="paper/mean", learning_rate=1e-3),
]


def main() -> None:
    """Try each of `TRIALS`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    require_shared()
    data = SHARED / "data" / options.dataset
    train = load_examples(data / "train.parquet", Columns(), needs_label=True)[:TRAIN_ROWS]
    dev = load_examples(data / "dev.parquet", Columns(), needs_label=True)
    trials = [try_students(options.teacher, train, dev, trial, options.work) for trial in TRIALS]
    write_result(
        f"students_{options.dataset}",
        {"dataset": options.dataset, "train_rows": len(train), "dev_rows": len(dev)}
        | {"trials": trials},
    )


def try_students(
    teacher: Path, train: list[Example], dev: list[Example], trial: Trial, work: Path
) -> dict[str, Any]:
    """Distil one kind of students and return how they do on dev."""
    start = time.perf_counter()
    model, tokenizer = teach_students(teacher, train, dev, trial, work)
    minutes = (time.perf_counter() - start) / 60
    [recorded] = record_all([model], tokenizer, dev)
    result = asdict(trial) | {"minutes": minutes} | summary(recorded, truth_of(model, dev))
    print(result, flush=True)
    return result


def teach_students(
    teacher: Path, train: list[Example], dev: list[Example], trial: Trial, work: Path
) -> tuple[FastBertModel, TextTokenizer]:
    """Put fresh students on a teacher and distil them."""
    set_seed(trial.seed)
    model = FastBertModel(trained_teacher(teacher), trial.heads)
    tokenizer = TextTokenizer.from_folder(teacher, MAX_LENGTH)
    stage = replace(
        DISTILLATION, learning_rate=trial.learning_rate, epochs=trial.epochs, seed=trial.seed
    )
    settings = SchemeSettings(
        distillation=stage, direction=trial.direction, cache_hidden_states=True
    )
    _, students = paper(settings).stages
    learn(students, model, tokenizer, train, dev[:2_000], work)
    for checkpoint in work.glob("checkpoint-*"):  # and the cache stays, for the next trial
        shutil.rmtree(checkpoint)
    return model, tokenizer


def truth_of(model: FastBertModel, examples: list[Example]) -> np.ndarray:
    """Return the number of each example's label."""
    return np.array([model.labels.index(example.label or "") for example in examples])


@torch.inference_mode()
def record_all(
    models: list[FastBertModel], tokenizer: TextTokenizer, examples: list[Example]
) -> list[RecordedExits]:
    """Return what every exit of each model says; the models share one teacher, which runs once."""
    teacher, *_ = models
    tokens = tokenizer.encode([example.content for example in examples])
    shape = (teacher.num_exits, len(examples), len(teacher.labels))
    recorded = [np.empty(shape, np.float32) for _ in models]
    for rows in batches_of_similar_length([len(row) for row in tokens], 32):
        batch = batch_tensors(tokenizer.collate([tokens[row] for row in rows]))
        readings, answer = teacher.teach(**batch)
        for model, exits in zip(models, recorded, strict=True):
            students = model.ask_students(readings, batch["attention_mask"])
            exits[:, rows] = all_exits(students, answer).numpy()
    return [RecordedExits(exits) for exits in recorded]


def summary(recorded: RecordedExits, truth: np.ndarray) -> dict[str, Any]:
    """Return accuracy by exit, and the layer saving at several allowed drops on the same rows."""
    curve = speed_curve(recorded, truth)
    savings = {}
    for drop in (0.002, 0.005, 0.01):
        speed = fewest_layers(curve, drop)
        point = next(point for point in curve if point.speed == speed)
        savings[str(drop)] = {
            "speed": speed,
            "saving": recorded.num_exits / point.mean_exit_layer,
            "accuracy": point.accuracy,
        }
    by_exit = (recorded.recorded.argmax(-1) == truth).mean(axis=1)
    return {"accuracy_by_exit": by_exit.round(4).tolist(), "savings": savings}


if __name__ == "__main__":
    main()
