"""What is kept of a contender: the answers of its exits, and how it was trained.

`NAME.npz` holds the answers, in half precision, and `NAME.json` all else. The JSON is written last,
so where it lies the contender is finished.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastbert.calibration.frontier import Recording, Split
from fastbert.errors import TrainingError
from fastbert.exits.recorded import RecordedExits
from fastbert.files.disk import hash_of_file
from fastbert.files.whole_file import whole_file, write_json
from fastbert.folder.heads import read_students, read_teacher_head
from fastbert.shape import ModelShape
from fastbert.tasks.known import task_from_json

SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Record:
    """What is kept of a contender, or of the teacher that all share.

    Args:
        facts: How it was trained, as JSON tells it.
        recording: What its exits answered.
    """

    facts: dict[str, Any]
    recording: Recording


def is_recorded(folder: Path, name: str) -> bool:
    """Return whether a contender is finished."""
    return (folder / f"{name}.json").exists()


def write_record(
    folder: Path,
    name: str,
    facts: Mapping[str, Any],
    early_exit: Mapping[str, Any],
    model_config: Mapping[str, Any],
    splits: Mapping[str, Split],
) -> None:
    """Write answers and facts; a process that is killed leaves no half of them under its name.

    Args:
        folder: The seed's.
        name: The contender's.
        facts: How it was trained.
        early_exit: What early_exit.json says of its heads and its task.
        model_config: What its config.json says.
        splits: What its exits answered, by the name of the split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for split, answered in splits.items():
        arrays[f"{split}_logits"] = answered.recorded.recorded.astype(np.float16)
        arrays[f"{split}_labels"] = answered.truth
        arrays[f"{split}_lengths"] = answered.lengths.astype(np.int32)
    with whole_file(folder / f"{name}.npz") as file:
        np.savez_compressed(file, **arrays)
    model = {key: early_exit[key] for key in ("labels", "task", "teacher_head", "students")}
    written = {
        **facts,
        "answers": hash_of_file(folder / f"{name}.npz"),
        "early_exit": {**model, "num_layers": early_exit["num_layers"]},
        "config": dict(model_config),
    }
    write_json(folder / f"{name}.json", written)


def read_facts(folder: Path, name: str) -> dict[str, Any]:
    """Return how a finished contender was trained.

    Raises:
        TrainingError: What lies there is no record.
    """
    path = folder / f"{name}.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: is no record of a contender: {error}") from error
    return facts


def read_record(folder: Path, name: str) -> Record:
    """Return what is kept of a finished contender.

    Raises:
        TrainingError: What lies there is no record, or its answers are not those it was written
            with.
    """
    facts, answers = read_facts(folder, name), folder / f"{name}.npz"
    if not answers.exists() or hash_of_file(answers) != facts["answers"]:
        raise TrainingError(
            f"{answers}: is missing or damaged; delete {folder / name}.json to train it again"
        )
    said = facts["early_exit"]
    task = task_from_json(said["task"], said["labels"])
    shape = ModelShape.from_config(
        facts["config"],
        task.outputs,
        teacher_head=read_teacher_head(answers, said),
        students=read_students(answers, said),
    )
    with np.load(answers) as arrays:
        dev, test = (
            Split(
                RecordedExits(arrays[f"{split}_logits"].astype(np.float32)),
                arrays[f"{split}_labels"],
                arrays[f"{split}_lengths"].astype(np.int64),
            )
            for split in SPLITS
        )
    task = task.fitted(dev.recorded.recorded[-1], dev.truth)  # as a trained model is
    return Record(facts, Recording(task, shape, dev, test))
