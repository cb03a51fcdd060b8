"""The plain contenders: they answer what the model answers, and leave no files behind."""

import logging
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fastbert.bench import contenders
from fastbert.bench.contenders import Contender
from fastbert.bench.graph import save_plain_graph
from fastbert.bench.plain import PIPELINE, plain_contenders
from fastbert.bench.results import Failure
from fastbert.classifier import FastBertClassifier
from fastbert.folder.read import ModelFolder
from fastbert.tasks.multi_label import MultiLabel
from fastbert.text import Text
from tests.bench import models
from tests.bench.models import varied_folder

WORDS = [str(text) for text in models.TEXTS]
TEXTS: list[Text] = [*WORDS, *zip(WORDS[:6], WORDS[6:12], strict=True), " ".join(WORDS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return varied_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def graph(folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "plain.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        save_plain_graph(folder, gives_segments=True, path=path)
    return path


def expected_classes(folder: ModelFolder) -> list[int]:
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    found: list[int] = classifier.predict_proba(TEXTS, 0.0).argmax(axis=-1).tolist()
    return found


def test_plain_contenders_answer_several_labels_as_the_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = varied_folder(tmp_path / "labels", kind=MultiLabel)
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    expected = classifier.predict_proba(TEXTS, 0.0) > 0.5
    assert len(set(expected.sum(axis=-1).tolist())) > 1  # some have more labels than others
    with plain_contenders(folder, 1, []) as field:
        in_fp32 = {entry.name: entry for entry in field if entry.precision == "fp32"}
        assert {PIPELINE, f"{PIPELINE}, sorted", "ONNX Runtime fp32"} <= in_fp32.keys()
        for name, entry in in_fp32.items():
            assert answers_alike(entry, expected), name


def answers_alike(entry: Contender, expected: list[int] | np.ndarray) -> bool:
    together, alone = entry.answer(TEXTS, 7), [entry.answer([text], 1) for text in TEXTS]
    assert together.exit_layer is None
    one_by_one = np.concatenate([answer.decisions for answer in alone])
    return bool(
        np.array_equal(together.decisions, expected) and np.array_equal(one_by_one, expected)
    )


def test_plain_contenders_answer_as_the_model(
    folder: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = expected_classes(folder)
    assert len(set(expected)) > 1
    with plain_contenders(folder, 1, []) as field:
        in_fp32 = [entry for entry in field if entry.precision == "fp32"]
        assert [entry.name for entry in in_fp32] == [
            PIPELINE,
            f"{PIPELINE}, sorted",
            "ONNX Runtime fp32",
            "OpenVINO fp32",
        ]
        for entry in in_fp32:
            assert answers_alike(entry, expected), entry.name
        others = {entry.name: entry for entry in field if entry.precision != "fp32"}
        assert {"ONNX Runtime int8", "OpenVINO int8"} <= others.keys()
        for entry in others.values():  # coarser arithmetic, which may turn a close call
            assert np.mean(entry.answer(TEXTS, 7).decisions == expected) > 0.8, entry.name
        assert not any(entry.is_ours for entry in field)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().out == ""  # where the command prints its JSON
    assert logging.root.manager.disable == logging.NOTSET


def test_an_int8_that_fails_does_not_end_the_others(
    folder: ModelFolder, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(
        "fastbert.bench.graph.save_plain_graph",
        lambda folder, gives_segments, path: shutil.copytree(
            graph.parent, path.parent, dirs_exist_ok=True
        ),
    )

    def fails(graph: Path) -> Path:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr("fastbert.bench.plain._onnx_int8", fails)
    failures: list[Failure] = []
    with plain_contenders(folder, 1, failures) as field:
        names = {entry.name for entry in field}
    assert failures == [Failure("ONNX Runtime int8", "RuntimeError: no such instruction")]
    assert {PIPELINE, "ONNX Runtime fp32", "OpenVINO fp32"} <= names


def test_the_weights_of_the_plain_graph_lie_beside_it(graph: Path) -> None:
    weights = graph.with_suffix(".bin")
    assert weights.stat().st_size > graph.stat().st_size


def test_no_code_of_a_checkpoint_is_run(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def pipeline(*_: object, **options: object) -> None:
        given.update(options)

    monkeypatch.setattr("transformers.pipeline", pipeline)
    monkeypatch.setattr("fastbert.bench.plain._graphs", lambda *_: [])
    with plain_contenders(folder, 1, []):
        assert given["trust_remote_code"] is False


def test_the_papers_head_takes_part_but_for_the_pipeline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    folder = varied_folder(tmp_path / "paper", "paper")
    expected = expected_classes(folder)
    with plain_contenders(folder, 1, []) as field:
        assert f"{PIPELINE} is left out" in caplog.text
        assert {entry.name for entry in field} >= {"ONNX Runtime fp32", "OpenVINO fp32"}
        for entry in field:
            if entry.precision == "fp32":
                assert answers_alike(entry, expected), entry.name


@pytest.mark.parametrize(
    ("absent", "left_out", "stays"),
    [
        ("openvino", "OpenVINO fp32", "ONNX Runtime int8"),
        ("onnxruntime", "ONNX Runtime int8", "OpenVINO fp32"),
        ("nncf", "OpenVINO int8", "OpenVINO fp32"),
        ("onnx", "ONNX Runtime fp32", PIPELINE),
    ],
)
def test_a_runtime_that_is_not_installed_is_left_out(
    absent: str,
    left_out: str,
    stays: str,
    folder: ModelFolder,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    monkeypatch.setattr(
        contenders, "find_spec", lambda name: None if name == absent else find_spec(name)
    )
    monkeypatch.setattr(
        "fastbert.bench.graph.save_plain_graph",
        lambda folder, gives_segments, path: shutil.copytree(
            graph.parent, path.parent, dirs_exist_ok=True
        ),
    )
    with caplog.at_level(logging.WARNING), plain_contenders(folder, 1, []) as field:
        names = {entry.name for entry in field}
    assert stays in names
    assert left_out not in names
    assert [f"it needs {absent}: pip install" in line for line in caplog.messages] == [True]
