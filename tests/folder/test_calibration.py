"""A calibration is read back bit-equal, or refused by name; the model beside it stays as it was."""

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fastbert.calibration.answerer import TORCH, Answerer, PartTimes
from fastbert.calibration.goal import Goal
from fastbert.calibration.solve import Calibration
from fastbert.errors import CalibrationError, FolderError
from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.measures import (
    NUM_FEATURES,
    Change,
    ConfidentPatience,
    LearnedExit,
    Stability,
    TopEntropy,
)
from fastbert.exits.recorded import RecordedExits
from fastbert.files.disk import copy_file, hash_of_file
from fastbert.folder import calibration as calibration_record
from fastbert.folder import write
from fastbert.folder.calibration import (
    check_default,
    load_calibration,
    read_record,
    record_facts,
    refuse_other_answerer,
    save_calibration,
)
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import CALIBRATION_FILE
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.write import copy_folder, seal
from fastbert.tasks.single_label import SingleLabel
from tests.folder.folders import (
    EXPORT,
    FOREIGN,
    LABELS,
    STUDENT,
    content,
    fill,
    foreign,
    names_beside,
    put,
    putting_back,
    settings,
)

EXITS, ROWS, CLASSES = 4, 50, len(LABELS)
TIMES = PartTimes(start=0.7, layer=2.1, student=1 / 3, teacher=0.1)
GOALS = (
    Goal(max_drop=0.02),
    Goal(max_drop=0.1, metric="agreement"),
    Goal(max_drop=0.2, confidence=0.9),
    Goal(saving=0.4),
    Goal(max_mean_layers=3.0),
)


@dataclass(frozen=True)
class Own(Measure):
    """A measure that fastbert does not know."""

    scale: float = 0.5

    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        best = logits[-1].max(axis=-1)
        return np.asarray(1 / (1 + self.scale * np.abs(best)))


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """Return a model folder that costs can be counted for; it has no weights to speak of."""
    path = tmp_path / "model"
    path.mkdir()
    fill(path)
    change_config(path, hidden_size=16, intermediate_size=40)
    seal(path, settings())
    return open_folder(path)


def change_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text("utf-8"))
    (path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def calibration(folder: ModelFolder, seed: int = 0, rows: int = ROWS, **others: Any) -> Calibration:
    random = np.random.default_rng(seed)
    truth = np.arange(rows) % CLASSES
    skill = np.linspace(0.5, 3, EXITS)[:, None, None] * np.eye(CLASSES)[truth]
    logits = (skill + random.normal(size=(EXITS, rows, CLASSES))).astype(np.float32)
    given: dict[str, Any] = {"truth": truth, "lengths": random.integers(3, 60, size=rows)}
    given["measure"] = folder.config.task.default_measure
    return Calibration(
        RecordedExits(logits), shape=folder.shape, task=folder.config.task, **(given | others)
    )


def learned() -> dict[str, Any]:
    random = np.random.default_rng(1)
    weights = random.normal(size=(EXITS - 1, NUM_FEATURES + 1)).tolist()
    measure = LearnedExit(tuple(tuple(exit_) for exit_ in weights))
    return {"measure": measure, "fitted": random.random(ROWS) < 0.3}


def reseal(folder: ModelFolder, **changes: Any) -> ModelFolder:
    """Seal a folder again as it lies there, as somebody may who knows how."""
    config = EarlyExitConfig.read(folder.path / "early_exit.json")
    seal(folder.path, replace(config, **changes))
    return open_folder(folder.path)


# What is saved is what is read.


@pytest.mark.parametrize(
    "others",
    [
        {"measure": Entropy()},
        {"measure": TopEntropy(2), "times": TIMES},
        {"measure": ConfidentPatience(3)},
        {"measure": Stability(patience=2), "truth": None},
        {"measure": Change(0.1)},
        learned(),
    ],
    ids=["entropy", "settings-and-times", "patience", "unlabelled", "not-binary", "learned"],
)
def test_a_calibration_is_read_back_bit_equal_and_solves_alike(
    folder: ModelFolder, others: dict[str, Any]
) -> None:
    saved = calibration(folder, **others)
    found = load_calibration(save_calibration(folder, saved, "dev.csv"))

    assert found.recorded.recorded.tobytes() == saved.recorded.recorded.tobytes()
    assert found.recorded.recorded.dtype == np.float32
    assert found.lengths.tolist() == saved.lengths.tolist()
    for one, other in ((found.truth, saved.truth), (found.fitted, saved.fitted)):
        assert (one is None) == (other is None)
        assert one is None or other is None or one.tolist() == other.tolist()
    assert found.measure == saved.measure
    assert found.times == saved.times
    assert found.shape == saved.shape
    assert [found.solve(goal) for goal in GOALS] == [saved.solve(goal) for goal in GOALS]


def test_the_layout_of_an_array_in_memory_does_not_matter(folder: ModelFolder) -> None:
    # safetensors writes the bytes as they lie: of another order, other logits would be read back,
    # under a hash that fits.
    saved = calibration(folder)
    turned = np.asfortranarray(saved.recorded.recorded)
    other = replace(saved, recorded=RecordedExits(turned), lengths=np.repeat(saved.lengths, 2)[::2])
    found = load_calibration(save_calibration(folder, other, "dev.csv"))

    assert np.array_equal(found.recorded.recorded, saved.recorded.recorded)
    assert np.array_equal(found.lengths, saved.lengths)


def test_without_labels_only_agreement_can_be_asked_for(folder: ModelFolder) -> None:
    found = load_calibration(
        save_calibration(folder, calibration(folder, truth=None), "texts.jsonl")
    )
    assert found.truth is None
    assert found.solve(Goal(max_drop=0.0)).agreement == 1.0
    with pytest.raises(CalibrationError, match="accuracy needs labels"):
        found.solve(Goal(max_drop=0.0, metric="accuracy"))


def test_the_record_says_what_was_calibrated(folder: ModelFolder) -> None:
    sealed = save_calibration(folder, calibration(folder, measure=TopEntropy(2)), "dev.csv")
    record = read_record(sealed)
    assert (record.source, record.rows, record.labeled) == ("dev.csv", ROWS, True)
    assert record.measure == {"name": "top-entropy", "top": 2}
    assert record.times_ms is None
    assert abs((datetime.now(UTC).date() - datetime.fromisoformat(record.date).date()).days) <= 1
    assert sealed.config.calibration == json.loads(
        (folder.path / "early_exit.json").read_text("utf-8")
    ).get("calibration")


def test_a_calibration_changes_no_other_file_and_no_other_setting(folder: ModelFolder) -> None:
    before = content(folder.path)
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    after = content(folder.path)

    assert after.keys() - before.keys() == {CALIBRATION_FILE}
    assert {name for name in before if after[name] != before[name]} == {"early_exit.json"}
    hashes = {**folder.config.hashes, "settings": sealed.config.hashes["settings"]}
    assert replace(sealed.config, calibration=None, default=None) == replace(
        folder.config, hashes=hashes, default=None
    )
    assert names_beside(folder.path) == ["model"]


def test_a_calibration_leaves_what_a_user_keeps_in_the_folder_alone(folder: ModelFolder) -> None:
    put(folder.path, FOREIGN)
    save_calibration(folder, calibration(folder), "dev.csv")
    assert foreign(folder.path) == FOREIGN


def test_the_cache_of_the_hub_is_not_calibrated(folder: ModelFolder, tmp_path: Path) -> None:
    # Every later load of the model would silently get this calibration.
    snapshot = tmp_path / "models--me--reviews" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in folder.path.iterdir():
        (snapshot / file.name).symlink_to(file)
    opened = open_folder(snapshot)
    with pytest.raises(FolderError, match=r"0123abc: lies in the cache .*`save_pretrained\(DIR\)`"):
        save_calibration(opened, calibration(opened), "dev.csv")
    assert all(file.is_symlink() for file in snapshot.iterdir())
    assert open_folder(snapshot).config.calibration is None


def test_an_earlier_calibration_is_replaced(folder: ModelFolder) -> None:
    first = save_calibration(folder, calibration(folder, **learned(), times=TIMES), "one.csv")
    second = calibration(folder, seed=2, rows=31, truth=None)
    found = load_calibration(save_calibration(first, second, "two.csv"))

    assert np.array_equal(found.recorded.recorded, second.recorded.recorded)
    assert (found.truth, found.fitted, found.times) == (None, None, None)
    assert read_record(open_folder(folder.path)).source == "two.csv"


def test_a_copy_and_a_folder_with_other_settings_keep_the_calibration(folder: ModelFolder) -> None:
    saved = calibration(folder)
    sealed = save_calibration(folder, saved, "dev.csv")
    copy_folder(sealed, folder.path.with_name("copy"))
    copy = open_folder(folder.path.with_name("copy"))
    for kept in (copy, reseal(copy, max_length=63)):
        found = load_calibration(kept)
        assert np.array_equal(found.recorded.recorded, saved.recorded.recorded)


# What does not fit is refused by name.


def test_a_folder_that_is_not_calibrated_says_how(folder: ModelFolder) -> None:
    with pytest.raises(
        FolderError, match=rf"is not calibrated.*`fastbert calibrate {folder.path} DEV`"
    ):
        load_calibration(folder)


def flip(content: bytes) -> bytes:
    place = 2 * len(content) // 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: None, "is missing; calibrate again"),
        (lambda content: content[:-9], "does not match its hash"),
        (lambda content: b"", "does not match its hash"),
        (flip, "does not match its hash"),
    ],
    ids=["missing", "truncated", "empty", "flipped"],
)
def test_a_damaged_file_is_named_and_the_model_still_opens(
    folder: ModelFolder, damage: Callable[[bytes], bytes | None], message: str
) -> None:
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    path = folder.path / CALIBRATION_FILE
    damaged = damage(path.read_bytes())
    path.unlink() if damaged is None else path.write_bytes(damaged)

    opened = open_folder(folder.path)
    assert opened.config == sealed.config  # a speed does without it
    with pytest.raises(FolderError, match=rf"model/{CALIBRATION_FILE}: {message}"):
        load_calibration(opened)


def test_what_is_no_safetensors_under_its_hash_is_named(folder: ModelFolder) -> None:
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    path = folder.path / CALIBRATION_FILE
    path.write_bytes(b"something else")
    assert sealed.config.calibration is not None
    record = sealed.config.calibration | {"sha256": hash_of_file(path)}
    with pytest.raises(FolderError, match=f"{CALIBRATION_FILE}: cannot be read as safetensors"):
        load_calibration(reseal(sealed, calibration=record))


@pytest.mark.parametrize(
    ("file", "tensor"), [("students.safetensors", "students.0"), ("model.safetensors", "encoder")]
)
def test_answers_of_other_weights_are_refused(folder: ModelFolder, file: str, tensor: str) -> None:
    # Somebody trains on and keeps early_exit.json: thresholds would be those of the old students.
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    save_file({tensor: STUDENT * 2}, folder.path / file)
    with pytest.raises(FolderError, match=f"made with another {file}; calibrate again"):
        load_calibration(reseal(sealed))


def test_answers_in_another_order_of_labels_are_refused(folder: ModelFolder) -> None:
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    labels = LABELS[::-1]
    change_config(folder.path, id2label={str(k): label for k, label in enumerate(labels)})
    with pytest.raises(FolderError, match="made with another order of labels; calibrate again"):
        load_calibration(reseal(sealed, task=SingleLabel(labels)))


def test_a_record_names_another_model_whose_answers_stand_for_labels(folder: ModelFolder) -> None:
    answered = replace(calibration(folder), truth_from="big-model")
    after = save_calibration(folder, answered, "texts.csv")
    assert load_calibration(after).truth_from == "big-model"
    record = after.config.calibration
    assert record is not None
    assert record_facts(record)["rows"].endswith("of texts.csv, answered by big-model")
    usual = save_calibration(after, calibration(folder), "dev.csv").config.calibration
    assert usual is not None
    assert "truth_from" not in usual
    assert record_facts(usual)["rows"].endswith("of dev.csv, labelled")


def test_a_record_with_a_missing_or_an_unknown_key_is_refused(folder: ModelFolder) -> None:
    record = save_calibration(folder, calibration(folder), "dev.csv").config.calibration
    assert record is not None
    for key in record:
        less = {name: value for name, value in record.items() if name != key}
        with pytest.raises(FolderError, match=rf'early_exit\.json: key "calibration\.{key}" is mi'):
            load_calibration(reseal(folder, calibration=less))
    with pytest.raises(FolderError, match=r'key "calibration\.mood" is unknown'):
        load_calibration(reseal(folder, calibration=record | {"mood": "good"}))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ({"name": "intuition"}, "unknown measure 'intuition'; known are entropy, "),
        ({"name": "entropy", "top": 3}, "measure entropy: .*'top'"),
        ({"name": "top-entropy", "top": 1}, "top must be .*at least 2, got 1"),
    ],
)
def test_a_measure_that_is_not_understood_is_named(
    folder: ModelFolder, measure: dict[str, Any], message: str
) -> None:
    record = save_calibration(folder, calibration(folder), "dev.csv").config.calibration
    assert record is not None
    sealed = reseal(folder, calibration=record | {"measure": measure})
    with pytest.raises(FolderError, match=rf"early_exit\.json: {message}"):
        load_calibration(sealed)


def test_a_measure_of_your_own_is_found_when_it_is_passed(folder: ModelFolder) -> None:
    saved = calibration(folder, measure=Own(0.7))
    sealed = save_calibration(folder, saved, "dev.csv")
    with pytest.raises(FolderError, match=r"measure 'Own'; .*from_pretrained\(\.\.\., measure="):
        load_calibration(sealed)
    found = load_calibration(sealed, Own(0.7))
    assert found.measure == Own(0.7)
    assert found.solve(Goal(saving=0.5)) == saved.solve(Goal(saving=0.5))


# What was calibrated answers for itself alone.

OTHER = Answerer("onnx", "int8")


@pytest.mark.parametrize(
    "goal",
    [Goal(max_drop=0.02), Goal(max_drop=0.2, confidence=0.9), Goal(latency_ms=3.0)],
    ids=["drop", "promise", "time"],
)
@pytest.mark.parametrize(
    ("answerer", "again"),
    [
        (OTHER, "--runtime onnx"),
        (Answerer("onnx", "fp32"), "--runtime onnx"),
        (Answerer("torch", "bf16"), "`save_calibration` of this classifier"),  # no option asks it
    ],
)
def test_another_runtime_or_precision_has_to_be_calibrated_for_what_was_measured(
    folder: ModelFolder, goal: Goal, answerer: Answerer, again: str
) -> None:
    sealed = save_calibration(folder, calibration(folder, times=TIMES), "dev.csv")
    told = f"calibrated with torch in fp32, here answers {answerer}.*{again}"
    with pytest.raises(CalibrationError, match=told):
        refuse_other_answerer(sealed, goal, answerer)
    refuse_other_answerer(sealed, goal, TORCH)


def test_where_layers_alone_are_counted_another_runtime_is_a_warning(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = save_calibration(folder, calibration(folder, answered_by=OTHER), "dev.csv")
    refuse_other_answerer(sealed, Goal(saving=0.5), OTHER)
    assert caplog.messages == []
    refuse_other_answerer(sealed, Goal(saving=0.5), TORCH)
    [line] = caplog.messages
    assert "calibrated with onnx in int8, here answers torch in fp32, so saving may" in line


def test_times_of_another_processor_are_refused(folder: ModelFolder) -> None:
    elsewhere = replace(TIMES, processor="Another 9000")
    sealed = save_calibration(folder, calibration(folder, times=elsewhere), "dev.csv")
    assert load_calibration(sealed).times == elsewhere
    with pytest.raises(CalibrationError, match=r"timed on Another 9000, this is .*--time"):
        refuse_other_answerer(sealed, Goal(latency_ms=3.0), TORCH)
    refuse_other_answerer(sealed, Goal(max_drop=0.02), TORCH)


def test_a_default_of_another_runtime_is_a_warning_and_a_promise_is_refused(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = save_calibration(folder, calibration(folder), "dev.csv")
    check_default(sealed, Goal(max_drop=0.02), OTHER)
    [line] = caplog.messages
    assert "here answers onnx in int8, so its thresholds may lose more or save less" in line
    with pytest.raises(CalibrationError, match="so nothing is promised; calibrate again"):
        check_default(sealed, Goal(max_drop=0.2, confidence=0.9), OTHER)


def test_the_default_is_the_point_of_its_goal(folder: ModelFolder) -> None:
    saved, goal = calibration(folder), Goal(saving=0.4)
    default = save_calibration(folder, saved, "dev.csv", goal).config.default
    assert default is not None
    assert default.goal == {"saving": 0.4}
    assert default.thresholds == saved.solve(goal).thresholds
    assert default.measure == {"name": "max-probability"}


# What a failed save leaves behind.


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
@pytest.mark.parametrize("times", range(3))
def test_a_full_disk_at_any_call_leaves_the_earlier_calibration(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    first = save_calibration(folder, calibration(folder), "one.csv")
    before = content(folder.path)
    allowed = iter(range(times))
    real = getattr(os, call)

    def limited(*arguments: Any, **options: Any) -> Any:
        if next(allowed, None) is None and not putting_back(call, arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    message = None
    with monkeypatch.context() as patch:
        patch.setattr(os, call, limited)
        try:
            save_calibration(first, calibration(folder, seed=2), "two.csv")
        except FolderError as error:
            message = str(error)

    source = read_record(open_folder(folder.path)).source
    if message is None:  # no more calls than allowed
        assert source == "two.csv"
    else:
        assert message.startswith(f"{folder.path}: not saved, the disk is full")
        assert content(folder.path) == before
    load_calibration(open_folder(folder.path))
    assert names_beside(folder.path) == ["model"]


def test_a_disk_that_fills_up_with_the_arrays_leaves_the_folder(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise SafetensorError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")

    before = content(folder.path)
    monkeypatch.setattr(calibration_record, "save_file", full)
    with pytest.raises(FolderError, match="model: not saved, the disk is full"):
        save_calibration(folder, calibration(folder), "dev.csv")
    assert content(folder.path) == before
    assert names_beside(folder.path) == ["model"]


def test_a_folder_that_was_replaced_meanwhile_is_not_overwritten(folder: ModelFolder) -> None:
    reseal(folder, max_length=63)
    before = content(folder.path)
    with pytest.raises(FolderError, match="was replaced since it was opened"):
        save_calibration(folder, calibration(folder), "dev.csv")
    assert content(folder.path) == before


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count how often each file, by its inode, is hashed whole."""
    counts: Counter[int] = Counter()
    real = hashlib.file_digest

    def file_digest(file: Any, name: str) -> Any:
        counts[os.fstat(file.fileno()).st_ino] += 1
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return counts


def test_a_calibration_neither_copies_nor_reads_weights_and_exports(
    folder: ModelFolder, reads: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder.path, EXPORT)
    kept = ("model.safetensors", "students.safetensors", *EXPORT)
    for name in kept:  # as every save leaves them
        (folder.path / name).chmod((folder.path / "config.json").stat().st_mode)
    inodes = {name: (folder.path / name).stat().st_ino for name in kept}
    copied: list[str] = []

    def copy(source: Path, place: Path) -> str:
        copied.append(source.relative_to(folder.path).as_posix())
        return copy_file(source, place)

    monkeypatch.setattr(write, "copy_file", copy)
    saved = save_calibration(folder, calibration(folder), "dev.csv")

    assert {name: (folder.path / name).stat().st_ino for name in kept} == inodes
    assert all((folder.path / name).stat().st_nlink == 1 for name in kept)  # the old name is gone
    assert not reads.keys() & set(inodes.values())
    assert not set(copied) & set(kept)
    assert open_folder(folder.path).config == saved.config
    assert saved.is_in_place


def test_a_second_calibration_leaves_what_was_opened_before_as_it_was(folder: ModelFolder) -> None:
    first = save_calibration(folder, calibration(folder), "first.csv")
    before = {name: file.read_bytes() for name, file in first.files.items()}
    save_calibration(first, calibration(folder, seed=1), "second.csv")

    assert {name: file.read_bytes() for name, file in first.files.items()} == before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["written into", "replaced"])
def test_a_file_that_changed_since_the_folder_was_opened_is_not_taken_over(
    folder: ModelFolder, name: str, how: str
) -> None:
    path = folder.path / name
    data = path.read_bytes()
    if how == "replaced":
        path.unlink()
    path.write_bytes(data + b" ")
    os.utime(path, ns=(1, 1))
    before = content(folder.path)

    with pytest.raises(FolderError, match="model: was replaced since it was opened"):
        save_calibration(folder, calibration(folder), "dev.csv")
    assert content(folder.path) == before


def test_a_disk_without_second_names_gets_copies(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    put(folder.path, EXPORT)
    monkeypatch.setattr(os, "link", no_links)
    before = content(folder.path)
    saved = save_calibration(folder, calibration(folder), "dev.csv")

    after = content(folder.path)
    assert {name: after[name] for name in EXPORT} == EXPORT
    assert after["model.safetensors"] == before["model.safetensors"]
    assert all(file.is_in_place for file in saved.files.values())


def test_a_save_elsewhere_is_a_copy_of_every_file(folder: ModelFolder, tmp_path: Path) -> None:
    put(folder.path, EXPORT)
    copy_folder(folder, tmp_path / "copy")

    assert content(tmp_path / "copy") == content(folder.path)
    for name in content(folder.path):
        assert (folder.path / name).stat().st_nlink == 1


def test_a_failed_calibration_changes_no_mode(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "model.safetensors"
    path.chmod(0o440)

    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(write, "_swap", broken)  # after the modes are set

    with pytest.raises(FolderError, match="not saved"):
        save_calibration(folder, calibration(folder), "dev.csv")
    assert path.stat().st_mode & 0o777 == 0o440
