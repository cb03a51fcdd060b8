"""From files to model folders: what comes out, what is refused, and what a kill costs."""

import json
import logging
import shutil
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
from fastbert.recipes import run as run_module
from fastbert.recipes.distill import distill
from fastbert.recipes.run import StudentSettings
from fastbert.recipes.run_folder import claim
from fastbert.recipes.train import train
from fastbert.shape import StudentShape
from fastbert.training import checkpoints, stage
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.stage import StageSettings
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples, save_classifier, save_encoder, write_csv

FINE_TUNING = StageSettings(
    epochs=2, learning_rate=5e-3, batch_size=8, checkpoint_steps=3, bf16=False
)
STUDENTS = StudentSettings(
    StudentShape("first", 8, 2), replace(FINE_TUNING, epochs=2, learning_rate=1e-2)
)


def write_files(folder: Path) -> dict[str, Path]:
    return {
        "train": write_csv(folder / "train.csv", examples(60, seed=1)),
        "dev": write_csv(folder / "dev.csv", examples(30, seed=2)),
        "model": save_encoder(folder / "encoder"),
        "output": folder / "output",
    }


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_files(tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model folder of a run on `files` that nothing stopped."""
    files = write_files(tmp_path_factory.mktemp("uninterrupted"))
    run(files)
    return files["output"]


def folder_of_run(files: dict[str, Path]) -> Path:
    return files["output"].with_name(f"{files['output'].name}.training")


def never(*_: object, **__: object) -> None:
    raise AssertionError("this must not be reached")


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


def test_the_folder_records_how_it_was_made_and_what_it_measured(uninterrupted: Path) -> None:
    config = FastBertClassifier.from_pretrained(uninterrupted).config
    assert config.training["fine_tuning"]["epochs"] == 2
    assert config.training["train"] == "train.csv"  # folders are published: no places of a machine
    assert str(uninterrupted.parent) not in (uninterrupted / "early_exit.json").read_text()
    assert config.students == STUDENTS.shape
    assert [row["speed"] for row in config.evaluation] == [0.0, 0.1, 0.3, 0.5, 0.8, None]
    assert config.default is not None
    assert config.evaluation[-1]["goal"] == config.default.goal == {"max_drop": 0.005}
    assert config.evaluation[-1]["thresholds"] == list(config.default.thresholds)
    assert {row["rows"] for row in config.evaluation} == {30}
    assert (uninterrupted / "README.md").exists()


def test_the_folder_keeps_the_history_of_both_stages(uninterrupted: Path) -> None:
    history = history_of(uninterrupted)
    assert history.keys() == {"teacher", "students"}
    assert [epoch["epoch"] for epoch in history["teacher"]] == [1, 2]
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


def test_the_table_is_measured_on_test_where_there_is_one(files: dict[str, Path]) -> None:
    test = write_csv(files["train"].with_name("test.csv"), examples(17, seed=9))
    assert {row["rows"] for row in run(files, test=test).config.evaluation} == {17}


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


def test_a_run_that_is_killed_wherever_it_can_be_ends_bit_equal(
    files: dict[str, Path],
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Each stage has 16 steps. A checkpoint is due every 3 steps and after each epoch of 8; a kill
    # in on_save comes when the Trainer's files are there and the seal is not. Calls count from
    # where the run went on.
    kills = [
        ("on_step_end", 1),  # nothing is there yet
        ("on_step_end", 5),  # after the checkpoint of step 3
        ("on_step_end", 4),  # at the end of the epoch, before its checkpoint
        ("on_save", 1),  # of step 6 again, half written
        ("on_step_end", 12),  # in the second stage, before its first checkpoint
        ("on_step_end", 7),  # after the checkpoint of step 6
        ("on_save", 1),  # half written, as before
    ]
    note = folder_of_run(files) / "note.txt"
    for resume, (call, number) in enumerate(kills):
        with monkeypatch.context() as patch:
            kill_at(patch, call, number)
            with pytest.raises(Kill):
                run(files, resume=bool(resume))
        assert not files["output"].exists()
    note.write_text("not the run's")
    run(files, resume=True)
    assert weights(files["output"]) == weights(uninterrupted)
    # After a resume the Trainer's next training loss is the mean over the steps since then, so the
    # history cannot have it.
    assert history_of(files["output"]) == history_of(uninterrupted)
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]
    assert "is kept, it holds note.txt" in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
from fastbert.training.checkpoints import CheckpointWriter
from tests.recipes.test_recipes import run

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
    files: dict[str, Path], uninterrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, root = files["output"].parent, Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], cwd=root, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    files["output"] = folder / "resumed"
    assert not files["output"].exists()
    with caplog.at_level(logging.WARNING):
        run(files, resume=True)
    assert "skipped, it was never finished" in caplog.text
    assert weights(files["output"]) == weights(uninterrupted)


def test_a_stopped_run_is_neither_overwritten_nor_resumed_with_anything_else(
    files: dict[str, Path], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 4)
        with pytest.raises(Kill):
            run(files)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "run_stage", never)
        with pytest.raises(TrainingError, match="go on with --resume"):
            run(files)
        with pytest.raises(TrainingError, match="had max_length 16, not 17"):
            run(files, max_length=17, resume=True)
        for name in ("train", "dev"):
            content = files[name].read_text()
            files[name].write_text(content.replace("lovely", "plain"))  # as many rows as before
            changed = rf"output\.training: \S*{name}\.csv has changed since"
            with pytest.raises(TrainingError, match=changed):
                run(files, resume=True)
            files[name].write_text(content)
        with pytest.raises(TrainingError, match=r"had test None, not \S*dev\.csv"):
            run(files, test=files["dev"], resume=True)
        config = files["model"] / "config.json"
        content = config.read_text()
        config.write_text(content.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
        with pytest.raises(TrainingError, match=r"config\.json has changed"):
            run(files, resume=True)
        config.write_text(content)
    moved = files["train"].with_name("moved.csv")
    files["train"].rename(moved)
    assert run(files, train=moved, resume=True).config.training["train"] == "moved.csv"
    assert weights(files["output"]) == weights(uninterrupted)


def test_a_hidden_cache_outlives_a_kill_and_other_texts_do_not_meet_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    cached = replace(STUDENTS, cache_hidden_states=True)

    def start(**options: Any) -> None:
        distill(
            checkpoint, texts, output=tmp_path / "output", max_length=16, students=cached, **options
        )

    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 1)  # the cache is there, a checkpoint is not
        with pytest.raises(Kill):
            start()
    monkeypatch.setattr(HiddenCache, "build", never)
    content = texts.read_text()
    texts.write_text(content.replace("lovely", "plain"))
    with pytest.raises(TrainingError, match=r"output\.training: \S*texts\.csv has changed since"):
        start(resume=True)
    texts.write_text(content)
    with pytest.raises(TrainingError, match="go on with --resume"):
        start()
    start(resume=True)


def test_what_is_no_run_is_never_removed(files: dict[str, Path]) -> None:
    thesis = folder_of_run(files) / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    for resume in (False, True):
        with pytest.raises(FolderError, match=r"output\.training: holds thesis\.txt and no run"):
            run(files, resume=resume)
    assert [path.read_text() for path in thesis.parent.iterdir()] == ["years of work"]


@pytest.mark.parametrize("place", ["output.training", "output"])
def test_texts_that_the_run_would_remove_are_refused(place: str, files: dict[str, Path]) -> None:
    folder = files["output"].with_name(place)
    folder.mkdir()
    (folder / "early_exit.json").touch()  # as in an earlier model folder
    inside = files["train"].rename(folder / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv: lies in .*, which this run writes anew"):
        run(files, train=inside)
    assert inside.exists()


def test_a_second_run_to_the_same_output_is_refused_before_anything_is_read(
    files: dict[str, Path],
) -> None:
    with claim(folder_of_run(files)):
        before = sorted(folder_of_run(files).iterdir())
        with pytest.raises(TrainingError, match=r"output\.training: another run is training here"):
            run(files, train=Path("missing.csv"))
        assert sorted(folder_of_run(files).iterdir()) == before


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    files: dict[str, Path],
) -> None:
    with pytest.raises(FolderError, match=r"output\.training: cannot be written"):
        run(files, output=files["train"] / "output", train=Path("missing.csv"))


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


def grow_the_tokenizer(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens([f"<new{number}>" for number in range(30)])
    tokenizer.save_pretrained(checkpoint)


def name_classes(*names: str) -> Callable[[Path], None]:
    def edit(checkpoint: Path) -> None:
        config = json.loads((checkpoint / "config.json").read_text())
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: number for number, name in enumerate(names)}
        (checkpoint / "config.json").write_text(json.dumps(config))

    return edit


def group_layers(checkpoint: Path) -> None:
    model = tiny_classifier("albert", inner_group_num=2)
    model.save_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (grow_the_tokenizer, r"the vocabulary is larger than the embedding matrix: it has .* 77"),
        (name_classes("a", "a", "b"), r"must name the classes 0, 1, … by different names"),
        (group_layers, r"inner_group_num 2, and only 1 can be saved"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_first_step(
    spoil: Callable[[Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    spoil(checkpoint)
    texts = write_csv(tmp_path / "texts.csv", examples(20))
    monkeypatch.setattr(run_module, "run_stage", never)
    monkeypatch.setattr(run_module, "run_stage", never)
    output = tmp_path / "output"
    with pytest.raises(BackboneError, match=f"^{checkpoint}.*{message}"):
        distill(checkpoint, texts, output=output, max_length=16)
    if "names" not in message:  # the classes of training are those of its texts
        with pytest.raises(BackboneError, match=f"^{checkpoint}.*{message}"):
            train(texts, dev=texts, model=checkpoint, output=output, max_length=16)
    assert not output.with_name("output.training").exists()


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
    monkeypatch.setattr(run_module, "run_stage", never)
    with pytest.raises(DataError, match=message):
        run(files, unlabeled=more)
    assert not folder_of_run(files).exists()


@pytest.mark.parametrize(("began", "native"), [(True, False), (False, True)])
def test_a_stopped_run_goes_on_in_the_precision_it_began_in(
    began: bool,
    native: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run_module, "has_native_bf16", lambda: native)
    monkeypatch.setattr(stage, "has_native_bf16", lambda: native)
    stopped = {"settings": {"students": {"stage": {"bf16": began}}}}
    resumed = run_module.Run(tmp_path / "output", {}, True, stopped)
    fresh = run_module.Run(tmp_path / "output", {}, True, None)
    unsaid = StageSettings(epochs=1, learning_rate=1e-3)
    assert resumed.settle_bf16(unsaid, "students", "stage").bf16 == began
    assert fresh.settle_bf16(unsaid, "students", "stage").bf16 == native
    assert ("this machine emulates it" in caplog.text) == (began and not native)
    asked = replace(unsaid, bf16=not began)
    assert resumed.settle_bf16(asked, "students", "stage") == asked
