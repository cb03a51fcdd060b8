"""A teacher's answers on disk: whole or absent, and of what they say they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastbert.training.answers import INDEX, LOGITS, TeacherAnswers

ROWS, OUTPUTS = 7, 3
TAUGHT = np.random.default_rng(0).normal(size=(ROWS, OUTPUTS)).astype(np.float32)


def parts() -> list[tuple[np.ndarray, np.ndarray]]:
    order = [np.array([5, 0, 6]), np.array([1, 4]), np.array([2, 3])]
    return [(rows, TAUGHT[rows]) for rows in order]


def write(folder: Path) -> TeacherAnswers:
    return TeacherAnswers.write(folder, parts(), (ROWS, OUTPUTS), "these")


def test_answers_are_read_by_row_in_whatever_order_they_came(tmp_path: Path) -> None:
    rows = torch.tensor([6, 2, 2])
    for answers in (write(tmp_path / "a"), TeacherAnswers.load(tmp_path / "a", "these")):
        assert answers is not None
        assert torch.equal(answers.to(rows), torch.tensor(TAUGHT[[6, 2, 2]]))
        assert np.array_equal(answers.logits, TAUGHT)


def test_answers_of_others_and_damaged_ones_are_named_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert TeacherAnswers.load(tmp_path / "a", "these") is None
    write(tmp_path / "a")
    assert TeacherAnswers.load(tmp_path / "a", "those") is None
    assert "of another teacher" in caplog.text
    content = bytearray((tmp_path / "a" / LOGITS).read_bytes())
    content[-1] ^= 1
    (tmp_path / "a" / LOGITS).write_bytes(content)
    assert TeacherAnswers.load(tmp_path / "a", "these") is None
    assert "is damaged" in caplog.text


def test_answers_that_were_never_finished_are_absent(tmp_path: Path) -> None:
    write(tmp_path / "a")  # an earlier set does not stand for the one that is cut off

    def dying() -> object:
        yield parts()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TeacherAnswers.write(tmp_path / "a", dying(), (ROWS, OUTPUTS), "these")  # type: ignore[arg-type]  # of a generator that ends badly
    assert not (tmp_path / "a" / INDEX).exists()
    assert TeacherAnswers.load(tmp_path / "a", "these") is None
