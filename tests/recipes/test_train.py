"""From labelled files to a model folder: what comes out, and what is refused before training."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.errors import BackboneError, DataError, TrainingError
from fastbert.recipes import stages
from fastbert.recipes.distill import distill
from fastbert.recipes.train import LabelledFiles
from fastbert.training.scheme import SCHEMES, SchemeSettings, paper, scheme_named
from tests.recipes.runs import (
    FINE_TUNING,
    STUDENTS,
    Kill,
    folder_of_run,
    kill_at,
    never,
    run,
    weights,
)
from tests.tiny_data import LABELS, examples, write_csv


def test_training_gives_a_classifier_that_learned_and_a_folder_that_others_read(
    files: dict[str, Path],
) -> None:
    write_csv(files["train"], examples(240, seed=1))
    longer = replace(FINE_TUNING, epochs=12, learning_rate=4e-3, checkpoint_steps=999)
    classifier = run(files, fine_tuning=longer)

    texts = [example.text for example in examples(30, seed=3)]
    truth = [example.label for example in examples(30, seed=3)]
    answers = [prediction.label for prediction in classifier.predict(texts, speed=0.0)]
    assert sum(map(str.__eq__, answers, truth)) >= 27
    assert classifier.labels == LABELS

    model, report = AutoModelForSequenceClassification.from_pretrained(
        files["output"], output_loading_info=True
    )
    assert not report["missing_keys"] | report["unexpected_keys"] | report["mismatched_keys"]
    theirs: Any = pipeline(
        "text-classification",
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(files["output"]),
    )(texts, top_k=None)
    for ours, scores in zip(classifier.predict(texts, speed=0.0), theirs, strict=True):
        assert ours.label == scores[0]["label"]
        for entry in scores:
            assert ours.probabilities[entry["label"]] == pytest.approx(entry["score"], abs=1e-6)
    assert not files["output"].with_name("output.training").exists()


def test_the_same_seed_gives_the_same_weights(files: dict[str, Path], uninterrupted: Path) -> None:
    shutil.copytree(uninterrupted, files["output"])
    (files["output"] / "model.safetensors").unlink()
    run(files)  # replaces our own folder
    assert weights(files["output"]) == weights(uninterrupted)
    assert not folder_of_run(files).exists()


def test_the_papers_head_holds_a_plain_encoder_and_our_heads(files: dict[str, Path]) -> None:
    classifier = run(files, teacher_head="paper")
    _, report = AutoModel.from_pretrained(
        files["output"], output_loading_info=True, add_pooling_layer=True
    )
    assert not report["missing_keys"] | report["unexpected_keys"]
    heads = load_file(files["output"] / "students.safetensors")
    assert {name.split(".")[0] for name in heads} == {"students", "teacher"}
    before = classifier.predict_proba(["lovely word3"], speed=0.0)
    again = FastBertClassifier.from_pretrained(files["output"])
    assert (again.predict_proba(["lovely word3"], speed=0.0) == before).all()


def test_unlabelled_texts_reach_the_students_only(
    files: dict[str, Path], uninterrupted: Path
) -> None:
    plain = weights(uninterrupted)
    more = write_csv(files["train"].with_name("more.csv"), examples(50, seed=4), labelled=False)
    run(files, unlabeled=more)
    both = weights(files["output"])
    assert both["model.safetensors"] == plain["model.safetensors"]
    assert both["students.safetensors"] != plain["students.safetensors"]


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(files: dict[str, Path]) -> None:
    # FastBERT issues 16 and 42: unmatched weights stayed random, and ten points were lost.
    path = files["model"] / "model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if "layer.1.attention" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=lost.replace(".", r"\.")):
        run(files)


def test_unknown_labels_in_dev_are_refused_before_training(files: dict[str, Path]) -> None:
    write_csv(files["dev"], [replace(row, label="odd") for row in examples(3)])
    with pytest.raises(DataError, match=r"dev\.csv:2.*odd"):
        run(files)
    assert not files["output"].with_name("output.training").exists()


def test_texts_of_dev_that_are_also_learned_from_are_counted(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_csv(files["dev"], [*examples(60, seed=1)[:7], *examples(20, seed=2)])
    LabelledFiles.load(files["train"], files["dev"], None, None, Columns())
    assert "7 of 27 texts also stand in" in caplog.text


@pytest.mark.parametrize("name", SCHEMES)
def test_a_stage_that_diverges_stops_with_its_name_and_nothing_is_kept_of_it(
    name: str, files: dict[str, Path]
) -> None:
    once = replace(FINE_TUNING, epochs=1)
    wild = replace(once, learning_rate=1e30, warmup=0.0, epochs=2)
    numbers = SchemeSettings(once, distillation=wild, warm_up=None, exits=wild)
    scheme = scheme_named(name, numbers)
    stage = scheme.stages[-1].name
    with pytest.raises(TrainingError, match=rf"^{stage}: the .* became (nan|inf) by step \d+; try"):
        run(files, scheme=scheme)
    kept = folder_of_run(files) / "stages"
    assert (kept / "teacher.safetensors").exists()
    assert not (kept / f"{stage}.safetensors").exists()
    assert not list(kept.glob(f"{stage}/checkpoint-*"))
    assert not files["output"].exists()


def test_a_scheme_is_asked_for_by_name_and_told_with_its_numbers(files: dict[str, Path]) -> None:
    once = replace(FINE_TUNING, epochs=1)
    classifier = run(files, scheme="exit-aware", fine_tuning=once, tolerance=1.0)
    told = classifier.config.training
    assert (told["scheme"], told["tolerance"]) == ("exit-aware", 1.0)
    assert list(told["stages"]) == list(told["history"]) == ["teacher", "students", "exits"]
    assert told["stages"]["exits"]["settings"]["batch_size"] == once.batch_size
    assert told["stages"]["exits"]["loss"]["weights"]["is"] == "ExitAware"
    assert told["fallback"]["stages"]["students"]["settings"]["epochs"] == STUDENTS.stage.epochs
    assert "- Scheme: exit-aware" in (files["output"] / "README.md").read_text("utf-8")
    with pytest.raises(ValueError, match="scheme must be one of paper, joint"):
        run(files, scheme="papers")


def test_a_scheme_of_ones_own_is_told_with_its_numbers_alone(files: dict[str, Path]) -> None:
    once = replace(FINE_TUNING, epochs=1)
    told = run(files, scheme=paper(SchemeSettings(once, once))).config.training
    assert {stage["settings"]["epochs"] for stage in told["stages"].values()} == {1}
    assert list(told["students"]) == ["heads"]
    assert not told.keys() & {"fine_tuning", "label_smoothing"}


def test_a_run_of_another_scheme_is_not_gone_on_with(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 5)
        with pytest.raises(Kill):
            run(files, scheme="joint")
    with pytest.raises(TrainingError, match="the stopped run had scheme joint, not separate"):
        run(files, scheme="separate", resume=True)
    with pytest.raises(TrainingError, match=r"the stopped run had tolerance 0\.01, not 0\.02"):
        run(files, scheme="joint", tolerance=0.02, resume=True)


def test_a_loss_that_is_no_number_stops_training(files: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="teacher: the loss became"):
        run(files, fine_tuning=replace(FINE_TUNING, learning_rate=1e30, warmup=0.0, epochs=9))
    assert not files["output"].exists()


@pytest.mark.parametrize(
    ("environment", "gpus", "message"),
    [
        ({"WORLD_SIZE": "2"}, 0, "WORLD_SIZE is 2: training runs in one process"),
        ({}, 2, "2 GPUs are visible and training runs on one"),
    ],
)
def test_several_devices_are_refused_before_anything_is_written(
    environment: dict[str, str],
    gpus: int,
    message: str,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(TrainingError, match=message):
        run(files)
    with pytest.raises(TrainingError, match=message):
        distill(files["model"], files["train"], output=files["output"])
    assert not folder_of_run(files).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"more\.csv: does not exist"),
        ("other\na\n", r"more\.csv:1: no column 'text'"),
        ("text\ngood\n\x00\n", r"more\.csv:3"),
    ],
)
def test_unlabelled_texts_that_cannot_be_read_are_refused_before_stage_1(
    content: str | None, message: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = files["train"].with_name("more.csv")
    if content is not None:
        more.write_text(content)
    monkeypatch.setattr(stages, "run_stage", never)
    with pytest.raises(DataError, match=message):
        run(files, unlabeled=more)
    assert not folder_of_run(files).exists()
