"""This model as contenders: which runtimes, which settings, and that they answer as it does."""

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fastbert.bench import contenders
from fastbert.bench.contenders import (
    Contender,
    LoadedModel,
    Target,
    contenders_of,
    installed,
    loaded_models,
    targets_of,
)
from fastbert.bench.results import Failure
from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.errors import ExportError, FolderError
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.measures import MaxProbability
from fastbert.folder.export import read_manifest
from fastbert.folder.read import ModelFolder
from fastbert.folder.write import copy_folder
from tests.bench.models import SPEED, TEXTS, varied_folder
from tests.tiny_data import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return varied_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def model(folder: ModelFolder) -> Iterator[LoadedModel]:
    with loaded_models(folder, [Target("torch")], 1, []) as [model]:
        yield model


def names(field: list[Contender]) -> list[str]:
    return [entry.name for entry in field]


def layers_of(entry: Contender) -> list[int]:
    layers = entry.answer(TEXTS, 32).exit_layer
    assert layers is not None
    found: list[int] = layers.tolist()
    return found


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("torch", Target("torch")),
        ("onnx", Target("onnx")),
        ("openvino:bf16", Target("openvino", "bf16")),
    ],
)
def test_a_runtime_is_named_with_or_without_a_precision(text: str, target: Target) -> None:
    assert Target.read(text) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [("tensorrt", "one of torch, openvino, onnx"), ("onnx:bf16", "onnx must be fp32 or int8")],
)
def test_what_does_not_run_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target.read(text)


def test_a_folder_without_exports_runs_in_torch(folder: ModelFolder) -> None:
    assert targets_of(folder) == [Target("torch")]


def test_without_a_precision_there_must_be_an_export(folder: ModelFolder) -> None:
    with (
        pytest.raises(FolderError, match="holds no export for onnx"),
        loaded_models(folder, [Target("onnx")], 1, []),
    ):
        pass


def test_a_model_is_loaded_once_for_each_runtime_and_precision(folder: ModelFolder) -> None:
    twice = [Target("torch"), Target("torch", "fp32")]
    with loaded_models(folder, twice, 1, []) as models:
        assert [model.name for model in models] == ["FastBERT torch fp32"]


def test_a_model_takes_part_at_full_depth_and_at_each_setting(model: LoadedModel) -> None:
    field = contenders_of(model, [0.25, 0.6, 0.25], [])
    assert names(field) == [
        "FastBERT torch fp32, speed=0.25",
        "FastBERT torch fp32, speed=0.6",
        "FastBERT torch fp32, full depth",
    ]
    assert [entry.full_depth for entry in field] == [field[-1].name, field[-1].name, None]
    assert all(entry.is_ours for entry in field)


def test_early_exits_are_those_of_the_classifier(folder: ModelFolder, model: LoadedModel) -> None:
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    early, full = contenders_of(model, [SPEED], [])
    for entry, speed in ((early, SPEED), (full, 0.0)):
        expected = classifier.classify(TEXTS, EntropyCriterion(speed), 7)
        answers = entry.answer(TEXTS, 7)
        assert answers.exit_layer is not None
        assert answers.exit_layer.tolist() == expected.exit_layer.tolist()
        assert answers.decisions.tolist() == expected.logits.argmax(axis=-1).tolist()
    assert len(set(layers_of(early))) > 1


def test_without_a_setting_the_folders_default_takes_part(
    folder: ModelFolder, tmp_path: Path
) -> None:
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    classifier.save_pretrained(tmp_path / "calibrated")
    calibrated = FastBertClassifier.from_pretrained(tmp_path / "calibrated", device="cpu")
    rows = examples(60, seed=5)
    calibrated.save_calibration(
        calibrated.calibrate([row.content for row in rows], [row.label or "" for row in rows]),
        "made",
    )
    shown = []
    for one in (classifier, calibrated):
        shown += names(contenders_of(LoadedModel(one, "torch", "fp32", 1), [], []))[:1]
    assert shown == ["FastBERT torch fp32, by default", "FastBERT torch fp32, max_drop=0.005"]
    goal = Goal(max_drop=0.01, metric="agreement")
    [early, _] = contenders_of(LoadedModel(calibrated, "torch", "fp32", 1), [goal], [])
    assert early.name == "FastBERT torch fp32, max_drop=0.01, metric=agreement"
    expected = calibrated.classify(TEXTS, calibrated.calibration.solve(goal).criterion)
    assert layers_of(early) == expected.exit_layer.tolist()


def test_a_goal_that_cannot_be_asked_is_noted(model: LoadedModel) -> None:
    failures: list[Failure] = []
    field = contenders_of(model, [Goal(max_drop=0.01), SPEED], failures)
    assert names(field) == ["FastBERT torch fp32, speed=0.6", "FastBERT torch fp32, full depth"]
    [failure] = failures
    assert failure.name == "FastBERT torch fp32, max_drop=0.01"
    assert "is not calibrated" in failure.reason


def test_a_refused_export_is_noted_and_the_others_are_loaded(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    def refused(*_: object, **__: object) -> None:
        raise ExportError("not exported: of 58 rows 4 get another label")

    monkeypatch.setattr("fastbert.export.export.export_model", refused)
    monkeypatch.setattr("fastbert.export.export.traced", lambda folder: None)
    failures: list[Failure] = []
    targets = [Target("onnx", "int8"), Target("torch")]
    with loaded_models(folder, targets, 1, failures) as models:
        assert [model.name for model in models] == ["FastBERT torch fp32"]
    assert failures == [
        Failure("FastBERT onnx int8", "not exported: of 58 rows 4 get another label")
    ]


def test_a_default_by_ones_own_measure_fails_alone_and_says_how_to_pass_it(
    folder: ModelFolder, tmp_path: Path
) -> None:
    class OwnMeasure(MaxProbability):
        pass

    copy_folder(folder, tmp_path / "own")
    classifier = FastBertClassifier.from_pretrained(tmp_path / "own", device="cpu")
    classifier.save_calibration(classifier.calibrate(TEXTS, measure=OwnMeasure()), "made")
    reloaded = FastBertClassifier.from_pretrained(tmp_path / "own", device="cpu")
    failures: list[Failure] = []
    field = contenders_of(LoadedModel(reloaded, "torch", "fp32", 1), [], failures)
    assert names(field) == ["FastBERT torch fp32, full depth"]
    [failure] = failures
    assert "measure 'OwnMeasure'" in failure.reason


def test_what_is_not_exported_is_exported_for_the_run(
    folder: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(path.name for path in folder.path.iterdir())
    classifier = FastBertClassifier.from_pretrained(folder.path, runtime="torch", device="cpu")
    with loaded_models(folder, [Target("onnx", "fp32")], 1, [], TEXTS) as [model]:
        assert read_manifest(model.classifier.folder, "onnx").parity.rows == len(TEXTS)
        early, full = contenders_of(model, [SPEED], [])
        assert early.name == "FastBERT onnx fp32, speed=0.6"
        for entry, speed in ((early, SPEED), (full, 0.0)):
            expected = classifier.classify(TEXTS, EntropyCriterion(speed))
            assert np.array_equal(entry.answer(TEXTS, 9).decisions, expected.logits.argmax(axis=-1))
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert sorted(path.name for path in folder.path.iterdir()) == before


def test_what_is_not_installed_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    absent = {"onnxruntime", "nncf"}
    monkeypatch.setattr(
        contenders, "find_spec", lambda name: None if name in absent else find_spec(name)
    )
    with caplog.at_level(logging.WARNING):
        assert installed("torch", what="this")
        assert not installed("torch", "onnxruntime", "nncf", what="that")
    assert caplog.messages == [
        "that is left out, it needs onnxruntime and nncf: pip install 'fastbert-kit[onnx,export]'"
    ]
