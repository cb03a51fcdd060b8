"""What FastBERT keeps and saves on real data: both stages, the speed chosen on dev, test read once.

    python benchmarks/quality.py DATASET WORK --epochs 3 --learning-rate 5e-5

Stage 1 runs once and is kept in WORK/teacher; the students are distilled with three seeds. Writes
figures and the recorded logits of dev and test, so that later experiments need not train
again, and the model folder of the first seed to WORK/model, for the benchmarks of time and memory.
"""

import argparse
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import ENCODER, RESULTS, SHARED, require_shared, write_result
from recorded import SpeedPoint, fewest_layers, speed_curve
from stages import learn
from students import MAX_LENGTH, TRAIN_ROWS, Trial, record_all, summary, teach_students, truth_of
from transformers import AutoTokenizer, PreTrainedModel, set_seed

from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.config import DefaultPoint, EarlyExitConfig
from fastbert.folder.write import seal, staged_folder
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.tasks.single_label import SingleLabel
from fastbert.text import TextTokenizer
from fastbert.training.scheme import FINE_TUNING, SchemeSettings, paper

SEEDS = (42, 43, 44)
MAX_DROP = 0.005  # what the speed may lose on dev
MIN_SAVINGS = (2.0, 3.2)  # at least so many times fewer layers on dev


def main() -> None:
    """Train, choose on dev, read test once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=FINE_TUNING.epochs)
    parser.add_argument("--learning-rate", type=float, default=FINE_TUNING.learning_rate)
    parser.add_argument("--heads", default=Trial.heads)
    parser.add_argument("--direction", default=Trial.direction)
    parser.add_argument("--student-epochs", type=int, default=Trial.epochs)
    parser.add_argument("--student-learning-rate", type=float, default=Trial.learning_rate)
    options = parser.parse_args()
    require_shared()
    train, dev, test = (read(options.dataset, split) for split in ("train", "dev", "test"))
    train = train[:TRAIN_ROWS]
    teacher = options.work / "teacher"
    if not (teacher / "stage_1.json").exists():
        fine_tune_teacher(teacher, train, dev, options.epochs, options.learning_rate)

    trials = [
        Trial(
            options.heads,
            options.direction,
            options.student_learning_rate,
            options.student_epochs,
            seed,
        )
        for seed in SEEDS
    ]
    models, minutes = [], []
    for trial in trials:
        start = time.perf_counter()
        model, tokenizer = teach_students(teacher, train, dev, trial, options.work / "students")
        models.append(model)
        minutes.append((time.perf_counter() - start) / 60)
    truth = {"dev": truth_of(models[0], dev), "test": truth_of(models[0], test)}
    lengths = {"dev": lengths_of(tokenizer, dev), "test": lengths_of(tokenizer, test)}
    recorded = {
        "dev": record_all(models, tokenizer, dev),
        "test": record_all(models, tokenizer, test),
    }
    keep_model(models[0], teacher, recorded["dev"][0], truth["dev"], options.work / "model")
    runs = []
    for number, trial in enumerate(trials):
        exits = {split: of_all[number] for split, of_all in recorded.items()}
        keep_logits(options.dataset, trial.seed, exits, truth, lengths)
        figures = judge(exits, truth, test)
        runs.append(asdict(trial) | {"minutes": minutes[number]} | figures)
        print(json.dumps(runs[-1]), flush=True)
    write_result(
        f"quality_{options.dataset}",
        {
            "dataset": options.dataset,
            "rows": {"train": len(train), "dev": len(dev), "test": len(test)},
            "max_length": MAX_LENGTH,
            "stage_1": json.loads((teacher / "stage_1.json").read_text(encoding="utf-8")),
            "students": runs,
        },
    )


def read(dataset: str, split: str) -> list[Example]:
    """Read one split of a data set."""
    return load_examples(
        SHARED / "data" / dataset / f"{split}.parquet", Columns(), needs_label=True
    )


def fine_tune_teacher(
    folder: Path, train: list[Example], dev: list[Example], epochs: int, learning_rate: float
) -> None:
    """Run stage 1; its best epoch is chosen on the first 2,000 rows of dev."""
    task = SingleLabel.of(train)
    set_seed(FINE_TUNING.seed)
    teacher = teacher_to_train(ENCODER, task)
    assert isinstance(teacher, PreTrainedModel)
    AutoTokenizer.from_pretrained(ENCODER).save_pretrained(folder)
    tokenizer = TextTokenizer.from_folder(folder, MAX_LENGTH)
    stage = replace(FINE_TUNING, epochs=epochs, learning_rate=learning_rate)
    start = time.perf_counter()
    first, _ = paper(SchemeSettings(stage)).stages
    model = FastBertModel(teacher, Trial.heads)
    learn(first, model, tokenizer, train, dev[:2_000], folder / "checkpoints")
    minutes = (time.perf_counter() - start) / 60
    shutil.rmtree(folder / "checkpoints")
    teacher.save_pretrained(folder)
    told = asdict(stage) | {"minutes": minutes}
    (folder / "stage_1.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def lengths_of(tokenizer: TextTokenizer, examples: list[Example]) -> np.ndarray:
    """Return how many tokens each row has, as the true count of FLOPs needs them."""
    tokens = tokenizer.encode([example.content for example in examples])
    return np.array([len(row.ids) for row in tokens], np.int16)


def keep_logits(
    dataset: str,
    seed: int,
    recorded: dict[str, RecordedExits],
    truth: dict[str, np.ndarray],
    lengths: dict[str, np.ndarray],
) -> None:
    """Write what every exit said, in half precision, with the labels and the lengths."""
    RESULTS.mkdir(exist_ok=True)
    arrays = {
        f"{split}_logits": exits.recorded.astype(np.float16) for split, exits in recorded.items()
    }
    arrays |= {f"{split}_labels": labels.astype(np.int16) for split, labels in truth.items()}
    arrays |= {f"{split}_lengths": tokens for split, tokens in lengths.items()}
    np.savez_compressed(RESULTS / f"logits_{dataset}_seed{seed}.npz", **arrays)  # type: ignore[arg-type]  # numpy types the file's own options as the arrays


def keep_model(
    model: FastBertModel, teacher: Path, dev: RecordedExits, truth: np.ndarray, folder: Path
) -> None:
    """Write the model folder."""
    with staged_folder(folder) as staging:
        model.save(staging)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(teacher / name, staging)
        speed = fewest_layers(speed_curve(dev, truth), MAX_DROP)
        config = EarlyExitConfig(
            "pretrained",
            model.task,
            model.num_exits,
            MAX_LENGTH,
            model.student_shapes,
            default=DefaultPoint({"name": "entropy"}, (speed,) * (model.num_exits - 1)),
        )
        seal(staging, config)


def judge(
    recorded: dict[str, RecordedExits], truth: dict[str, np.ndarray], test: list[Example]
) -> dict[str, Any]:
    """Choose a speed on dev by each rule and read test with it."""
    curve = speed_curve(recorded["dev"], truth["dev"])
    rules = {
        f"fewest layers within {100 * MAX_DROP} points on dev": fewest_layers(curve, MAX_DROP),
    }
    for saving in MIN_SAVINGS:
        max_layers = recorded["dev"].num_exits / saving
        rules[f"most accurate on dev at {saving} x fewer layers"] = most_accurate(curve, max_layers)
    # Of book_review 1.9 % of the rows are a single letter, always of one class.
    rows = {"all": np.full(len(test), True)}
    letters = np.array([len(example.text) == 1 for example in test])
    if letters.any():
        rows["without single letters"] = ~letters
    return {
        "dev": summary(recorded["dev"], truth["dev"]),
        "test": [
            {"rule": rule, "rows": name} | read_test(recorded["test"], truth["test"], speed, chosen)
            for rule, speed in rules.items()
            for name, chosen in rows.items()
        ],
    }


def most_accurate(curve: list[SpeedPoint], max_layers: float) -> float:
    """Return the speed with the highest accuracy among those of so few layers."""
    quick = [point for point in curve if point.mean_exit_layer <= max_layers]
    return max(quick, key=lambda point: (point.accuracy, -point.mean_exit_layer)).speed


def read_test(
    exits: RecordedExits, truth: np.ndarray, speed: float, rows: np.ndarray
) -> dict[str, Any]:
    """Return what a speed gives on some rows of test."""
    answered = exits.replay(EntropyCriterion(speed))
    full = float((exits.recorded[-1].argmax(-1) == truth)[rows].mean())
    accuracy = float((answered.logits.argmax(-1) == truth)[rows].mean())
    return {
        "speed": speed,
        "full_accuracy": full,
        "accuracy": accuracy,
        "points_lost": 100 * (full - accuracy),
        "saving": exits.num_exits / float(answered.exit_layer[rows].mean()),
    }


if __name__ == "__main__":
    main()
