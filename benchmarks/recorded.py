"""The recorded answers of all exits that `quality.py` left under `results/`."""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from machine import RESULTS

from fastbert.calibration.learned import fit_learned_exit
from fastbert.calibration.solve import Calibration
from fastbert.exits.criteria import Entropy, EntropyCriterion, Measure
from fastbert.exits.measures import MEASURES
from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import heads_by_depth
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel


@dataclass(frozen=True)
class Run:
    """What the students of one seed, and their teacher, answered on dev and test."""

    dataset: str
    seed: int
    dev: Calibration
    test: Calibration


def recorded_runs() -> list[Run]:
    """Return every run there is, by data set and seed."""
    names = sorted(path.stem for path in RESULTS.glob("logits_*_seed*.npz"))
    runs = []
    for name in names:
        dataset, seed = re.fullmatch(r"logits_(.+)_seed(\d+)", name).groups()  # type: ignore[union-attr]  # the glob says it matches
        arrays = np.load(RESULTS / f"{name}.npz")
        quality = json.loads((RESULTS / f"quality_{dataset}.json").read_text(encoding="utf-8"))
        told = quality["students"][0]  # earlier ones had no other heads than the paper's
        heads = told.get("heads") or f"paper/{told['pooling']}"
        shape = shape_of(arrays["dev_logits"].shape[-1], heads)
        dev, test = (_rows(arrays, split, shape) for split in ("dev", "test"))
        runs.append(Run(dataset, int(seed), dev, test))
    return runs


def with_measure(run: Run, name: str) -> Run:
    """Return a run whose doubts are measured otherwise; a learned measure is fitted on dev."""
    fits = name == "learned"
    dev = run.dev
    measure: Measure = fit_learned_exit(dev.recorded, dev.task) if fits else MEASURES[name]()
    return Run(run.dataset, run.seed, measured_by(run.dev, measure), measured_by(run.test, measure))


def measured_by(rows: Calibration, measure: Measure) -> Calibration:
    """Return the same rows with another measure of doubt."""
    return Calibration(rows.recorded, rows.truth, rows.lengths, rows.shape, rows.task, measure)


def task_of(classes: int) -> SingleLabel:
    """Return a task whose labels are numbers."""
    return SingleLabel(tuple(map(str, range(classes))))


def shape_of(classes: int, heads: str = "paper") -> ModelShape:
    """Return the widths of e5-small-12l-en-zh, the encoder of all runs, with its students."""
    return ModelShape(384, 1536, 12, classes, heads_by_depth(heads, 11))


def _rows(arrays: Any, split: str, shape: ModelShape) -> Calibration:
    return Calibration(
        RecordedExits(arrays[f"{split}_logits"].astype(np.float32)),
        arrays[f"{split}_labels"].astype(np.int64),
        arrays[f"{split}_lengths"].astype(np.int64),
        shape,
        task_of(shape.num_labels),
        Entropy(),  # the paper's, unless told otherwise
    )


@dataclass(frozen=True)
class SpeedPoint:
    """What one of the paper's speeds gives on labelled rows; layers are those a row runs."""

    speed: float
    accuracy: float
    mean_exit_layer: float


def speed_curve(recorded: RecordedExits, truth: np.ndarray) -> list[SpeedPoint]:
    """Replay speeds from 0 to 1 in steps of a hundredth."""
    points = []
    for speed in (round(step / 100, 2) for step in range(101)):
        result = recorded.replay(EntropyCriterion(speed))
        accuracy = float((result.logits.argmax(axis=-1) == truth).mean())
        points.append(SpeedPoint(speed, accuracy, float(result.exit_layer.mean())))
    return points


def fewest_layers(curve: list[SpeedPoint], max_drop: float) -> float:
    """Return the speed with the fewest layers that loses at most `max_drop` against speed 0."""
    good = [point for point in curve if point.accuracy >= curve[0].accuracy - max_drop - 1e-9]
    return min(good, key=lambda point: (point.mean_exit_layer, point.speed)).speed
