"""A report says what the classifier, its calibration and the texts say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbert.calibration.goal import Goal
from fastbert.calibration.solve import Calibration
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.errors import DataError
from fastbert.recipes.run import StudentSettings
from fastbert.recipes.train import train
from fastbert.report.collect import SHOWN_GOALS, collect
from fastbert.tasks.multi_label import MultiLabel
from fastbert.training.stage import StageSettings
from tests.bench.models import varied_folder
from tests.tiny_data import LABELS, examples, save_encoder, save_uncalibrated, write_csv

STAGE = StageSettings(epochs=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    here = tmp_path_factory.mktemp("collect")
    return train(
        write_csv(here / "train.csv", examples(40, seed=1)),
        dev=write_csv(here / "dev.csv", examples(20, seed=2)),
        model=save_encoder(here / "encoder"),
        output=here / "model",
        max_length=16,
        fine_tuning=STAGE,
        students=StudentSettings(stage=STAGE, exits=STAGE),
    )


@pytest.fixture
def uncalibrated(classifier: FastBertClassifier, tmp_path: Path) -> FastBertClassifier:
    return FastBertClassifier.from_pretrained(
        save_uncalibrated(classifier.folder.path, tmp_path / "uncalibrated")
    )


def test_without_texts_and_calibration_it_says_what_is_missing(
    uncalibrated: FastBertClassifier,
) -> None:
    with pytest.raises(DataError, match="--data"):
        collect(uncalibrated, "model")


def test_texts_alone_are_enough(uncalibrated: FastBertClassifier, tmp_path: Path) -> None:
    classifier = uncalibrated
    file = write_csv(tmp_path / "test.csv", examples(25, seed=3))
    rows = load_examples(file, Columns(), needs_label=True)
    report = collect(classifier, "model", rows)

    recorded = classifier.record([row.content for row in rows]).recorded
    np.testing.assert_array_equal(report.recorded.recorded, recorded)
    assert report.truth is not None
    assert [classifier.labels[number] for number in report.truth] == [row.label for row in rows]
    assert report.texts == [row.text for row in rows]
    assert not report.points
    assert report.calibration is None
    assert report.timings[0]["speed"] == 0
    assert [len(epochs) for epochs in report.history.values()] == [1, 1, 1]

    unlabelled = collect(classifier, "model", [replace(row, label=None) for row in rows])
    assert unlabelled.truth is None
    assert not unlabelled.timings


def test_a_label_that_the_classifier_does_not_have_is_named(
    classifier: FastBertClassifier,
) -> None:
    rows = [*examples(9, seed=4), Example("made:10", "text", label="unheard-of")]
    with pytest.raises(DataError, match=r"^made:10: label 'unheard-of' is not among the labels"):
        collect(classifier, "model", rows)


def test_a_calibrated_model_is_reported_by_its_goals(
    classifier: FastBertClassifier, tmp_path: Path
) -> None:
    rows = examples(30, seed=4)
    own = FastBertClassifier.from_pretrained(classifier.folder.path)
    own.save_pretrained(tmp_path / "copy")
    own = FastBertClassifier.from_pretrained(tmp_path / "copy")
    own.save_calibration(
        own.calibrate([row.content for row in rows], [str(row.label) for row in rows]), "dev.csv"
    )

    report = collect(own, "model")
    assert report.texts is None
    assert report.calibration is not None
    assert report.calibration["rows"] == "30 of dev.csv, labelled"
    assert [point["goal"] for point in report.points] == [goal.as_dict() for goal in SHOWN_GOALS]
    half = own.speed_for(saving=0.5)
    [reported] = [p for p in report.points if p["goal"] == Goal(saving=0.5).as_dict()]
    assert reported["thresholds"] == list(half.thresholds)
    assert reported["mean_exit_layer"] == half.mean_exit_layer
    assert all("takes at least" in promise["refused"] for promise in report.guarantees)

    # On other texts the thresholds stay, and the figures are those of the texts.
    others = examples(23, seed=5)
    elsewhere = collect(own, "model", others)
    answered = own.classify([row.content for row in others], half.criterion)
    [reported] = [p for p in elsewhere.points if p["goal"] == Goal(saving=0.5).as_dict()]
    assert reported["thresholds"] == list(half.thresholds)
    assert reported["mean_exit_layer"] == pytest.approx(answered.exit_layer.mean())


def test_the_texts_of_a_report_without_labels_are_encoded_once(
    uncalibrated: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    real = uncalibrated.tokenizer.encode

    def encode(texts: list[str]) -> object:
        encoded.append(len(texts))
        return real(texts)

    monkeypatch.setattr(uncalibrated.tokenizer, "encode", encode)
    collect(uncalibrated, "a name", [Example(f"file:{row}", f"text {row}") for row in range(7)])

    assert encoded == [7]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_model_of_several_labels_is_reported_by_its_metrics(
    labelled: bool, tmp_path: Path
) -> None:
    folder = varied_folder(tmp_path / "labels", kind=MultiLabel)
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    random = np.random.default_rng(1)
    rows = [
        replace(row, label=tuple(label for label in LABELS if random.random() < 0.5))
        for row in examples(30, seed=4)
    ]
    task = classifier.config.task
    tokens = classifier.encode([row.content for row in rows])
    calibration = Calibration(
        classifier.record_tokens(tokens),
        task.array([row.label for row in rows]) if labelled else None,
        np.array([len(row.ids) for row in tokens]),
        folder.shape,
        task,
        task.default_measure,
    )
    classifier.save_calibration(calibration, "dev.csv")

    report = collect(classifier, "model", rows if labelled else None)
    half = calibration.solve(Goal(saving=0.5))
    [point] = [p for p in report.points if p["goal"] == Goal(saving=0.5).as_dict()]
    shown = [name for name in point if name.endswith("_f1")]
    assert shown == ["micro_f1", "macro_f1", "row_f1"]
    if labelled:
        assert {name: point[name] for name in shown} == half.metrics
        assert {promise["metric"] for promise in report.guarantees} == {"row_f1"}
        assert {"micro_f1", "row_f1"} < report.timings[0].keys()
    else:
        assert [point[name] for name in shown] == [None, None, half.agreement]
        assert {promise["metric"] for promise in report.guarantees} == {"agreement"}
