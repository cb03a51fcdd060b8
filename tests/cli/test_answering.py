"""Evaluating, predicting and calibrating from the command line."""

import gzip
import io
import json
import os
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbert import evaluation
from fastbert.classifier import FastBertClassifier
from fastbert.cli.run import run
from fastbert.exits.measures import (
    DEFAULT_MEASURE,
    MEASURES,
    LearnedExit,
    Margin,
)
from fastbert.folder import config as folder_config
from fastbert.folder import read, write
from fastbert.processor import processor_name
from fastbert.tasks.single_label import SingleLabel
from tests.cli.commands import (
    CALIBRATION_ROWS,
    GOOD,
    Capture,
    Trained,
    answers,
    interrupt,
    only_line,
    raising,
)
from tests.tiny_data import (
    LABELS,
    examples,
    write_csv,
)

# Evaluation.

FIGURES = {
    "speed", "accuracy", "macro_f1", "rows", "mean_exit_layer", "layers", "speedup_flops",
    "speedup_paper", "seconds", "rows_per_second", "exit_layers",
}  # fmt: skip


def test_evaluation_prints_an_array_of_figures(
    trained: Trained, texts: Path, capsys: Capture
) -> None:
    command = ["evaluate", trained.folder, str(texts), "--speed", "0.4", "--speed", "0"]
    assert run([*command, "--json", "--batch-size", "5"]) == 0

    shown = capsys.readouterr()
    fast, full = json.loads(shown.out)
    assert (fast["speed"], full["speed"]) == (0.4, 0)
    assert full.keys() == fast.keys() == FIGURES
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
    monkeypatch.setattr(FastBertClassifier, "classify", interrupt)
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


# Calibration, and goals in place of a speed.


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
    for name in SingleLabel.measures:
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
    assert row.keys() == FIGURES | {"goal", "confidence", "thresholds"}
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
    monkeypatch.setattr(evaluation, "drift_of", raising(AssertionError("it was")))
    assert run(["evaluate", copied, str(texts), "--speed", "0.5"]) == 0


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
