"""From files to model folders: what comes out, what is refused, and what a kill costs."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fastbert.classifier import FastBertClassifier
from fastbert.errors import BackboneError, DataError, FolderError, TrainingError
from fastbert.folder import StudentLayout
from fastbert.recipes import StudentSettings, distill, train
from fastbert.training import checkpoints
from fastbert.training.stage import StageSettings
from tests.tiny_data import LABELS, examples, save_classifier, save_encoder, write_csv

FINE_TUNING = StageSettings(
    epochs=2, learning_rate=5e-3, batch_size=8, checkpoint_steps=3, bf16=False
)
STUDENTS = StudentSettings(
    StudentLayout("first", 8, 2), replace(FINE_TUNING, epochs=2, learning_rate=1e-2)
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "train": write_csv(tmp_path / "train.csv", examples(60, seed=1)),
        "dev": write_csv(tmp_path / "dev.csv", examples(30, seed=2)),
        "model": save_encoder(tmp_path / "encoder"),
        "output": tmp_path / "output",
    }


def run(files: dict[str, Path], **options: Any) -> FastBertClassifier:
    settings = {"max_length": 16, "fine_tuning": FINE_TUNING, "students": STUDENTS}
    return train(**{**files, **settings, **options})


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in ("model.safetensors", "students.safetensors")
    }


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


def test_the_folder_records_how_it_was_made_and_what_it_measured(files: dict[str, Path]) -> None:
    config = run(files).config
    assert config.training["fine_tuning"]["epochs"] == 2
    assert config.training["train"] == "train.csv"  # folders are published: no places of a machine
    assert str(files["train"].parent) not in (files["output"] / "early_exit.json").read_text()
    assert config.students == STUDENTS.layout
    assert [row["speed"] for row in config.evaluation] == [0.0, 0.1, 0.3, 0.5, 0.8, None]
    assert config.default is not None
    assert config.evaluation[-1]["goal"] == config.default.goal == {"max_drop": 0.005}
    assert config.evaluation[-1]["thresholds"] == list(config.default.thresholds)
    assert {row["rows"] for row in config.evaluation} == {30}
    assert (files["output"] / "README.md").exists()


def test_the_folder_keeps_the_history_of_both_stages(files: dict[str, Path]) -> None:
    run(files, fine_tuning=replace(FINE_TUNING, epochs=3))
    history = history_of(files["output"])
    assert history.keys() == {"teacher", "students"}
    assert [epoch["epoch"] for epoch in history["teacher"]] == [1, 2, 3]
    assert [epoch["epoch"] for epoch in history["students"]] == [1, 2]
    for epoch in history["teacher"]:
        assert epoch.keys() == {"epoch", "dev_loss", "accuracy"}
        assert 0 <= epoch["accuracy"] <= 1
    for epoch in history["students"]:
        judged = {"accuracy", "agreement", "mean_exit_layer"}
        assert epoch.keys() == {"epoch", "dev_loss"} | judged
        assert 1 <= epoch["mean_exit_layer"] <= 4
    figures = [epoch[name] for stage in history.values() for epoch in stage for name in epoch]
    assert all(type(figure) in (float, int) and figure >= 0 for figure in figures)


def history_of(folder: Path) -> dict[str, list[dict[str, float]]]:
    training = json.loads((folder / "early_exit.json").read_text("utf-8"))["training"]
    history: dict[str, list[dict[str, float]]] = training["history"]
    return history


@pytest.mark.parametrize(("call", "number"), [("on_step_end", 5), ("on_step_end", 28)])
def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(
    files: dict[str, Path], call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(files)
    uninterrupted = history_of(files["output"])
    files["output"] = files["output"].with_name("resumed")
    with monkeypatch.context() as patch:
        kill_at(patch, call, number)
        with pytest.raises(Kill):
            run(files)
    run(files, resume=True)
    # After a resume the Trainer's next training loss is the mean over the steps since then, so the
    # history cannot have it.
    assert history_of(files["output"]) == uninterrupted


def test_the_table_is_measured_on_test_where_there_is_one(files: dict[str, Path]) -> None:
    test = write_csv(files["train"].with_name("test.csv"), examples(17, seed=9))
    assert {row["rows"] for row in run(files, test=test).config.evaluation} == {17}


def test_the_same_seed_gives_the_same_weights(files: dict[str, Path]) -> None:
    run(files)
    first = weights(files["output"])
    run(files)  # replaces our own folder
    assert weights(files["output"]) == first


def test_the_paper_layout_holds_a_plain_encoder_and_our_heads(files: dict[str, Path]) -> None:
    classifier = run(files, layout="paper")
    _, report = AutoModel.from_pretrained(
        files["output"], output_loading_info=True, add_pooling_layer=True
    )
    assert not report["missing_keys"] | report["unexpected_keys"]
    heads = load_file(files["output"] / "students.safetensors")
    assert {name.split(".")[0] for name in heads} == {"students", "teacher"}
    before = classifier.predict_proba(["lovely word3"], speed=0.0)
    again = FastBertClassifier.from_pretrained(files["output"])
    assert (again.predict_proba(["lovely word3"], speed=0.0) == before).all()


def test_unlabelled_texts_reach_the_students_only(files: dict[str, Path]) -> None:
    run(files)
    plain = weights(files["output"])
    more = write_csv(files["train"].with_name("more.csv"), examples(50, seed=4), labelled=False)
    run(files, unlabeled=more)
    both = weights(files["output"])
    assert both["model.safetensors"] == plain["model.safetensors"]
    assert both["students.safetensors"] != plain["students.safetensors"]


def test_distilling_leaves_a_fine_tuned_checkpoint_as_it_is(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    classifier = distill(
        checkpoint, texts, output=tmp_path / "output", max_length=16, students=STUDENTS
    )

    lines = [example.text for example in examples(20, seed=5)]
    theirs: Any = pipeline("text-classification", model=str(checkpoint))(lines, top_k=None)
    for ours, scores in zip(classifier.predict(lines, speed=0.0), theirs, strict=True):
        for entry in scores:
            assert ours.probabilities[entry["label"]] == pytest.approx(entry["score"], abs=1e-6)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "output")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_distilling_holds_out_one_text_in_ten(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    config = distill(
        checkpoint, texts, output=tmp_path / "output", max_length=16, students=STUDENTS
    ).config
    assert {row["rows"] for row in config.evaluation} == {6}
    assert config.evaluation[0]["accuracy"] == 1.0  # agreement with the teacher at speed 0

    few = write_csv(tmp_path / "few.csv", examples(9), labelled=False)
    with pytest.raises(DataError, match="at least 10 texts"):
        distill(checkpoint, few, output=tmp_path / "other", max_length=16, students=STUDENTS)


def test_a_checkpoint_without_a_trained_head_is_not_distilled(tmp_path: Path) -> None:
    # BitVoyage issue 12: students were taught by a randomly initialised head.
    checkpoint = save_encoder(tmp_path / "encoder")
    texts = write_csv(tmp_path / "texts.csv", examples(20), labelled=False)
    with pytest.raises(BackboneError, match="not a fine-tuned classifier"):
        distill(checkpoint, texts, output=tmp_path / "output", max_length=16)


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(files: dict[str, Path]) -> None:
    # FastBERT issues 16 and 42: unmatched weights stayed random, and ten points were lost.
    path = files["model"] / "model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if "layer.1.attention" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=lost.replace(".", r"\.")):
        run(files)


def test_longer_texts_than_there_are_positions_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(BackboneError, match="reads at most 34 tokens, max_length is 35"):
        run(files, max_length=35)


def test_unknown_labels_in_dev_are_refused_before_training(files: dict[str, Path]) -> None:
    write_csv(files["dev"], [replace(row, label="odd") for row in examples(3)])
    with pytest.raises(DataError, match=r"dev\.csv:2.*odd"):
        run(files)
    assert not files["output"].with_name("output.training").exists()


def test_texts_in_both_train_and_dev_are_counted(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    twins = examples(60, seed=1)[:7]
    write_csv(files["dev"], [*twins, *examples(20, seed=2), replace(twins[0], text="")])
    with caplog.at_level(logging.WARNING):
        run(files)
    assert "7 of 28 texts also stand in" in caplog.text
    assert "1 of 28 texts are empty" in caplog.text


def test_a_loss_that_is_no_number_stops_training(files: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="teacher: the loss became"):
        run(files, fine_tuning=replace(FINE_TUNING, learning_rate=1e30, warmup=0.0, epochs=9))
    assert not files["output"].exists()


def test_an_output_that_holds_something_else_is_refused_before_training(
    files: dict[str, Path],
) -> None:
    files["output"].mkdir()
    (files["output"] / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError, match="holds other files"):
        run(files)
    assert not files["output"].with_name("output.training").exists()


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


@pytest.mark.parametrize(
    ("call", "number"),
    # Each stage has 16 steps. A checkpoint is due every 3 steps and after each epoch of 8; a kill
    # in on_save comes when the Trainer's files are there and the seal is not.
    [
        ("on_step_end", 1),
        ("on_step_end", 5),
        ("on_step_end", 8),
        ("on_step_end", 15),
        ("on_step_end", 18),
        ("on_step_end", 28),
        ("on_save", 1),
        ("on_save", 3),
        ("on_save", 8),
    ],
)
def test_a_killed_run_that_is_resumed_ends_bit_equal(
    files: dict[str, Path],
    call: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(files)
    uninterrupted = weights(files["output"])
    files["output"] = files["output"].with_name("resumed")
    with monkeypatch.context() as patch:
        kill_at(patch, call, number)
        with pytest.raises(Kill):
            run(files)
    assert not files["output"].exists()
    run(files, resume=True)
    assert weights(files["output"]) == uninterrupted


KILLED = """
import os, signal, sys
from pathlib import Path
from fastbert.training.checkpoints import CheckpointWriter
from tests.test_recipes import run

original, saves = CheckpointWriter.on_save, []

def dying(self, *args, **kwargs):
    saves.append(1)
    if len(saves) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *args, **kwargs)

CheckpointWriter.on_save = dying
folder = Path(sys.argv[1])
names = {"train": "train.csv", "dev": "dev.csv", "model": "encoder", "output": "resumed"}
run({name: folder / file for name, file in names.items()})
"""


def test_a_process_killed_while_it_saves_is_resumed_bit_equal(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run(files)
    uninterrupted = weights(files["output"])
    folder, root = files["output"].parent, Path(__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], cwd=root, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    files["output"] = folder / "resumed"
    assert not files["output"].exists()
    with caplog.at_level(logging.WARNING):
        run(files, resume=True)
    assert "skipped, it was never finished" in caplog.text
    assert weights(files["output"]) == uninterrupted


def test_a_stopped_run_is_neither_overwritten_nor_resumed_with_other_settings(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 4)
        with pytest.raises(Kill):
            run(files)
    with pytest.raises(TrainingError, match="go on with --resume"):
        run(files)
    with pytest.raises(TrainingError, match="had max_length 16, not 17"):
        run(files, max_length=17, resume=True)
