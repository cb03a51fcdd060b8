"""Comparing from the command line: from files to the table, what reaches the library, bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastbert.cli.run import run
from fastbert.recipes import compare as recipe
from tests.cli.commands import Capture, interrupt, only_line
from tests.tiny_data import examples, save_encoder, write_csv


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return a comparison of files that are there."""
    files = {
        "dev": write_csv(tmp_path / "dev.csv", examples(24, seed=2)),
        "test": write_csv(tmp_path / "test.csv", examples(21, seed=3)),
        "model": save_encoder(tmp_path / "encoder"),
        "output": tmp_path / "compared",
    }
    train = write_csv(tmp_path / "train.csv", examples(32, seed=1))
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    options += ["--max-length", "16", "--epochs", "1", "--distill-epochs", "1", "--no-bf16"]
    return ["compare", str(train), *options]


def test_a_comparison_says_its_plan_shows_the_table_and_writes_it(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert run([*command, "--schemes", "paper,plain", "--measures", "entropy, margin"]) == 0
    shown = capsys.readouterr()
    plan = shown.err.splitlines()[0]
    assert plan.startswith(
        "plan: seed 42: epochs of teacher (teacher 1), paper (students 1), plain"
    )
    lines = shown.out.splitlines()
    starts = [line.split()[:2] for line in lines if "%" in line and "x" in line]
    assert starts[:3] == [["paper", "entropy"], ["paper", "margin"], ["plain", "-"]]
    assert lines[-1] == f"Written to {tmp_path / 'compared'}: comparison.md, .json and .png"
    written = {path.name for path in (tmp_path / "compared").glob("comparison.*")}
    assert written == {"comparison.md", "comparison.json", "comparison.png"}
    found = json.loads((tmp_path / "compared" / "comparison.json").read_text("utf-8"))
    assert found["settings"]["seeds"] == [42]

    assert run([*command, "--schemes", "paper,plain"]) == 1
    line = only_line(capsys.readouterr().err)
    assert line.endswith("holds a comparison; go on with --resume, or name another output")


def test_every_option_reaches_the_library(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: dict[str, Any] = {}

    def note(*arguments: Any, **options: Any) -> None:
        noted.update({"arguments": arguments, **options})
        raise ValueError("noted")

    monkeypatch.setattr(recipe, "compare", note)
    command += [
        "--schemes",
        "joint,cut-3",
        "--heads",
        "queries",
        "--heads",
        "paper:2,mean",
        "--seeds",
        "4,5",
    ]
    command += [
        "--measures",
        "margin",
        "--reference",
        "cut-3",
        "--unlabeled",
        "u.csv",
        "--label-column",
        "c",
    ]
    command += ["--learning-rate", "0.1", "--distill-learning-rate", "0.2", "--tolerance", "3%"]
    command += ["--batch-size", "7", "--gradient-accumulation", "2", "--keep-models", "--resume"]
    command += ["--time", "onnx:fp32"]
    assert run(command) == 2
    names = [one.name for one in noted["contenders"]]
    assert names == ["joint+queries", "joint+paper.2_mean", "cut-3"]
    assert (noted["measures"], noted["seeds"], noted["reference"]) == (["margin"], [4, 5], "cut-3")
    assert (noted["unlabeled"], noted["columns"].label) == (Path("u.csv"), "c")
    assert noted["keep_models"]
    assert noted["time"] == "onnx:fp32"
    assert noted["resume"]
    settings = noted["settings"]
    first, second = settings.fine_tuning, settings.distillation
    assert (first.epochs, first.learning_rate, second.learning_rate) == (1, 0.1, 0.2)
    assert (first.batch_size, second.gradient_accumulation, first.bf16) == (7, 2, False)
    assert settings.tolerance == 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schemes", "paper,jiont"], "scheme must be one of paper, joint"),
        (["--measures", "doubt"], "measure must be one of entropy"),
        (["--seeds", "42,x"], "'42,x' is not whole numbers with commas between"),
        (["--heads", "round"], "heads must be of paper, queries, mean"),
        (["--schemes", "cut-2", "--time", "torch"], "time sets all against the full model: name"),
        (["--time", "onnx"], "time must name a precision of onnx too, such as onnx:fp32"),
        (["--time", "tvm"], "runtime must be one of torch, openvino, onnx, got 'tvm'"),
        (["--schemes", ""], "contenders must be at least one, got none"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    options: list[str], message: str, command: list[str], capsys: Capture
) -> None:
    assert run([*command, *options]) == 2
    assert message in only_line(capsys.readouterr().err)


def test_a_test_file_without_labels_is_one_line(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    write_csv(tmp_path / "test.csv", examples(21), labelled=False)
    assert run(command) == 2
    assert "label" in only_line(capsys.readouterr().err)


def test_an_interrupted_comparison_says_how_it_goes_on(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(recipe, "compare", interrupt)
    assert run(command) == 130
    assert "the same command with --resume goes on" in only_line(capsys.readouterr().err)
