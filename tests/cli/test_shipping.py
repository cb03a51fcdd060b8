"""Exporting, timing and inspecting from the command line."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.cli.run import run
from fastbert.errors import ExportError
from fastbert.exits.measures import (
    DEFAULT_MEASURE,
)
from tests.cli.commands import CALIBRATION_ROWS, Capture, Trained, only_line


def test_an_export_is_compared_shown_and_used(
    trained: Trained, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    exported = tmp_path / "exported"
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(exported)
    options = ["--runtime", "onnx", "--precision", "fp32", "--data", str(texts)]
    assert run(["export", str(exported), *options]) == 0
    shown = capsys.readouterr().out
    assert "onnx, fp32" in shown
    assert f"rows of {texts.name}" in shown
    assert f"Next: fastbert calibrate {exported} DEV.csv --runtime onnx" in shown
    assert f"fastbert predict {exported} TEXTS.csv --runtime onnx" in shown

    assert run(["inspect", str(exported)]) == 0
    assert "compared with torch" in capsys.readouterr().out
    answers = []
    for runtime in ("auto", "torch"):
        assert run(["predict", str(exported), str(texts), "--runtime", runtime]) == 0
        lines = capsys.readouterr().out.splitlines()
        answers.append([json.loads(line)["label"] for line in lines])
    assert answers[0] == answers[1]

    assert run(["export", str(exported), "--runtime", "onnx", "--precision", "bf16"]) == 1
    assert only_line(capsys.readouterr().err) == (
        "error: onnx computes in fp32 or int8, not in bf16"
    )


def test_where_an_export_answers_calibrating_times_its_parts(
    trained: Trained, dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    exported = str(tmp_path / "exported")
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(exported)
    assert run(["export", exported, "--runtime", "onnx", "--precision", "fp32"]) == 0
    told = "Texts were timed one at a time, in "
    for options, timed in (
        ("--runtime onnx", True), ("--runtime onnx --no-time", False), ("--runtime torch", False)
    ):  # fmt: skip
        capsys.readouterr()
        assert run(["calibrate", exported, str(dev), *options.split()]) == 0
        assert (told in capsys.readouterr().out) is timed
        found = FastBertClassifier.from_pretrained(exported).calibration
        assert (found.times is not None) is timed


def test_auto_shows_what_was_tried_and_keeps_the_fastest(
    trained: Trained, tmp_path: Path, capsys: Capture
) -> None:
    exported = tmp_path / "exported"
    FastBertClassifier.from_pretrained(trained.folder).save_pretrained(exported)
    assert run(["export", str(exported), "--runtime", "auto", "--precision", "fp32"]) == 0
    shown = capsys.readouterr().out
    kept = shown.partition(" fp32*")[0].split()[-1]
    assert kept in {"openvino", "onnx"}
    assert "* kept" in shown
    assert f"{kept}, fp32" in shown
    assert f"--runtime {kept}" in shown
    assert [path.name for path in exported.iterdir() if path.is_dir()] == [kept]

    other = ({"openvino", "onnx"} - {kept}).pop()
    assert run(["export", str(exported), "--runtime", other]) == 0
    capsys.readouterr()
    assert run(["inspect", str(exported)]) == 0
    assert capsys.readouterr().out.count("ms a text alone") == 2

    assert run(["export", str(exported), "--runtime", "auto", "--adaptive"]) == 2
    assert "ask for it with --runtime onnx" in only_line(capsys.readouterr().err)


def test_bench_prints_one_json_object(
    trained: Trained, texts: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbert.bench.run.plain_contenders", lambda *_, **__: nullcontext([]))
    monkeypatch.setattr("fastbert.bench.run.measure_rates", lambda *_, **__: ((), ()))
    options = ["--runtime", "torch", "--rows", "6", "--latency-rows", "2", "--rounds", "1"]
    assert run(["bench", trained.folder, str(texts), *options, "--speed", "0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"machine", "versions", "peak", "contenders"} <= result.keys()


@pytest.mark.parametrize(
    ("options", "amount"),
    [
        ([], {}),
        (["--quick"], {"rows": 200, "latency_rows": 40, "rounds": 3}),
        (["--quick", "--rows", "7"], {"rows": 7, "latency_rows": 40, "rounds": 3}),
        (["--latency-rows", "2", "--rounds", "9"], {"latency_rows": 2, "rounds": 9}),
    ],
)
def test_a_quick_bench_times_less_of_what_is_not_named(
    options: list[str],
    amount: dict[str, int],
    trained: Trained,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, int] = {}

    def note(*_: Any, **named: Any) -> None:
        asked.update(
            {name: named[name] for name in ("rows", "latency_rows", "rounds") & named.keys()}
        )
        raise ExportError("nobody can take part")

    monkeypatch.setattr("fastbert.bench.run.bench", note)
    assert run(["bench", trained.folder, str(texts), *options]) == 1
    assert asked == amount


def test_inspection_shows_what_the_folder_holds(trained: Trained, capsys: Capture) -> None:
    assert run(["inspect", trained.folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    config = json.loads((Path(trained.folder) / "early_exit.json").read_text("utf-8"))
    del config["hashes"]
    assert facts == config | {
        "family": "bert",
        "width": 24,
        "bytes": {path.name: path.stat().st_size for path in Path(trained.folder).iterdir()},
        "exports": [],
        "export_times": {},
    }

    assert run(["inspect", trained.folder]) == 0
    shown = capsys.readouterr().out
    for words in ("bert", "4, width 24", "negative, neutral, positive", "fine_tuning.epochs"):
        assert words in shown
    assert "students.safetensors" in shown
    assert shown.count("/4 ") == len(config["evaluation"])


def test_inspection_shows_the_calibration(calibrated: Trained, capsys: Capture) -> None:
    assert run(["inspect", calibrated.folder]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"rows {CALIBRATION_ROWS} of dev.csv, labelled" in lines
    assert f"measure {DEFAULT_MEASURE}" in lines
    assert "answered by torch in fp32" in lines
    assert any(line.startswith("layer, one text ") and line.endswith(" ms") for line in lines)
    assert any(line.startswith("calibration.safetensors ") for line in lines)
    assert not any("history" in line for line in lines)

    assert run(["inspect", calibrated.folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["calibration"]["rows"] == CALIBRATION_ROWS
    assert facts["calibration"]["labeled"] is True
    assert facts["training"]["history"].keys() == {"teacher", "students"}
