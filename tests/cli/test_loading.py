"""What commands read: files with and without labels, and folders that are damaged."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.cli.loading import read, read_with_labels_if_any
from fastbert.cli.run import run
from fastbert.data.example import Columns, Example
from fastbert.errors import DataError
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from tests.cli.commands import Capture, Trained, only_line
from tests.tiny_data import (
    LABELS,
    write_csv,
)


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


def test_texts_that_are_empty_are_read_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text\nlovely\n  \nawful\n")
    assert [row.text.strip() for row in read(path, Columns())] == [
        "lovely", "", "awful"
    ]  # fmt: skip
    assert caplog.messages == [f"{path}: 1 of 3 texts are empty"]


@pytest.mark.parametrize(("label", "known"), [(LABELS[1], True), ("strange", False)])
def test_labels_are_read_where_the_model_has_them(
    label: str, known: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Example("made", text, label=label) for text in ("word1", "word2")]
    path = write_csv(tmp_path / "t.csv", rows)
    found = read_with_labels_if_any(path, Columns(), SingleLabel(LABELS))
    assert [row.text for row in found] == ["word1", "word2"]
    assert {row.label for row in found} == {label if known else None}
    assert [line.partition(":")[0] for line in caplog.messages] == (
        [] if known else ["no accuracy is shown"]
    )


def test_a_column_of_labels_that_was_named_is_not_passed_over(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [Example("made", "word1", label="strange")])
    with pytest.raises(DataError, match="no column 'topic'"):
        read_with_labels_if_any(path, Columns(label="topic"), SingleLabel(LABELS))
    with pytest.raises(DataError, match="no column 'joy'"):
        read_with_labels_if_any(path, Columns(labels=("joy", "anger")), SingleLabel(LABELS))


def test_what_is_not_shown_has_the_name_of_the_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_csv(tmp_path / "t.csv", [Example("made", "word1", label="strange")])
    read_with_labels_if_any(path, Columns(), MultiLabel(LABELS))
    assert [line.partition(":")[0] for line in caplog.messages] == ["no micro F1 is shown"]
