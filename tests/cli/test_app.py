"""The program as a whole: its help, its page, and what help waits for."""

import subprocess
import sys
from pathlib import Path

import fastbert
from fastbert.cli.app import app
from fastbert.cli.run import run
from tests.cli.commands import (
    Capture,
)

COMMANDS = ["train", "distill", "compare", "evaluate", "predict", "calibrate", "inspect", "demo"]


DOCS = Path(__file__).parents[2] / "docs" / "command-line.md"


def test_no_help_needs_torch() -> None:
    source = f"""
import sys
import fastbert
from fastbert.cli.app import app
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


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    assert run([]) == 0
    assert "Usage: fastbert" in capsys.readouterr().out


def test_the_commands_stand_in_the_order_of_their_use() -> None:
    names = [getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert names == [
        "train", "distill", "compare", "evaluate", "predict", "calibrate", "export", "bench",
        "report", "inspect", "demo",
    ]  # fmt: skip


def test_the_version_is_shown_and_nothing_else_runs(capsys: Capture) -> None:
    assert run(["--version", "inspect", "nowhere"]) == 0
    assert capsys.readouterr().out == f"{fastbert.__version__}\n"
