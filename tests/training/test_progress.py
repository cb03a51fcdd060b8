"""What is shown of long work where there is no terminal, by a clock that is told the time."""

import pytest

from fastbert.training.progress import PAUSE, Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(steps: int, seconds_a_step: float) -> None:
    clock = Clock()
    progress = Progress("teacher", steps, "step", clock=clock)
    for step in range(1, steps + 1):
        clock.now += seconds_a_step
        progress.move_to(step, "epoch 1 of 2")
    progress.close()


def test_off_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    work(steps=8, seconds_a_step=PAUSE / 2)
    assert capsys.readouterr().err.splitlines() == [
        "teacher: epoch 1 of 2, 25 %",
        "teacher: epoch 1 of 2, 50 %",
        "teacher: epoch 1 of 2, 75 %",
        "teacher: epoch 1 of 2, 100 %",
    ]


def test_hours_of_work_are_a_line_for_each_percent(capsys: pytest.CaptureFixture[str]) -> None:
    work(steps=1_000, seconds_a_step=3 * PAUSE)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) == 101  # from 0 to 100 %


def test_what_has_no_parts_shows_its_percentage(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress("hidden states", 40, "row", done=10, clock=clock)
    clock.now += PAUSE
    progress.move_to(30)
    assert capsys.readouterr().err == "hidden states: 75 %\n"
