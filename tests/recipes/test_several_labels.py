"""Texts of several labels go the whole way: trained, distilled, calibrated, exported, served."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.errors import DataError
from fastbert.evaluation import evaluate
from fastbert.export.export import export_model
from fastbert.recipes.distill import distill
from fastbert.recipes.run import StudentSettings
from fastbert.tasks.multi_label import MultiLabel
from fastbert.training.scheme import SchemeSettings
from tests.recipes.runs import FINE_TUNING, STUDENTS, never, run
from tests.tiny import tiny_classifier
from tests.tiny_data import FILLERS, LABELS, SIGNALS, examples, save_encoder, tiny_tokenizer

ROWS = 600


def write_sets(path: Path, rows: int, seed: int) -> Path:
    """Write texts with none to all of the signals, and the list of labels that they give away."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        held = [label for label in LABELS if random.random() < 0.4]
        words = [*random.choice(FILLERS, size=3).tolist(), *(SIGNALS[label] for label in held)]
        lines.append(json.dumps({"text": " ".join(random.permutation(words)), "label": held}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    here = tmp_path_factory.mktemp("several")
    files = {
        "train": write_sets(here / "train.jsonl", ROWS, seed=1),
        "dev": write_sets(here / "dev.jsonl", 60, seed=2),
        "model": save_encoder(here / "encoder"),
        "output": here / "output",
    }
    longer = replace(FINE_TUNING, epochs=18, learning_rate=2e-3, checkpoint_steps=999)
    return run(files, fine_tuning=longer)


def rows_of(path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row["text"] for row in rows], [tuple(row["label"]) for row in rows]


def test_a_list_of_labels_in_each_row_sets_the_task_and_is_learned(
    trained: FastBertClassifier, tmp_path: Path
) -> None:
    assert isinstance(trained.task, MultiLabel)
    assert trained.task.labels == LABELS
    assert trained.task.threshold != 0.5  # chosen on dev, and kept in the folder
    assert FastBertClassifier.from_pretrained(trained.folder.path).task == trained.task
    texts, truth = rows_of(write_sets(tmp_path / "test.jsonl", 50, seed=3))
    said = [answer.labels for answer in trained.predict(texts, speed=0.0)]
    assert sum(map(tuple.__eq__, said, truth)) >= 33
    assert () in truth  # no label is an answer too


def test_the_folder_is_a_usual_classifier_of_several_labels(trained: FastBertClassifier) -> None:
    folder = trained.folder.path
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == "multi_label_classification"
    texts = [example.text for example in examples(20, seed=5)]
    theirs: Any = pipeline("text-classification", model=str(folder))(texts, top_k=None)
    for ours, scores in zip(trained.predict(texts, speed=0.0), theirs, strict=True):
        for entry in scores:
            assert ours.probabilities[entry["label"]] == pytest.approx(entry["score"], abs=1e-6)


def test_its_default_is_a_goal_of_micro_f1(trained: FastBertClassifier) -> None:
    [point] = [row for row in trained.config.evaluation if row["speed"] is None]
    full = trained.config.evaluation[0]
    assert full["speed"] == 0
    assert point["goal"] == {"max_drop": 0.005}
    assert full["micro_f1"] - point["micro_f1"] <= 0.005
    assert trained.calibration.truth is not None
    assert trained.calibration.truth.shape == (60, len(LABELS))


def test_goals_of_each_metric_are_kept_on_the_calibration_texts(
    trained: FastBertClassifier,
) -> None:
    calibration = trained.calibration
    full = calibration.points[0]
    for metric, column in (("micro-f1", "micro_f1"), ("f1", "macro_f1"), ("row-f1", "row_f1")):
        point = calibration.solve(Goal(max_drop=0.1, metric=metric))  # type: ignore[arg-type]  # one of them
        assert full.metrics[column] - point.metrics[column] <= 0.1
        assert point.mean_exit_layer < full.mean_exit_layer
    assert calibration.solve(Goal(max_drop=0.3, confidence=0.8)).mean_exit_layer < 4


def test_an_answer_does_not_depend_on_the_batch(trained: FastBertClassifier) -> None:
    texts = [example.text for example in examples(17, seed=6)]
    together = trained.predict(texts, speed=0.5)
    alone = [trained.predict(text, speed=0.5) for text in texts]
    assert len({answer.exit_layer for answer in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert (one.labels, one.exit_layer) == (other.labels, other.exit_layer)
        assert list(one.probabilities.values()) == pytest.approx(
            list(other.probabilities.values()), abs=1e-6
        )


def test_it_is_evaluated_by_the_metrics_of_several_labels(
    trained: FastBertClassifier, tmp_path: Path
) -> None:
    path = write_sets(tmp_path / "test.jsonl", 40, seed=4)
    [full] = evaluate(trained, load_examples(path, Columns(), needs_label=True), [0.0])
    assert set(full.metrics) == {"micro_f1", "macro_f1", "row_f1"}
    assert full.metrics["micro_f1"] > 0.8
    assert full.accuracy is None


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_export_answers_as_torch_does(
    runtime: Any, trained: FastBertClassifier, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime" if runtime == "onnx" else "openvino")
    trained.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", runtime=runtime, precision="fp32")
    exported = FastBertClassifier.from_pretrained(tmp_path / "model", runtime=runtime)
    texts = [example.text for example in examples(13, seed=7)]
    for speed in (0.0, 0.5):
        np.testing.assert_allclose(
            exported.predict_proba(texts, speed), trained.predict_proba(texts, speed), atol=1e-5
        )
    alone = exported.predict(texts[0], speed=0.5)
    assert alone.exit_layer == trained.predict(texts[0], speed=0.5).exit_layer


def save_several(folder: Path, family: str) -> Path:
    """Write a classifier of several labels as transformers does."""
    names = dict(enumerate(LABELS))
    tiny_classifier(
        family,
        id2label=names,
        label2id={label: index for index, label in names.items()},
        problem_type="multi_label_classification",
    ).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_large_one_of_several_labels_teaches_a_smaller_body(tmp_path: Path) -> None:
    once = replace(FINE_TUNING, epochs=1)
    classifier = distill(
        save_several(tmp_path / "large", "distilbert"),
        write_sets(tmp_path / "texts.jsonl", 240, seed=9),
        into=save_encoder(tmp_path / "encoder"),
        output=tmp_path / "output",
        max_length=16,
        students=StudentSettings("paper/first/8"),
        numbers=SchemeSettings(imitation=once, warm_up=None, exits=once),
    )
    assert classifier.task == MultiLabel(LABELS)
    assert classifier.predict("lovely plain", speed=0.0).exit_layer == classifier.num_layers
    assert classifier.calibration.truth_from == "large"


def test_a_checkpoint_of_several_labels_is_distilled_as_it_is(tmp_path: Path) -> None:
    checkpoint = save_several(tmp_path / "checkpoint", "bert")
    texts = write_sets(tmp_path / "texts.jsonl", 60, seed=8)
    classifier = distill(
        checkpoint, texts, output=tmp_path / "output", max_length=16, students=STUDENTS
    )
    assert classifier.task == MultiLabel(LABELS)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "output")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert classifier.config.evaluation[0]["micro_f1"] == 1.0  # agreement with itself at speed 0


def test_lists_and_single_labels_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text('{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": "x"}\n')
    files = {
        "train": train,
        "dev": train,
        "model": save_encoder(tmp_path / "encoder"),
        "output": tmp_path / "output",
    }
    monkeypatch.setattr("fastbert.recipes.train.teacher_to_train", never)
    with pytest.raises(
        DataError, match=r"train\.jsonl:2: label 'x' is no list of labels; write a list"
    ):
        run(files)
