"""A classifier answers from what it was opened from, whatever another process puts in its place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastbert import opening
from fastbert.classifier import FastBertClassifier
from fastbert.errors import FolderError
from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion
from fastbert.exits.measures import MaxProbability
from fastbert.folder.read import open_folder
from fastbert.folder.write import (
    copy_folder,
    fill_staging,
    seal,
    staged_folder,
)
from fastbert.nn.model import FastBertModel
from fastbert.runtime.pieces import PieceBackend
from tests.bench.models import varied_folder
from tests.exported import export_all
from tests.tiny_data import examples

ROWS = examples(40, seed=13)
TEXTS = [row.text for row in ROWS]
RUNTIMES = ["torch", "onnx", "openvino"]


def other_weights(folder: Path, target: Path) -> Path:
    """Write a model of the same shape with weights of its own."""
    opened = open_folder(folder)
    model = FastBertModel.load(opened)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(8)
        for weight in model.parameters():
            weight.mul_(1 + 0.3 * torch.rand_like(weight))
    with staged_folder(target) as staging:
        fill_staging(opened, staging)
        model.save(staging)
        seal(staging, opened.config)
    return target


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape, the first one calibrated, both exported for both runtimes."""
    parent = tmp_path_factory.mktemp("models")
    old = varied_folder(parent / "old").path
    new = other_weights(old, parent / "new")
    for folder in (old, new):
        classifier = FastBertClassifier.from_pretrained(folder)
        labels = [str(row.label) for row in ROWS]
        classifier.save_calibration(classifier.calibrate(TEXTS, labels), folder.name)
        export_all(folder, [("onnx", "fp32"), ("openvino", "fp32")])
    return old, new


@pytest.fixture
def served(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return the old model where it can be replaced."""
    copy_folder(open_folder(models[0]), tmp_path / "served")
    return tmp_path / "served"


def replaced(served: Path, new: Path) -> None:
    copy_folder(open_folder(new), served)


def removed(served: Path, new: Path) -> None:
    shutil.rmtree(served)


def everything(classifier: FastBertClassifier) -> list[np.ndarray]:
    """Return answers that need every exit, and several segments that end at each."""
    found = [classifier.record(TEXTS).recorded]
    for criterion in (
        EntropyCriterion(0.0),
        ThresholdCriterion(MaxProbability(), (0.0, 0.4)),
    ):
        result = classifier.classify(TEXTS, criterion)
        found += [result.logits, result.exit_layer]
    point = classifier.speed_for(saving=0.3)
    return [*found, np.array(point.thresholds), classifier.calibration.lengths]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("change", [replaced, removed])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_come_from_the_model_that_was_opened(
    models: tuple[Path, Path], served: Path, runtime: Any, change: Callable[[Path, Path], None]
) -> None:
    old, new = (
        everything(FastBertClassifier.from_pretrained(folder, runtime=runtime, threads=1))
        for folder in models
    )
    assert not any(np.array_equal(a, b) for a, b in zip(old[:2], new[:2], strict=True))
    classifier = FastBertClassifier.from_pretrained(served, runtime=runtime, threads=1)
    first = classifier.classify(TEXTS, EntropyCriterion(0.0))
    change(served, models[1])

    assert same(everything(classifier), old)
    if isinstance(classifier.backend, PieceBackend):
        classifier.backend._segments.clear()  # as if all had made place for others
        assert same(everything(classifier), old)
    again = classifier.classify(TEXTS, EntropyCriterion(0.0))
    assert np.array_equal(again.logits, first.logits)
    if change is replaced:
        fresh = FastBertClassifier.from_pretrained(served, runtime=runtime, threads=1)
        assert same(everything(fresh), new)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_folder_replaced_while_it_is_loaded_gives_one_model_or_an_error(
    models: tuple[Path, Path], served: Path, runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = everything(FastBertClassifier.from_pretrained(models[0], runtime=runtime, threads=1))

    def and_then_replaced(path: Path) -> Any:
        opened = open_folder(path)
        replaced(served, models[1])
        return opened

    monkeypatch.setattr(opening, "open_folder", and_then_replaced)
    if runtime == "torch":
        classifier = FastBertClassifier.from_pretrained(served, runtime=runtime, threads=1)
        assert same(everything(classifier), old)
    else:
        with pytest.raises(FolderError, match="served: was replaced since it was opened; open"):
            FastBertClassifier.from_pretrained(served, runtime=runtime, threads=1)


def test_what_openvino_keeps_for_one_model_is_not_taken_for_another(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    plain, kept = (
        [
            everything(
                FastBertClassifier.from_pretrained(
                    folder, runtime="openvino", threads=1, cache_folder=cache
                )
            )
            for folder in models
        ]
        for cache in (None, tmp_path / "kept")
    )
    assert list((tmp_path / "kept").rglob("*.blob"))
    for ours, theirs in zip(kept, plain, strict=True):
        assert same(ours, theirs)
