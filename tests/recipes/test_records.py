"""Records: what is written comes back, and what is damaged is refused."""

from pathlib import Path

import numpy as np
import pytest

from fastbert.calibration.frontier import Split
from fastbert.errors import TrainingError
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.config import EarlyExitConfig
from fastbert.head_shapes import heads_by_depth
from fastbert.recipes.records import is_recorded, read_record, write_record
from fastbert.tasks.single_label import SingleLabel

CONFIG = {"model_type": "bert", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4}
EARLY_EXIT = EarlyExitConfig(
    "pretrained", SingleLabel(("a", "b", "c")), 4, 16, heads_by_depth("queries:1,paper/first/8", 3)
)


def write(folder: Path) -> dict[str, Split]:
    random = np.random.default_rng(0)
    splits = {
        split: Split(
            RecordedExits(random.normal(size=(4, rows, 3)).astype(np.float32)),
            random.integers(3, size=rows),
            random.integers(2, 17, size=rows),
        )
        for split, rows in (("dev", 7), ("test", 11))
    }
    write_record(folder, "joint", {"seconds": 1.5}, EARLY_EXIT.as_dict(), CONFIG, splits)
    return splits


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    splits = write(tmp_path / "seed42")
    assert is_recorded(tmp_path / "seed42", "joint")
    record = read_record(tmp_path / "seed42", "joint")
    assert record.facts["seconds"] == 1.5
    assert record.recording.shape == EARLY_EXIT.shape(CONFIG)
    assert record.recording.task == EARLY_EXIT.task
    for there, written in (
        (record.recording.dev, splits["dev"]),
        (record.recording.test, splits["test"]),
    ):
        assert there.recorded.recorded == pytest.approx(written.recorded.recorded, abs=2e-3)
        assert there.recorded.recorded.dtype == np.float32
        assert there.truth.tolist() == written.truth.tolist()
        assert there.lengths.tolist() == written.lengths.tolist()


def test_a_record_whose_answers_are_damaged_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "joint.npz").write_bytes(b"other")
    with pytest.raises(
        TrainingError, match=r"joint.npz: is missing or damaged; delete .*joint\.json"
    ):
        read_record(tmp_path, "joint")
    with pytest.raises(TrainingError, match="is no record of a contender"):
        read_record(tmp_path, "paper")


def test_a_kill_before_the_end_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="disk is full"):
            write(tmp_path)
    assert list(tmp_path.iterdir()) == []
