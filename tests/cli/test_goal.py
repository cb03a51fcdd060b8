"""A goal on the command line: each option once, and refused before a model is loaded."""

from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from fastbert.calibration.goal import Goal, GoalOptions
from fastbert.classifier import FastBertClassifier
from fastbert.cli.answering import calibrate, evaluate, predict
from fastbert.cli.goal import AskedGoal
from fastbert.cli.run import run
from tests.cli.commands import (
    Capture,
    Trained,
    only_line,
)

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
        ("--max-drop 1% --metric f1 --confidence 95%", "f1 is no mean"),
        ("--max-drop 150%", "max_drop must lie between 0 and 1, got 1.5"),
        ("--max-drop=-1%", "max_drop must lie between 0 and 1, got -0.01"),
        ("--max-drop nan", "max_drop must lie between 0 and 1"),
        ("--max-drop little", "'little' is neither a share such as 0.005 nor 0.5%"),
        ("--max-drop 1%%", "'1%%' is neither a share"),
        ("--metric recall --max-drop 1%", "'recall' is not one of 'accuracy', 'f1', 'micro-f1', "),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_is_no_goal_is_one_line_and_code_2_before_the_model_is_loaded(
    command: str, options: str, message: str, capsys: Capture
) -> None:
    assert run([command, "nowhere", "nothing.csv", *options.split()]) == 2
    assert message in only_line(capsys.readouterr().err)


def test_the_options_are_the_fields_of_the_librarys_goal() -> None:
    names = [item.name for item in fields(AskedGoal)]
    assert names == [item.name for item in fields(Goal)] == list(GoalOptions.__annotations__)


@pytest.mark.parametrize("command", [evaluate, predict, calibrate])
def test_a_command_that_takes_a_goal_shows_each_of_its_options_once(command: Any) -> None:
    names = list(GoalOptions.__annotations__)
    assert [name for name in signature(command).parameters if name in names] == names


def test_only_what_was_asked_for_is_given() -> None:
    assert AskedGoal().options() == AskedGoal().options(speed=0.5) == {}
    assert AskedGoal(max_drop=0.0, metric="f1").options() == {"max_drop": 0.0, "metric": "f1"}
