"""What is shown on a terminal."""

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastbert.calibration.goal import Goal
from fastbert.calibration.solve import Calibration
from fastbert.cli import tables
from fastbert.exits.recorded import RecordedExits
from fastbert.folder import config as folder_config
from fastbert.folder.followed import Followed
from fastbert.head_shapes import PaperHead, QueryHead
from fastbert.shape import ModelShape
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from tests.cli.commands import Capture

HEADS = (PaperHead(), QueryHead(8), QueryHead(8))
FOLDER = {"family": "bert", "width": 24, "bytes": {}, "exports": [], "export_times": {}}


def test_a_label_that_looks_like_markup_is_shown_as_it_is(capsys: Capture) -> None:
    config = folder_config.EarlyExitConfig(
        "pretrained", SingleLabel(("[red]no", "[/]yes")), 4, 16, HEADS
    )
    Console().print(*tables.folder_tables(config.as_dict() | FOLDER))
    assert "[red]no, [/]yes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"speed": 0.25}, "speed 0.25"),
        ({"speed": None, "goal": {"max_drop": 0.005}}, "--max-drop 0.5%"),
        (
            {"speed": None, "goal": {"max_drop": 0.01, "metric": "f1"}},
            "--max-drop 1% --metric f1",
        ),
        ({"speed": None, "goal": {"min_speedup": 3.0}}, "--min-speedup 3"),
        ({"speed": None, "goal": None}, "own thresholds"),
    ],
)
def test_a_setting_is_called_as_it_is_typed(row: dict[str, Any], name: str) -> None:
    assert tables.setting_of(row) == name


@pytest.mark.parametrize(
    ("head", "name"), [("pretrained", "pretrained"), (PaperHead("mean"), "paper/mean")]
)
def test_heads_are_told_as_they_are_spelled(head: Any, name: str, capsys: Capture) -> None:
    config = folder_config.EarlyExitConfig(head, SingleLabel(("no", "yes")), 4, 16, HEADS)
    Console().print(*tables.folder_tables(config.as_dict() | FOLDER))
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    told = {words[0]: words[1].strip() for words in shown if len(words) == 2}
    assert told["students"] == "paper x 1, queries/8 x 2"
    assert told["teacher's"] == f"head   {name}"


def test_the_default_is_the_row_of_its_thresholds() -> None:
    default = folder_config.DefaultPoint({"name": "margin"}, (0.5, 0.25), {"max_drop": 0.005})
    row = {"speed": None, "thresholds": [0.5, 0.25]}
    assert tables.is_default(row, default)
    assert not tables.is_default(row | {"thresholds": [0.5, 0.75]}, default)
    assert not tables.is_default({"speed": 0.5, "thresholds": None}, default)


def test_without_a_goal_the_default_is_a_speed_and_without_any_it_is_every_layer() -> None:
    speed = folder_config.DefaultPoint({"name": "entropy"}, (0.5, 0.5), None)
    assert [tables.is_default({"speed": asked}, speed) for asked in (0.0, 0.5)] == [False, True]
    assert [tables.is_default({"speed": asked}, None) for asked in (0.0, 0.5)] == [True, False]


def test_where_another_model_was_followed_its_name_stands_under_the_table(capsys: Capture) -> None:
    row = {
        "speed": 0.0, "accuracy": 0.975, "macro_f1": 0.5, "mean_exit_layer": 2.0, "layers": 3,
        "speedup_flops": 1.5, "speedup_paper": 1.2, "rows_per_second": 10.0,
    }  # fmt: skip
    task = SingleLabel(("no", "yes"))
    followed = Followed("big-model", 40, 0.95, 0.975, 2e6, 12e6)
    Console(width=120).print(tables.speed_table(task, [row], None, followed))
    shown = " ".join(capsys.readouterr().out.split())
    assert "setting agreement macro F1" in shown
    assert "agreement, macro F1: agreement with big-model" in shown
    assert "keeps 95.00% of the answers of big-model at 6.00x fewer FLOPs" in shown
    Console(width=120).print(tables.speed_table(task, [row], None))
    assert "setting accuracy macro F1" in " ".join(capsys.readouterr().out.split())


def test_answers_of_several_labels_are_shown_by_their_metrics(capsys: Capture) -> None:
    row = {
        "speed": 0.0, "micro_f1": 0.975, "macro_f1": 0.5, "row_f1": 0.8125,
        "mean_exit_layer": 2.0, "layers": 3, "speedup_flops": 1.5, "speedup_paper": 1.2,
        "rows_per_second": 10.0,
    }  # fmt: skip
    task = MultiLabel(("x", "y"))
    Console(width=120).print(tables.speed_table(task, [row], None))
    shown = " ".join(capsys.readouterr().out.split())
    assert "setting micro F1 macro F1 row F1 layers" in shown
    assert "speed 0* 97.50% 50.00% 81.25% 2.00/3" in shown

    followed = Followed("big-model", 40, 0.95, 0.975, 2e6, 12e6)
    config = folder_config.EarlyExitConfig(
        "pretrained", task, 4, 16, HEADS, evaluation=[row], training=followed.told()
    )
    Console(width=120).print(*tables.folder_tables(config.as_dict() | FOLDER))
    shown = " ".join(capsys.readouterr().out.split())
    assert "setting micro F1 macro F1 agreement layers" in shown
    assert "micro F1, macro F1, agreement: agreement with big-model" in shown


@pytest.mark.parametrize(
    ("truth", "truth_from", "heading", "column"),
    [
        ("labels", None, "micro F1", "micro_f1"),
        ("labels", "big-model", "agreement", "row_f1"),
        (None, None, "agreement", None),
    ],
)
def test_goals_for_several_labels_show_what_is_meant(
    truth: str | None, truth_from: str | None, heading: str, column: str | None, capsys: Capture
) -> None:
    exits, rows, labels = 3, 60, 4
    random = np.random.default_rng(3)
    task = MultiLabel(tuple("wxyz"))
    calibration = Calibration(
        RecordedExits(random.normal(0, 2, (exits, rows, labels))),
        random.random((rows, labels)) < 0.4 if truth else None,
        random.integers(4, 9, rows),
        ModelShape(8, 16, exits, labels, (PaperHead(),) * (exits - 1)),
        task,
        task.default_measure,
        truth_from=truth_from,
    )
    point = calibration.solve(Goal(saving=0.5))
    worth = point.agreement if column is None else point.metrics[column]
    Console(width=120).print(tables.goal_table(calibration))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(["goal", heading, "layers", "FLOPs"]) in [" ".join(line) for line in lines]
    [shown] = [line for line in lines if line[:2] == ["--saving", "0.5"]]
    assert shown[2] == f"{worth:.2%}"
