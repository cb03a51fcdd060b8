"""`distill --into`: its options, and those that go only with it or only without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbert.cli import growing
from fastbert.cli.run import run
from fastbert.data.example import Columns
from fastbert.recipes.run import StudentSettings
from fastbert.training.scheme import DISTILLATION, EXITS, IMITATION, WARM_UP, SchemeSettings
from tests.cli.commands import Capture
from tests.tiny_data import examples, save_classifier, save_encoder, write_csv

COMMAND = "distill c t.csv --output o"


def test_every_option_reaches_the_library(called: dict[str, Any]) -> None:
    command = f"{COMMAND} --into small --teacher-max-length 256 --max-length 9 --heads mean"
    command += " --epochs 7 --learning-rate 0.1 --exit-epochs 4 --exit-learning-rate 0.2"
    command += " --batch-size 6 --gradient-accumulation 2 --seed 5 --no-bf16 --max-drop 2%"
    command += " --no-cache-hidden-states"
    assert run(command.split()) == 0
    steps: dict[str, Any] = {"batch_size": 6, "gradient_accumulation": 2, "seed": 5, "bf16": False}
    assert called == {
        "arguments": ("c", Path("t.csv")),
        "output": Path("o"),
        "into": "small",
        "columns": Columns(),
        "max_length": 9,
        "teacher_max_length": 256,
        "students": StudentSettings("mean"),
        "numbers": SchemeSettings(
            imitation=replace(IMITATION, epochs=7, learning_rate=0.1, **steps),
            warm_up=replace(WARM_UP, **steps),
            exits=replace(EXITS, epochs=4, learning_rate=0.2, **steps),
            cache_hidden_states=False,
        ),
        "max_drop": 0.02,
        "resume": False,
    }


def test_without_options_the_numbers_are_those_of_the_schemes_and_help_tells_them(
    called: dict[str, Any], capsys: Capture
) -> None:
    assert run(f"{COMMAND} --into small".split()) == 0
    assert called["numbers"] == SchemeSettings()
    assert run(COMMAND.split()) == 0
    assert called["students"].stage == DISTILLATION
    assert "into" not in {name for name in called if called[name] is None}
    shown = {
        growing.FirstEpochs: f"{DISTILLATION.epochs}, with --into {IMITATION.epochs}",
        growing.FirstLearningRate: f"{DISTILLATION.learning_rate:f}".rstrip("0")
        + ", with --into "
        + f"{IMITATION.learning_rate:f}".rstrip("0"),
        growing.ExitEpochs: f"{EXITS.epochs}",
        growing.ExitLearningRate: f"{EXITS.learning_rate:f}".rstrip("0"),
    }
    for option, default in shown.items():
        assert option.__metadata__[0].show_default == default  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--teacher-max-length 9", "--teacher-max-length goes with --into ENCODER"),
        ("--exit-epochs 3", "--exit-epochs goes with --into ENCODER"),
        ("--exit-learning-rate 1", "--exit-learning-rate goes with --into ENCODER"),
        ("--into m --kl teacher-student", "--kl goes without --into"),
    ],
)
def test_options_of_the_other_way_are_refused(
    options: str, message: str, called: dict[str, Any], capsys: Capture
) -> None:
    assert run(f"{COMMAND} {options}".split()) == 2
    assert message in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert not called


def test_one_command_makes_a_small_model_of_a_large_one_and_says_what_it_keeps(
    tmp_path: Path, capsys: Capture
) -> None:
    checkpoint = save_classifier(tmp_path / "big-model")
    encoder = save_encoder(tmp_path / "small", "distilbert")
    texts = write_csv(tmp_path / "texts.csv", examples(200), labelled=False)
    capsys.readouterr()
    command = ["distill", str(checkpoint), str(texts), "--into", str(encoder)]
    command += ["--output", str(tmp_path / "output"), "--max-length", "16", "--heads", "mean"]
    assert run([*command, "--epochs", "1", "--exit-epochs", "1"]) == 0
    shown = capsys.readouterr()
    said = " ".join(shown.out.split())
    assert "agreement, macro F1: agreement with big-model" in said
    assert "x fewer FLOPs than it takes, on 20 texts that were held out" in said
    assert [line.partition(": ")[0] for line in shown.err.splitlines() if " epoch" in line] == [
        "plan",
        "teacher",
        *["students"] * WARM_UP.epochs,
        "exits",
    ]
    assert run(["inspect", str(tmp_path / "output")]) == 0
    assert "20 of texts.csv, answered by big-model" in " ".join(capsys.readouterr().out.split())
