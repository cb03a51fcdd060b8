"""What the command line promises: exit codes, single lines, files that are whole, and silence."""

import errno
import gzip
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastbert import demo, evaluation
from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.cli import answering, learning, tables
from fastbert.cli.run import run
from fastbert.data.example import Columns, Example
from fastbert.errors import DataError, FolderError, TrainingError
from fastbert.evaluation import Evaluation
from fastbert.exits.measures import (
    DEFAULT_MEASURE,
    MEASURES,
    LearnedExit,
    Margin,
)
from fastbert.folder import config as folder_config
from fastbert.folder import read, write
from fastbert.processor import processor_name
from fastbert.recipes import distill as distill_recipe
from fastbert.recipes import train as train_recipe
from fastbert.recipes.run import StudentSettings
from fastbert.shape import StudentShape
from fastbert.tasks.single_label import SingleLabel
from fastbert.training.scheme import DISTILLATION, FINE_TUNING
from fastbert.training.stage import StageSettings
from tests.tiny_data import (
    LABELS,
    examples,
    save_classifier,
    save_encoder,
    save_uncalibrated,
    write_csv,
)

COMMANDS = ["train", "distill", "evaluate", "predict", "calibrate", "inspect", "demo"]
DOCS = Path(__file__).parents[2] / "docs" / "command-line.md"
MAIN = [sys.executable, "-c", "from fastbert.cli import main; main()"]

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Trained:
    """A model folder that the command line has written, and what was said meanwhile."""

    folder: str
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    here = tmp_path_factory.mktemp("cli")
    command = ["train", str(write_csv(here / "train.csv", examples(40, seed=1)))]
    command += ["--dev", str(write_csv(here / "dev.csv", examples(20, seed=2)))]
    command += ["--model", str(save_encoder(here / "encoder")), "--output", str(here / "model")]
    command += ["--max-length", "16", "--epochs", "1", "--distill-epochs", "1", "--no-bf16"]
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = run(command)
    assert code == 0, stderr.getvalue()
    return Trained(str(here / "model"), stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of 13 labelled texts."""
    return write_csv(tmp_path / "texts.csv", examples(13, seed=3))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def only_line(text: str) -> str:
    [line] = text.splitlines()
    return line


# Help and usage.


def test_no_help_needs_torch() -> None:
    source = f"""
import sys
from fastbert.cli.run import run
for command in {COMMANDS}:
    assert run([command, "--help"]) == 0
print({{"torch", "transformers", "sklearn", "numpy"}} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)

    assert shown.stderr == ""
    assert shown.stdout.splitlines()[-1] == "set()"
    assert "\x1b" not in shown.stdout  # no colours where nobody sees them
    assert all(f"Usage: fastbert {command} " in shown.stdout for command in COMMANDS)


def test_the_page_about_the_command_line_is_up_to_date() -> None:
    command = [sys.executable, "-m", "typer", "fastbert.cli", "utils", "docs"]
    command += ["--name", "fastbert", "--title", "Command line"]
    page = subprocess.run(command, capture_output=True, text=True, check=True)

    assert DOCS.read_text("utf-8").strip() == page.stdout.strip(), "see CONTRIBUTING.md, Commands"


def test_the_defaults_in_help_are_those_of_the_library() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    # Read off the settings that the library uses when it is given none.
    library, students = defaults(train_recipe.train), StudentSettings()
    expected = {
        "text_column": Columns().text,
        "pair_column": Columns().pair,
        "max_length": library["max_length"],
        "pooling": students.shape.pooling,
        "kl": students.direction,
        "cache_hidden_states": students.cache_hidden_states,
        "batch_size": FINE_TUNING.batch_size,
        "gradient_accumulation": FINE_TUNING.gradient_accumulation,
        "seed": FINE_TUNING.seed,
        "bf16": None,  # where the machine has it
        "report_to": FINE_TUNING.report_to,
        "max_drop": library["max_drop"],
        "resume": library["resume"],
    }
    distill = {"epochs": DISTILLATION.epochs, "learning_rate": DISTILLATION.learning_rate}
    train = {
        "epochs": FINE_TUNING.epochs,
        "learning_rate": FINE_TUNING.learning_rate,
        "distill_epochs": DISTILLATION.epochs,
        "distill_learning_rate": DISTILLATION.learning_rate,
        "teacher_head": library["teacher_head"],
        "label_smoothing": library["label_smoothing"],
        "label_column": Columns().label,
        "test": library["test"],
        "unlabeled": library["unlabeled"],
    }
    required = dict.fromkeys(("checkpoint", "texts", "dev", "model", "output"), inspect._empty)
    for command, own in ((learning.train, train), (learning.distill, distill)):
        shown = defaults(command)
        assert shown == {name: (expected | own | required)[name] for name in shown}
    assert defaults(answering.predict)["id_column"] == Columns().id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "t.csv"], "Missing option '--dev'; see `fastbert train --help`"),
        (["sing"], "No such command 'sing'; see `fastbert --help`"),
        (["predict", "m", "t.csv", "--tempo", "1"], "No such option: --tempo"),
        (["predict", "m", "t.csv", "--speed", "1.5"], "Invalid value for '--speed': "),
        (["train", "t.csv", "--kl", "symmetric"], "'symmetric' is not one of 'student-teacher'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert run(arguments) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith("error: ")
    assert message in line


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    assert run([]) == 0
    assert "Usage: fastbert" in capsys.readouterr().out


# Training.


def test_training_shows_epochs_the_table_and_the_next_command_and_nothing_else(
    trained: Trained,
) -> None:
    assert [line.partition(": ")[0] for line in trained.stderr.splitlines()] == [
        "teacher",
        "students",
    ]
    *table, last = trained.stdout.splitlines()
    assert sum("/4 " in line and line.count("x") == 2 for line in table) >= 5  # one a speed
    assert last == f"Next: fastbert predict {trained.folder} TEXTS.csv"
    assert "\x1b" not in trained.stdout + trained.stderr
    assert FastBertClassifier.from_pretrained(trained.folder).labels == LABELS


@pytest.fixture
def called(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the work behind the commands by a note of what it was called with."""
    noted: dict[str, Any] = {}

    def note(*arguments: Any, **options: Any) -> FastBertClassifier:
        noted.update({"arguments": arguments, **options})
        return FastBertClassifier.from_pretrained(trained.folder)

    replaced = ((train_recipe, "train"), (distill_recipe, "distill"), (demo, "run_demo"))
    for module, name in replaced:
        monkeypatch.setattr(module, name, note)
    return noted


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
STUDENT_OPTIONS = "--pooling mean --kl teacher-student --cache-hidden-states"
STUDENTS = StudentSettings(StudentShape("mean"), STAGE, "teacher-student", True)


def test_every_option_of_train_reaches_the_library(called: dict[str, Any]) -> None:
    command = "train t.csv --dev d.csv --model m --output o --test e.csv --unlabeled u.jsonl"
    command += (
        " --text-column a --pair-column b --label-column c --max-length 9 --teacher-head paper"
    )
    command += " --epochs 2 --learning-rate 0.1 --label-smoothing 0.2 --resume"
    command += " --distill-epochs 6 --distill-learning-rate 0.3 --max-drop 2%"
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
        "students": STUDENTS,
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
    monkeypatch.setattr(train_recipe, "train", _interrupt)
    assert run(["train", "t.csv", "--dev", "d.csv", "--model", "m", "--output", "o"]) == 130
    assert only_line(capsys.readouterr().err) == (
        "interrupted; the same command with --resume goes on from the last checkpoint"
    )


def _interrupt(*_arguments: Any, **_options: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells switch it off
    signal.raise_signal(signal.SIGINT)


# Bad input. What is wrong with single rows is in test_data.py.

GOOD = b"text,label\nlovely word1,positive\nawful word2,negative\n"


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


def test_texts_to_distil_from_cannot_be_standard_input(capsys: Capture) -> None:
    assert run(["distill", "c", "-", "--output", "o"]) == 2
    assert "so TEXTS must be a file" in only_line(capsys.readouterr().err)


# Other errors.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TrainingError("the loss became nan"), 1, "error: the loss became nan"),
        (DataError("t.csv:3: broken"), 2, "error: t.csv:3: broken"),
        (ValueError("epochs must be at least 1"), 2, "error: epochs must be at least 1"),
        (KeyError("size\nand more"), 1, r"error: KeyError: 'size\nand more' (--debug shows where)"),
        (RuntimeError("two\nlines"), 1, "error: RuntimeError: two lines (--debug shows where)"),
        (OSError(errno.ENOSPC, "No space", "o/x"), 1, "error: [Errno 28] No space: 'o/x'"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "error: No module named "
         "'torch'; install what is missing: pip install 'fastbert-kit[all]'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(read, "open_folder", _raising(error))
    assert run(["inspect", "m"]) == code
    assert only_line(capsys.readouterr().err) == line


def test_a_full_disk_is_a_failure_and_not_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    error = FolderError("o: not saved, the disk is full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(train_recipe, "train", _raising(error))
    assert run(["train", "t.csv", "--dev", "d.csv", "--model", "m", "--output", "o"]) == 1
    assert only_line(capsys.readouterr().err) == "error: o: not saved, the disk is full"


@pytest.mark.parametrize("arguments", [["--debug", "inspect", "m"], ["inspect", "m", "--debug"]])
def test_debug_shows_where_an_error_comes_from(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(read, "open_folder", _raising(FolderError("m: damaged")))
    assert run(arguments) == 2
    first, *rest, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert rest[-1] == "fastbert.errors.FolderError: m: damaged"
    assert last == "error: m: damaged"


def test_a_missing_install_says_what_to_install(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    assert run(["predict", "m", str(texts)]) == 1
    assert "pip install 'fastbert-kit[all]'" in only_line(capsys.readouterr().err)


def _raising(error: Exception) -> Any:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


# Evaluation and inspection.


def test_evaluation_prints_an_array_of_figures(
    trained: Trained, texts: Path, capsys: Capture
) -> None:
    command = ["evaluate", trained.folder, str(texts), "--speed", "0.4", "--speed", "0"]
    assert run([*command, "--json", "--batch-size", "5"]) == 0

    shown = capsys.readouterr()
    fast, full = json.loads(shown.out)
    assert (fast["speed"], full["speed"]) == (0.4, 0)
    of_goals = {"goal", "confidence", "thresholds"}
    assert full.keys() == fast.keys() == Evaluation.__dataclass_fields__.keys() - of_goals
    assert full["exit_layers"] == [0, 0, 0, 13]
    assert sum(fast["exit_layers"]) == fast["rows"] == 13
    assert shown.err == ""


def test_evaluation_compares_the_default_with_all_layers(
    trained: Trained, texts: Path, capsys: Capture
) -> None:
    with texts.open("a") as file:
        file.write(",neutral\n")
    assert run(["evaluate", trained.folder, str(texts)]) == 0

    shown = capsys.readouterr()
    rows = [" ".join(line.split()) for line in shown.out.splitlines() if "/4 " in line]
    assert rows[0].startswith("speed 0 ")
    assert rows[1].startswith("--max-drop 0.5%* ")
    assert len(rows) == 2
    assert only_line(shown.err) == f"warning: {texts}: 1 of 14 texts are empty"


def test_a_label_that_the_model_does_not_have_is_refused(
    trained: Trained, texts: Path, capsys: Capture
) -> None:
    with texts.open("a") as file:
        file.write("lovely,mixed\n")
    assert run(["evaluate", trained.folder, str(texts)]) == 2
    assert f"{texts}:15: label 'mixed' is not among" in only_line(capsys.readouterr().err)


def test_inspection_shows_what_the_folder_holds(trained: Trained, capsys: Capture) -> None:
    assert run(["inspect", trained.folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    config = json.loads((Path(trained.folder) / "early_exit.json").read_text("utf-8"))
    del config["hashes"]
    assert facts == config | {
        "family": "bert",
        "width": 24,
        "bytes": {path.name: path.stat().st_size for path in Path(trained.folder).iterdir()},
        "exports": [],
    }

    assert run(["inspect", trained.folder]) == 0
    shown = capsys.readouterr().out
    for words in ("bert", "4, width 24", "negative, neutral, positive", "fine_tuning.epochs"):
        assert words in shown
    assert "students.safetensors" in shown
    assert shown.count("/4 ") == len(config["evaluation"])


def test_a_label_that_looks_like_markup_is_shown_as_it_is(capsys: Capture) -> None:
    config = folder_config.EarlyExitConfig("pretrained", SingleLabel(("[red]no", "[/]yes")), 4, 16)
    facts = asdict(config) | {"family": "bert", "width": 24, "bytes": {}, "exports": []}
    Console().print(*tables.folder_tables(facts))
    assert "[red]no, [/]yes" in capsys.readouterr().out


def test_a_damaged_folder_is_named_by_every_command_that_reads_it(
    trained: Trained, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    damaged = tmp_path / "model"
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(damaged)
    (damaged / "students.safetensors").write_bytes(b"")
    for command in (["inspect"], ["evaluate", str(texts)], ["predict", str(texts)]):
        assert run([command[0], str(damaged), *command[1:]]) == 2
        line = only_line(capsys.readouterr().err)
        assert line.startswith(f"error: {damaged / 'students.safetensors'}: does not match")


# Export and bench.


def test_an_export_is_compared_shown_and_used(
    trained: Trained, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    exported = tmp_path / "exported"
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(exported)
    options = ["--runtime", "onnx", "--precision", "fp32", "--data", str(texts)]
    assert run(["export", str(exported), *options]) == 0
    shown = capsys.readouterr().out
    assert "onnx, fp32" in shown
    assert f"rows of {texts.name}" in shown
    assert f"Next: fastbert calibrate {exported} DEV.csv --runtime onnx" in shown
    assert f"fastbert predict {exported} TEXTS.csv --runtime onnx" in shown

    assert run(["inspect", str(exported)]) == 0
    assert "compared with torch" in capsys.readouterr().out
    answers = []
    for runtime in ("auto", "torch"):
        assert run(["predict", str(exported), str(texts), "--runtime", runtime]) == 0
        lines = capsys.readouterr().out.splitlines()
        answers.append([json.loads(line)["label"] for line in lines])
    assert answers[0] == answers[1]

    assert run(["export", str(exported), "--runtime", "onnx", "--precision", "bf16"]) == 1
    assert only_line(capsys.readouterr().err) == (
        "error: onnx computes in fp32 or int8, not in bf16"
    )


def test_bench_prints_one_json_object(
    trained: Trained, texts: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbert.bench.run.plain_contenders", lambda *_, **__: nullcontext([]))
    monkeypatch.setattr("fastbert.bench.run.measure_rates", lambda *_, **__: ((), ()))
    options = ["--runtime", "torch", "--rows", "6", "--latency-rows", "2", "--rounds", "1"]
    assert run(["bench", trained.folder, str(texts), *options, "--speed", "0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"machine", "versions", "peak", "contenders"} <= result.keys()


@pytest.mark.parametrize(("label", "is_known"), [(LABELS[0], True), ("strange", False)])
def test_bench_shows_accuracy_where_a_file_has_the_models_labels(
    label: str,
    is_known: bool,
    trained: Trained,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastbert.bench.run.plain_contenders", lambda *_, **__: nullcontext([]))
    monkeypatch.setattr("fastbert.bench.run.measure_rates", lambda *_, **__: ((), ()))
    file = write_csv(
        tmp_path / "labelled.csv", [Example(str(n), "word1", label=label) for n in "ab"]
    )
    options = ["--rounds", "1", "--speed", "0.5", "--json"]
    assert run(["bench", trained.folder, str(file), *options]) == 0
    shown = capsys.readouterr()
    rows = json.loads(shown.out)["contenders"]
    assert {row["accuracy"] is not None for row in rows} == {is_known}
    assert ("no accuracy is shown" in shown.err) == (not is_known)
    assert [row["agreement"] for row in rows if "full depth" in row["name"]] == [1.0, 1.0]

    if not is_known:  # but a column that was asked for is not passed over
        assert run(["bench", trained.folder, str(file), *options, "--label-column", "topic"]) == 2
        assert "no column 'topic'" in capsys.readouterr().err


# Prediction.


def test_each_row_gets_one_answer_in_its_place(
    trained: Trained, tmp_path: Path, output: Path, capsys: Capture
) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text(
        '{"id": "a", "text": "lovely word1"}\n'
        '{"id": 7, "text": 3}\n'
        '{"text": "awful word2 word3"}\n'
        '{"id": "ü", "text": ""}\n',
        encoding="utf-8",
    )
    command = ["predict", trained.folder, str(source), "--speed", "0.9", "--batch-size", "2"]
    assert run([*command, "--output", str(output)]) == 1

    first, bad, second, empty = answers(output.read_text("utf-8"))
    assert bad == {
        "id": 7,
        "error": f"{source}:2: column 'text' must be a string, got 3 (int)",
    }
    classifier = FastBertClassifier.from_pretrained(trained.folder)
    alone = classifier.predict(["lovely word1", "awful word2 word3", ""], 0.9, batch_size=1)
    for row, expected in zip((first, second, empty), alone, strict=True):
        assert row["label"] == expected.label
        assert row["score"] == pytest.approx(expected.score, abs=1e-5)
        assert row["uncertainty"] == pytest.approx(expected.uncertainty, abs=1e-5)
        assert row["exit_layer"] == expected.exit_layer
    assert first["id"] == "a"
    assert "id" not in second
    assert empty["id"] == "ü"

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"warning: {source}: 1 of 4 texts are empty",
        f"error: {source}: 1 of 4 rows have no answer; each says why in `error`",
    ]


def test_an_id_is_given_back_where_it_is_json_and_else_counted(
    trained: Trained, tmp_path: Path, output: Path, capsys: Capture
) -> None:
    source = tmp_path / "texts.jsonl"
    ids = ['{"$oid": "0a"}', "[1, 2]", "0.5", "NaN", "Infinity", '"\\ud83d"', '{"x": NaN}']
    source.write_text("".join(f'{{"text": "lovely", "id": {row_id}}}\n' for row_id in ids))
    assert run(["predict", trained.folder, str(source), "--output", str(output)]) == 0

    given = [row.get("id", "none") for row in answers(output.read_text("utf-8"))]
    assert given == [{"$oid": "0a"}, [1, 2], 0.5, "none", "none", "none", "none"]
    assert only_line(capsys.readouterr().err) == (
        f"warning: {source}: 3 of 7 ids are not given back, because JSON cannot hold them, such as "
        "inf"
    )


def test_an_answer_that_is_no_number_is_an_error_and_never_nan(
    trained: Trained, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    answer = FastBertClassifier.classify

    def broken(self: FastBertClassifier, *arguments: Any, **options: Any) -> Any:
        result = answer(self, *arguments, **options)
        result.logits[0] = float("nan")
        return result

    monkeypatch.setattr(FastBertClassifier, "classify", broken)
    assert run(["predict", trained.folder, str(texts)]) == 1
    shown = capsys.readouterr()
    first, *others = shown.out.splitlines()
    assert json.loads(first)["error"].startswith(f"{texts}:2: the model's answer is not a number")
    assert len(others) == 12
    assert "NaN" not in shown.out
    assert only_line(shown.err) == (
        f"error: {texts}: 1 of 13 rows have no answer; each says why in `error`"
    )


def test_pipes_give_the_answers_of_files(
    trained: Trained, texts: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(["predict", trained.folder, str(texts), "--output", str(output)]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(texts.read_bytes())))
    assert run(["predict", trained.folder, "-", "--output", "-"]) == 0

    shown = capsys.readouterr()
    assert shown.out == output.read_text("utf-8")
    assert shown.err == ""
    assert len(answers(shown.out)) == 13


def test_columns_may_have_other_names(trained: Trained, tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_text("key\tleft\tright\n5\tlovely\tword1 word2\n")
    command = ["predict", trained.folder, str(source), "--speed", "0", "--text-column", "left"]
    assert run([*command, "--pair-column", "right", "--id-column", "key"]) == 0

    [answer] = answers(capsys.readouterr().out)
    pair = FastBertClassifier.from_pretrained(trained.folder).predict(
        ("lovely", "word1 word2"), 0.0
    )
    assert (answer["id"], answer["exit_layer"]) == ("5", 4)
    assert answer["score"] == pytest.approx(pair.score, abs=1e-6)


def test_without_a_speed_the_default_of_the_folder_is_used(
    trained: Trained, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = tmp_path / "fast"
    with write.staged_folder(model) as staging:
        write.fill_staging(read.open_folder(trained.folder), staging)
        config = read.open_folder(trained.folder).config
        fast = folder_config.DefaultPoint({"name": "entropy"}, (1.0, 0.0, 0.0), {"max_drop": 0.9})
        write.seal(staging, replace(config, default=fast))
    assert run(["predict", str(model), str(texts)]) == 0
    assert {row["exit_layer"] for row in answers(capsys.readouterr().out)} == {1}
    asked = FastBertClassifier.from_pretrained(model).predict(["lovely", "word2 awful"])
    assert {answer.exit_layer for answer in asked} == {1}


def test_a_text_of_a_million_characters_is_classified(
    trained: Trained, tmp_path: Path, capsys: Capture
) -> None:
    source = tmp_path / "long.csv"
    source.write_text("text\n" + "lovely " * 150_000 + "\n")
    assert run(["predict", trained.folder, str(source)]) == 0
    assert len(answers(capsys.readouterr().out)) == 1


def test_the_rows_before_a_damage_are_written(
    trained: Trained, tmp_path: Path, output: Path, capsys: Capture
) -> None:
    source = tmp_path / "cut.csv.gz"
    packed = gzip.compress(b"text\nlovely\nawful\n") + gzip.compress(b"plain\n" * 50)[:-15]
    source.write_bytes(packed)
    assert run(["predict", trained.folder, str(source), "--output", str(output)]) == 2

    written = len(answers(output.read_text("utf-8")))
    assert written >= 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith(f"error: {source}:{written + 2}: damaged, and unreadable from here on")
    assert line.endswith(f"; the {written} rows before it are written")


def test_an_input_without_a_row_leaves_the_output_as_it_was(
    trained: Trained, tmp_path: Path, output: Path, capsys: Capture
) -> None:
    output.write_text("earlier\n")
    (tmp_path / "column.csv").write_text("review\nlovely\n")
    command = ["predict", trained.folder, str(tmp_path / "column.csv"), "--output", str(output)]
    assert run(command) == 2
    assert "column.csv:1: no column 'text'" in only_line(capsys.readouterr().err)
    assert output.read_text() == "earlier\n"
    assert {path.name for path in tmp_path.iterdir()} == {"column.csv", output.name}


def test_an_interrupted_prediction_leaves_the_output_as_it_was(
    trained: Trained,
    texts: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    output.write_text("earlier\n")
    monkeypatch.setattr(FastBertClassifier, "classify", _interrupt)
    assert run(["predict", trained.folder, str(texts), "--output", str(output)]) == 130
    assert only_line(capsys.readouterr().err) == "interrupted"
    assert output.read_text() == "earlier\n"
    assert {path.name for path in output.parent.iterdir()} == {texts.name, output.name}


def test_of_two_predictions_into_one_file_each_is_whole(
    trained: Trained, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = output.with_name(f"{output.name}.part")
    mine.write_text("mine\n")
    files = [write_csv(tmp_path / f"{rows}.csv", examples(rows, seed=rows)) for rows in (9, 13)]
    predict = ["predict", trained.folder, "--output", str(output), str(files[0])]
    other, ended = ["predict", trained.folder, "--output", str(output), str(files[1])], []
    answer = FastBertClassifier.classify

    def meanwhile(self: FastBertClassifier, *arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(FastBertClassifier, "classify", answer)
        ended.append(run(other))  # from start to end, while the first is at work
        ended.append(len(answers(output.read_text("utf-8"))))
        return answer(self, *arguments, **options)

    monkeypatch.setattr(FastBertClassifier, "classify", meanwhile)
    assert run(predict) == 0
    assert ended == [0, 13]
    assert len(answers(output.read_text("utf-8"))) == 9
    assert mine.read_text() == "mine\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        output.name, mine.name, *(file.name for file in files)
    }  # fmt: skip


def test_an_output_that_cannot_be_a_file_is_refused(
    trained: Trained, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    for place, message in {
        tmp_path: "is a folder; name a file in it",
        tmp_path / "none" / "o.jsonl": f"there is no folder {tmp_path / 'none'}; make it first",
        texts: "is also what is read; name another file",
    }.items():
        assert run(["predict", trained.folder, str(texts), "--output", str(place)]) == 2
        assert only_line(capsys.readouterr().err) == f"error: --output {place}: {message}"


def test_an_output_that_is_a_pipe_stays_one(trained: Trained, texts: Path, output: Path) -> None:
    os.mkfifo(output)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(output.read_text("utf-8")))
    reader.start()
    assert run(["predict", trained.folder, str(texts), "--output", str(output)]) == 0
    reader.join()
    assert len(answers(received[0])) == 13
    assert output.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_an_output_on_a_full_disk_is_a_failure(
    trained: Trained, texts: Path, capsys: Capture
) -> None:
    assert run(["predict", trained.folder, str(texts), "--output", "/dev/full"]) == 1
    assert "No space left on device" in only_line(capsys.readouterr().err)


def test_a_reader_that_has_enough_ends_the_prediction_quietly(
    trained: Trained, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "many.csv", examples(4_000))
    with subprocess.Popen(
        [*MAIN, "predict", trained.folder, str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "label" in json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# Calibration, and goals in place of a speed.

CALIBRATION_ROWS = 60


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("dev") / "dev.csv", examples(CALIBRATION_ROWS, seed=4))


@pytest.fixture(scope="module")
def calibrated(trained: Trained, dev: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a copy of the model, with what `calibrate --time` said of it."""
    copy = str(tmp_path_factory.mktemp("calibrated") / "a model")
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(copy)
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = run(["calibrate", copy, str(dev), "--time", "--batch-size", "16"])
    assert code == 0, stderr.getvalue()
    return Trained(copy, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> str:
    """Return a folder of the model that a test may change; it is not calibrated."""
    return str(save_uncalibrated(Path(trained.folder), tmp_path / "copy"))


def test_calibrating_writes_the_record_and_shows_goals_and_the_next_command(
    calibrated: Trained, dev: Path
) -> None:
    *table, last = calibrated.stdout.splitlines()
    shown = " ".join(" ".join(table).split())
    assert all(heading in shown for heading in ("accuracy", "layers", "FLOPs", "ms"))
    for goal in ("--max-drop 0%", "--max-drop 0.5%*", "--saving 0.5"):
        assert f"{goal} " in shown
    assert sum("/4 " in line and "%" in line for line in table) >= 4
    assert "299" in shown  # the rows that a promise of 1 % takes; 60 cannot
    assert f"on the {CALIBRATION_ROWS} rows of the calibration" in shown
    assert last == f"Next: fastbert predict '{calibrated.folder}' TEXTS.csv"
    assert calibrated.stderr == ""
    assert "\x1b" not in calibrated.stdout

    classifier = FastBertClassifier.from_pretrained(calibrated.folder)
    found, rows = classifier.calibration, examples(CALIBRATION_ROWS, seed=4)
    recorded = classifier.record([row.text for row in rows], batch_size=16)
    assert (found.recorded.recorded == recorded.recorded).all()
    assert found.truth is not None
    assert [LABELS[number] for number in found.truth] == [row.label for row in rows]
    assert found.measure == MEASURES[DEFAULT_MEASURE]()
    assert found.times is not None
    assert found.times.processor == processor_name()
    assert classifier.config.calibration is not None
    assert classifier.config.calibration["source"] == dev.name  # no place of this machine


def test_calibrating_without_labels_speaks_of_agreement(
    copied: str, tmp_path: Path, capsys: Capture
) -> None:
    texts = write_csv(tmp_path / "t.csv", examples(30), labelled=False)
    assert run(["calibrate", copied, str(texts), "--unlabeled"]) == 0
    shown = capsys.readouterr().out
    assert "agreement" in shown
    assert "accuracy" not in shown
    found = FastBertClassifier.from_pretrained(copied).calibration
    assert (found.truth, found.times, found.recorded.num_rows) == (None, None, 30)

    assert run(["predict", copied, str(texts), "--max-drop", "0%"]) == 0
    assert len(answers(capsys.readouterr().out)) == 30
    assert run(["predict", copied, str(texts), "--max-drop", "0%", "--metric", "accuracy"]) == 1
    assert "error: accuracy needs labels" in only_line(capsys.readouterr().err)


@pytest.mark.parametrize(("name", "kind"), [("margin", Margin), ("learned", LearnedExit)])
def test_the_measure_may_be_another(
    copied: str, dev: Path, name: str, kind: type, capsys: Capture
) -> None:
    assert run(["calibrate", copied, str(dev), "--measure", name]) == 0
    assert isinstance(FastBertClassifier.from_pretrained(copied).calibration.measure, kind)
    capsys.readouterr()
    assert run(["inspect", copied]) == 0
    assert ["measure", name] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_an_unknown_measure_is_one_line_and_code_2(copied: str, dev: Path, capsys: Capture) -> None:
    assert run(["calibrate", copied, str(dev), "--measure", "mood"]) == 2
    line = only_line(capsys.readouterr().err)
    assert "one of entropy, " in line
    assert "'mood'" in line
    assert FastBertClassifier.from_pretrained(copied).config.calibration is None


def test_help_names_every_measure_of_classification(capsys: Capture) -> None:
    assert run(["calibrate", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("|", " ").replace("│", " ").split())
    for name in MEASURES.keys() - {"binary-entropy", "change"}:  # those are for other tasks
        assert name in shown


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"text\nlovely\nawful\n", 2, "dev.csv:1: no column 'label'"),
        (b"text,label\n" + b"lovely,positive\nplain,neutral\n" * 12, 1, "1 of 3 classes have no "),
        (GOOD + b"plain,neutral\n", 1, "takes at least 20 rows, got 3"),
        (GOOD + b"plain,mixed\n", 2, "dev.csv:4: label 'mixed' is not among the labels"),
        (None, 2, "dev.csv: does not exist"),
    ],
    ids=["unlabelled", "class missing", "few rows", "other label", "no file"],
)
def test_rows_that_cannot_be_calibrated_with_are_one_line(
    content: bytes | None, code: int, message: str, copied: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "dev.csv"
    if content is not None:
        path.write_bytes(content)
    assert run(["calibrate", copied, str(path)]) == code
    assert message in only_line(capsys.readouterr().err)
    assert FastBertClassifier.from_pretrained(copied).config.calibration is None


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(
    dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    # A model of that name would be calibrated in the Hub's cache.
    monkeypatch.chdir(tmp_path)
    assert run(["calibrate", "modle", str(dev)]) == 2
    line = only_line(capsys.readouterr().err)
    assert "there is no such folder" in line
    assert "Hub" not in line


def test_the_cache_of_the_hub_is_not_calibrated_nor_the_model_run_for_it(
    trained: Trained, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    snapshot = tmp_path / "models--me--reviews" / "snapshots" / "0123abc"
    shutil.copytree(trained.folder, snapshot)
    monkeypatch.delattr(FastBertClassifier, "calibrate")
    assert run(["calibrate", str(snapshot), str(dev)]) == 2
    assert "lies in the cache of the Hub" in only_line(capsys.readouterr().err)


def test_evaluating_with_a_goal_names_it_and_its_thresholds(
    calibrated: Trained, dev: Path, capsys: Capture
) -> None:
    command = ["evaluate", calibrated.folder, str(dev)]
    assert run([*command, "--json", "--max-drop", "10%", "--confidence", "0.9"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row.keys() == Evaluation.__dataclass_fields__.keys()
    assert row["speed"] is None
    assert row["goal"] == {"max_drop": 0.1, "confidence": 0.9}
    assert row["confidence"] == 0.9
    point = FastBertClassifier.from_pretrained(calibrated.folder).speed_for(
        max_drop=0.1, confidence=0.9
    )
    assert row["thresholds"] == list(point.thresholds)
    assert row["accuracy"] == pytest.approx(point.accuracy)

    assert run([*command, "--max-drop", "0.5%"]) == 0
    shown = capsys.readouterr()
    assert "--max-drop 0.5%*" in shown.out
    assert shown.err == ""  # these are the calibration's own texts


def test_predicting_with_a_goal_is_predicting_with_its_thresholds(
    calibrated: Trained, texts: Path, capsys: Capture
) -> None:
    classifier = FastBertClassifier.from_pretrained(calibrated.folder)
    expected = classifier.predict([row.text for row in examples(13, seed=3)], saving=0.5)
    assert run(["predict", calibrated.folder, str(texts), "--saving", "0.5"]) == 0
    found = answers(capsys.readouterr().out)
    assert [(row["label"], row["exit_layer"]) for row in found] == [
        (answer.label, answer.exit_layer) for answer in expected
    ]


def test_a_promise_that_takes_more_rows_says_how_many(
    calibrated: Trained, texts: Path, output: Path, capsys: Capture
) -> None:
    command = ["predict", calibrated.folder, str(texts), "--output", str(output)]
    assert run([*command, "--max-drop", "1%", "--confidence", "95%"]) == 1
    line = only_line(capsys.readouterr().err)  # (1 - 0.01)^299 is the first below 1 - 0.95
    assert line.startswith("error: max_drop 0.01 with confidence 0.95 takes at least 299 calib")
    assert line.endswith("there are 60")
    assert not output.exists()


GOAL_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("--max-drop 0.5%", {"max_drop": 0.005}),
    ("--max-drop 0.005", {"max_drop": 0.005}),
    ("--max-drop 0", {"max_drop": 0.0}),
    ("--max-drop 3% --metric f1", {"max_drop": 0.03, "metric": "f1"}),
    (
        "--max-drop 3% --metric agreement --confidence 90%",
        {"max_drop": 0.03, "metric": "agreement", "confidence": 0.9},
    ),
    ("--min-speedup 1.5", {"min_speedup": 1.5}),
    ("--max-mean-layers 3", {"max_mean_layers": 3.0}),
    ("--max-flops 2e9", {"max_flops": 2e9}),
    ("--latency-ms 4.5", {"latency_ms": 4.5}),
    ("--saving 0.5", {"saving": 0.5}),
]


@pytest.mark.parametrize(("options", "goal"), GOAL_OPTIONS)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_every_goal_option_reaches_the_library(
    command: str,
    options: str,
    goal: dict[str, Any],
    calibrated: Trained,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    asked: list[dict[str, Any]] = []
    point = FastBertClassifier.from_pretrained(calibrated.folder).speed_for(saving=0.0)

    def speed_for(self: FastBertClassifier, **options: Any) -> Any:
        asked.append(options)
        return replace(point, goal=Goal(**options))

    monkeypatch.setattr(FastBertClassifier, "speed_for", speed_for)
    assert run([command, calibrated.folder, str(texts), *options.split()]) == 0
    assert asked == [pytest.approx(goal)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-drop 1% --saving 0.5", "got max_drop and saving"),
        ("--min-speedup 2 --latency-ms 3", "got min_speedup and latency_ms"),
        ("--max-drop 1% --speed 0.5", "--speed and a goal exclude each other"),
        ("--saving 0.5 --speed 0", "--speed and a goal exclude each other"),
        ("--confidence 95%", "got none"),
        ("--metric f1", "got none"),
        ("--saving 0.5 --confidence 95%", "confidence goes with max_drop"),
        ("--max-drop 1% --metric f1 --confidence 95%", "F1 is no mean"),
        ("--max-drop 150%", "max_drop must lie between 0 and 1, got 1.5"),
        ("--max-drop=-1%", "max_drop must lie between 0 and 1, got -0.01"),
        ("--max-drop nan", "max_drop must lie between 0 and 1"),
        ("--max-drop little", "'little' is neither a share such as 0.005 nor 0.5%"),
        ("--max-drop 1%%", "'1%%' is neither a share"),
        ("--metric recall --max-drop 1%", "'recall' is not one of 'accuracy', 'f1', 'agreement'"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_is_no_goal_is_one_line_and_code_2_before_the_model_is_loaded(
    command: str, options: str, message: str, capsys: Capture
) -> None:
    assert run([command, "nowhere", "nothing.csv", *options.split()]) == 2
    assert message in only_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_goal_for_a_folder_that_is_not_calibrated_says_how(
    command: str, copied: str, texts: Path, capsys: Capture
) -> None:
    assert run([command, copied, str(texts), "--max-drop", "1%"]) == 2
    line = only_line(capsys.readouterr().err)
    assert f"do it with `fastbert calibrate {copied} DEV`" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--latency-ms 5", "latency_ms needs the times of this machine: calibrate again with --ti"),
        ("--min-speedup 99", "min_speedup 99 cannot be reached: the best is "),
    ],
)
def test_a_goal_that_cannot_be_met_is_a_failure(
    options: str, message: str, copied: str, dev: Path, texts: Path, capsys: Capture
) -> None:
    assert run(["calibrate", copied, str(dev)]) == 0
    capsys.readouterr()
    assert run(["predict", copied, str(texts), *options.split()]) == 1
    assert only_line(capsys.readouterr().err).startswith(f"error: {message}")


def test_texts_that_behave_otherwise_than_the_calibrations_are_a_warning(
    calibrated: Trained, tmp_path: Path, capsys: Capture
) -> None:
    one_text = write_csv(tmp_path / "same.csv", examples(1) * 60)  # all leave at one layer
    assert run(["evaluate", calibrated.folder, str(one_text), "--saving", "0.5", "--json"]) == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)) == 1  # the warning does not stand among the figures
    line = shown.err.splitlines()[0]
    assert line.startswith(f"warning: {one_text}: the texts leave at other layers than the cal")


def test_no_drift_is_looked_for_without_a_calibration(
    copied: str, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "drift_of", _raising(AssertionError("it was")))
    assert run(["evaluate", copied, str(texts), "--speed", "0.5"]) == 0


def test_inspection_shows_the_calibration(calibrated: Trained, capsys: Capture) -> None:
    assert run(["inspect", calibrated.folder]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"rows {CALIBRATION_ROWS} of dev.csv, labelled" in lines
    assert f"measure {DEFAULT_MEASURE}" in lines
    assert "answered by torch in fp32" in lines
    assert any(line.startswith("layer, one text ") and line.endswith(" ms") for line in lines)
    assert any(line.startswith("calibration.safetensors ") for line in lines)
    assert not any("history" in line for line in lines)

    assert run(["inspect", calibrated.folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["calibration"]["rows"] == CALIBRATION_ROWS
    assert facts["calibration"]["labeled"] is True
    assert facts["training"]["history"].keys() == {"teacher", "students"}


def test_a_damaged_calibration_is_named_and_a_speed_does_without_it(
    copied: str, dev: Path, texts: Path, capsys: Capture
) -> None:
    assert run(["calibrate", copied, str(dev)]) == 0
    (Path(copied) / "calibration.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert run(["predict", copied, str(texts), "--speed", "0.5"]) == 0
    assert run(["predict", copied, str(texts), "--saving", "0.5"]) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith(f"error: {copied}/calibration.safetensors: does not match its hash")
