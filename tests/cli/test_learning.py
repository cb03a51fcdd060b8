"""Training from the command line: every option, what is shown, and files of no use."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.cli.run import run
from fastbert.data.example import Columns
from fastbert.recipes import train as train_recipe
from fastbert.recipes.run import StudentSettings
from fastbert.training.stage import StageSettings
from tests.cli.commands import GOOD, Capture, Trained, interrupt, only_line
from tests.tiny_data import (
    LABELS,
    examples,
    save_classifier,
    write_csv,
)


def test_training_shows_epochs_the_table_and_the_next_command_and_nothing_else(
    trained: Trained,
) -> None:
    assert [line.partition(": ")[0] for line in trained.stderr.splitlines()] == [
        "plan",
        "teacher",
        "students",
    ]
    *table, last = trained.stdout.splitlines()
    assert sum("/4 " in line and line.count("x") == 2 for line in table) >= 5  # one a speed
    assert last == f"Next: fastbert predict {trained.folder} TEXTS.csv"
    assert "\x1b" not in trained.stdout + trained.stderr
    assert FastBertClassifier.from_pretrained(trained.folder).labels == LABELS


STAGE_OPTIONS = "--batch-size 7 --gradient-accumulation 3 --seed 5 --bf16 --report-to tensorboard"


STAGE = StageSettings(
    epochs=6,
    learning_rate=0.3,
    batch_size=7,
    gradient_accumulation=3,
    seed=5,
    bf16=True,
    report_to="tensorboard",
)


STUDENT_OPTIONS = "--heads paper/mean --kl teacher-student --cache-hidden-states"


STUDENTS = StudentSettings("paper/mean", STAGE, "teacher-student", True)
EXITING: dict[str, Any] = {"epochs": 4, "learning_rate": 0.7}


def test_every_option_of_train_reaches_the_library(called: dict[str, Any]) -> None:
    command = "train t.csv --dev d.csv --model m --output o --test e.csv --unlabeled u.jsonl"
    command += (
        " --text-column a --pair-column b --label-column c --max-length 9 --teacher-head paper"
    )
    command += " --epochs 2 --learning-rate 0.1 --label-smoothing 0.2 --resume"
    command += " --distill-epochs 6 --distill-learning-rate 0.3 --max-drop 2%"
    command += " --scheme exit-aware --tolerance 3% --exit-epochs 4 --exit-learning-rate 0.7"
    assert run(f"{command} {STAGE_OPTIONS} {STUDENT_OPTIONS}".split()) == 0

    assert called == {
        "arguments": (Path("t.csv"),),
        "dev": Path("d.csv"),
        "model": "m",
        "output": Path("o"),
        "test": Path("e.csv"),
        "unlabeled": Path("u.jsonl"),
        "columns": Columns("a", "b", "c"),
        "max_length": 9,
        "teacher_head": "paper",
        "fine_tuning": replace(STAGE, epochs=2, learning_rate=0.1),
        "label_smoothing": 0.2,
        "students": replace(STUDENTS, exits=replace(STAGE, students_learning_rate=1e-3, **EXITING)),
        "scheme": "exit-aware",
        "tolerance": 0.03,
        "max_drop": 0.02,
        "resume": True,
    }


def test_every_option_of_distill_reaches_the_library(called: dict[str, Any]) -> None:
    command = "distill c t.csv --output o --text-column a --pair-column b --max-length 9 --resume"
    command += " --epochs 6 --learning-rate 0.3 --max-drop 0.01"
    assert run(f"{command} {STAGE_OPTIONS} {STUDENT_OPTIONS}".split()) == 0

    assert called == {
        "arguments": ("c", Path("t.csv")),
        "output": Path("o"),
        "columns": Columns("a", "b"),
        "max_length": 9,
        "students": STUDENTS,
        "max_drop": 0.01,
        "resume": True,
    }


def test_heads_that_are_no_spelling_are_refused_before_any_file_is_read(
    capsys: Capture, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    command = f"distill c absent.csv --output {output} --heads paper:3,queris"
    assert run(command.split()) == 2
    assert "heads must be of paper, queries, mean, got 'queris'" in only_line(
        capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_every_option_of_the_demo_reaches_the_library(called: dict[str, Any]) -> None:
    command = "demo --output o --model m --data d.csv --text-column a --pair-column b"
    assert run(f"{command} --label-column c --seed 5".split()) == 0

    assert called == {
        "arguments": (Path("o"),),
        "model": "m",
        "data": Path("d.csv"),
        "columns": Columns("a", "b", "c"),
        "seed": 5,
    }


def test_a_checkpoint_is_distilled_without_labels(tmp_path: Path, capsys: Capture) -> None:
    checkpoint = save_classifier(tmp_path / "classifier")
    unlabelled = write_csv(tmp_path / "texts.csv", examples(200), labelled=False)
    command = ["distill", str(checkpoint), str(unlabelled), "--output", str(tmp_path / "a model")]
    capsys.readouterr()  # what transformers said while the checkpoint was made
    assert run([*command, "--max-length", "16", "--epochs", "1"]) == 0

    shown = capsys.readouterr()
    assert shown.out.endswith(f"Next: fastbert predict '{tmp_path / 'a model'}' TEXTS.csv\n")
    assert only_line(shown.err).startswith("students: epoch 1/1 ")


def test_interrupted_training_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(train_recipe, "train", interrupt)
    assert run(["train", "t.csv", "--dev", "d.csv", "--model", "m", "--output", "o"]) == 130
    assert only_line(capsys.readouterr().err) == (
        "interrupted; the same command with --resume goes on from the last checkpoint"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "empty.csv: holds no rows; is it the right file?"),
        ("header.csv", b"text,label\n", "header.csv: holds no rows"),
        ("column.csv", b"review,label\nlovely,positive\n", "column.csv:1: no column 'text'"),
        ("one.csv", b"text,label\nlovely,positive\n", "one.csv: a classifier needs at least 2 la"),
        ("nul.csv", GOOD + b"a\0b,positive\n", "nul.csv:4: holds a NUL byte"),
        ("latin.csv", GOOD + b"caf\xe9,positive\n", "latin.csv:4: is not UTF-8 (byte 0xe9)"),
        ("short.csv", GOOD + b"lovely\n", "short.csv:4: expected 2 fields"),
        ("broken.jsonl", b'{"text": "lovely\n', "broken.jsonl:1: broken JSON at character"),
        (
            "cut.csv.gz",
            gzip.compress(GOOD * 99, mtime=0)[:-20],
            "damaged, and unreadable from here on",
        ),
        ("bad.parquet", b"PAR1 and so on PAR1", "bad.parquet:1: damaged"),
        ("texts.docx", b"", "texts.docx: not a kind of file this reads"),
        ("nowhere/t.csv", None, "t.csv: does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_code_2(
    name: str, content: bytes | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "dev.csv").write_bytes(GOOD)
    command = ["train", str(path), "--dev", str(tmp_path / "dev.csv")]
    assert run([*command, "--model", "m", "--output", str(tmp_path / "o")]) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith(f"error: {tmp_path}")
    assert message in line


def test_a_label_of_dev_that_training_does_not_have_is_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "train.csv").write_bytes(GOOD)
    (tmp_path / "dev.csv").write_bytes(GOOD + b"plain,neutral\n")
    command = ["train", str(tmp_path / "train.csv"), "--dev", str(tmp_path / "dev.csv")]
    assert run([*command, "--model", "m", "--output", str(tmp_path / "o")]) == 2
    assert "dev.csv:4: label 'neutral' is not among" in only_line(capsys.readouterr().err)


def test_what_is_allowed_but_seldom_meant_is_counted_in_warnings(
    tmp_path: Path, capsys: Capture
) -> None:
    # A byte order mark and the line ends of Windows are nothing to speak of.
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"))
    (tmp_path / "dev.csv").write_bytes(GOOD + b"  ,positive\n")
    command = ["train", str(tmp_path / "train.csv"), "--dev", str(tmp_path / "dev.csv")]
    assert run([*command, "--model", str(tmp_path / "none"), "--output", str(tmp_path / "o")]) == 2

    empty, twins, error = capsys.readouterr().err.splitlines()
    assert empty == f"warning: {tmp_path / 'dev.csv'}: 1 of 3 texts are empty"
    assert twins.startswith(f"warning: {tmp_path / 'dev.csv'}: 2 of 3 texts also stand in ")
    assert error.startswith(f"error: {tmp_path / 'none'}: not a Hugging Face checkpoint")


def test_a_mistyped_model_name_leaves_no_run_to_resume(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "train.csv").write_bytes(GOOD)
    command = ["train", str(tmp_path / "train.csv"), "--dev", str(tmp_path / "train.csv")]
    command += ["--output", str(tmp_path / "o"), "--model"]
    assert run([*command, str(tmp_path / "encodr")]) == 2
    assert run([*command, str(tmp_path / "encoda")]) == 2
    assert "encoda: not a Hugging Face checkpoint" in capsys.readouterr().err.splitlines()[-1]


def test_a_tolerance_below_0_is_one_line_before_anything_is_read(capsys: Capture) -> None:
    command = "train none.csv --dev d.csv --model m --output o --scheme joint --tolerance -1%"
    assert run(command.split()) == 2
    assert only_line(capsys.readouterr().err).endswith(
        "tolerance must be at least 0, the share of the metric that the last exit may lose, "
        "got -0.01"
    )


def test_texts_to_distil_from_cannot_be_standard_input(capsys: Capture) -> None:
    assert run(["distill", "c", "-", "--output", "o"]) == 2
    assert "so TEXTS must be a file" in only_line(capsys.readouterr().err)
