"""The folder of a run: what a kill costs, and what is refused before the first step."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fastbert.errors import BackboneError, FolderError, TrainingError
from fastbert.recipes import run as run_module
from fastbert.recipes import stages
from fastbert.recipes.distill import distill
from fastbert.recipes.run_folder import claim
from fastbert.recipes.train import train
from fastbert.training import stage
from fastbert.training.scheme import EXITS, TARGET, SchemeSettings, joint
from fastbert.training.stage import StageSettings
from tests.recipes.runs import (
    Kill,
    folder_of_run,
    history_of,
    kill_at,
    never,
    run,
    weights,
)
from tests.tiny import tiny_classifier
from tests.tiny_data import examples, save_classifier, write_csv


def test_longer_texts_than_there_are_positions_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(BackboneError, match="reads at most 34 tokens, max_length is 35"):
        run(files, max_length=35)


def test_an_output_that_holds_something_else_is_refused_before_training(
    files: dict[str, Path],
) -> None:
    files["output"].mkdir()
    (files["output"] / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError, match="holds other files"):
        run(files)
    assert not files["output"].with_name("output.training").exists()


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
from tests.recipes.runs import run

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
        patch.setattr(stages, "run_stage", never)
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


def test_what_is_no_run_is_never_removed(files: dict[str, Path]) -> None:
    thesis = folder_of_run(files) / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    for resume in (False, True):
        with pytest.raises(FolderError, match=r"output\.training: holds thesis\.txt and no run"):
            run(files, resume=resume)
    assert [path.read_text() for path in thesis.parent.iterdir()] == ["years of work"]


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
    monkeypatch.setattr(stages, "run_stage", never)
    output = tmp_path / "output"
    with pytest.raises(BackboneError, match=f"^{checkpoint}.*{message}"):
        distill(checkpoint, texts, output=output, max_length=16)
    if "names" not in message:  # the classes of training are those of its texts
        with pytest.raises(BackboneError, match=f"^{checkpoint}.*{message}"):
            train(texts, dev=texts, model=checkpoint, output=output, max_length=16)
    assert not output.with_name("output.training").exists()


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


def test_every_stage_of_a_scheme_goes_on_in_the_precision_the_first_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_module, "has_native_bf16", lambda: False)
    monkeypatch.setattr(stage, "has_native_bf16", lambda: False)
    stopped = {"settings": {"stages": {"teacher": {"settings": {"bf16": True}}}}}
    resumed = run_module.Run(tmp_path / "output", {}, True, stopped)
    settled = resumed.settle(joint(SchemeSettings(exits=replace(EXITS, bf16=False))))
    assert [each.settings.bf16 for each in settled.stages] == [True, True, False]
    assert settled.fallback is not None
    assert [each.settings.bf16 for each in settled.fallback.stages] == [True, True]
    assert len(caplog.records) == 1


def test_the_students_stage_is_the_warm_up_too_and_exits_take_steps_from_the_first_stage() -> None:
    first = StageSettings(epochs=2, learning_rate=1e-3, batch_size=7, seed=5, report_to="some")
    alone = StageSettings(epochs=6, learning_rate=0.3, batch_size=9)
    numbers = run_module.StudentSettings(stage=alone).scheme_settings(first)
    assert (numbers.distillation, numbers.warm_up) == (alone, alone)
    assert numbers.exits == replace(
        first, epochs=EXITS.epochs, learning_rate=5e-5, students_learning_rate=1e-3
    )
    assert (numbers.polish, numbers.target) == (None, TARGET)
    assert run_module.StudentSettings(exits=alone).scheme_settings(first).exits == alone
