"""Checkpoints: which of them are whole, and what is resumed after a kill."""

import json
import logging
from pathlib import Path

import pytest

from fastbert.training.checkpoints import WHOLE, last_whole_checkpoint, seal_checkpoint


def write_checkpoint(folder: Path, step: int, best: Path | None = None) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(range(256)) * step)
    (checkpoint / "optimizer.pt").write_bytes(b"momentum")
    state = {"global_step": step, "best_model_checkpoint": None if best is None else str(best)}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    seal_checkpoint(checkpoint)
    return checkpoint


def test_the_checkpoint_with_the_highest_step_is_resumed(tmp_path: Path) -> None:
    for step in (9, 10, 8):  # "10" sorts before "9" as text
        write_checkpoint(tmp_path, step)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_without_checkpoints_there_is_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-notes").mkdir()
    assert last_whole_checkpoint(tmp_path) is None


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(checkpoint: Path) -> None:
    file = checkpoint / "optimizer.pt"
    file.write_bytes(b"Momentum")


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "trainer_state.json").unlink()


def never_finish(checkpoint: Path) -> None:
    (checkpoint / WHOLE).unlink()


def break_the_seal(checkpoint: Path) -> None:
    (checkpoint / WHOLE).write_text("{")


@pytest.mark.parametrize("damage", [truncate, flip, lose_a_file, never_finish, break_the_seal])
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning_that_names_it(
    damage: "object", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newest = write_checkpoint(tmp_path, 8), write_checkpoint(tmp_path, 12)
    assert callable(damage)
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(tmp_path) == older
    assert str(newest) in caplog.text


def test_a_checkpoint_whose_best_one_is_damaged_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = write_checkpoint(tmp_path, 4)
    first = write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 6, best=best)
    truncate(best)
    assert last_whole_checkpoint(tmp_path) == first
    assert str(best) in caplog.text
