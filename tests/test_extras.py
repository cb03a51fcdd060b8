"""Whatever is not installed is named with the extra that holds it, by every way to it."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structure import Sources

import fastbert
from fastbert.classifier import FastBertClassifier
from fastbert.cli.run import run
from fastbert.errors import MissingExtraError
from fastbert.export import export as export_module
from fastbert.extras import needs_extra
from tests.tiny_data import examples, write_csv
from tests.tiny_folder import save_model

SOURCES = Sources(Path(__file__).parents[1])


@pytest.fixture
def uninstall(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def uninstall(package: str) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        for module in SOURCES.reach(package):
            monkeypatch.delitem(sys.modules, module, raising=False)
            parent, _, name = module.rpartition(".")
            if parent in sys.modules:  # which `from parent import name` asks first
                monkeypatch.delattr(sys.modules[parent], name, raising=False)

    return uninstall


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model", "bert")


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("train TEXTS --dev TEXTS --model m --output OUT", "torch", "train"),
        ("distill m TEXTS --output OUT", "torch", "train"),
        ("evaluate MODEL TEXTS", "torch", "train"),
        ("predict MODEL TEXTS", "torch", "train"),
        ("calibrate MODEL TEXTS", "torch", "train"),
        ("calibrate MODEL TEXTS --measure learned", "sklearn.linear_model", "train"),
        ("export MODEL", "onnx", "export"),
        ("report MODEL", "jinja2", "report"),
        ("report MODEL", "matplotlib", "report"),
    ],
)
def test_every_command_names_the_extra_that_is_missing(
    command: str,
    package: str,
    extra: str,
    folder: Path,
    tmp_path: Path,
    uninstall: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = write_csv(tmp_path / "texts.csv", examples(40, seed=1))
    places = {"TEXTS": str(texts), "MODEL": str(folder), "OUT": str(tmp_path / "out")}
    uninstall(package)

    assert run([places.get(word, word) for word in command.split()]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert package in line
    assert line.endswith(f"pip install 'fastbert-kit[{extra}]'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "module", "function", "extra"),
    [
        ("export m", "export.export", "export_model", "export"),
        ("bench m TEXTS", "bench.run", "bench", "export"),
        ("demo", "demo", "run_demo", "demo"),
    ],
)
def test_what_is_imported_on_the_way_is_named_too(
    command: str,
    module: str,
    function: str,
    extra: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def deep(*_arguments: Any, **_options: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    texts = write_csv(tmp_path / "texts.csv", examples(4))
    monkeypatch.setattr(f"fastbert.{module}.{function}", deep)
    places = {"TEXTS": str(texts), "m": str(folder)}
    assert run([places.get(word, word) for word in command.split()]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "needs onnxscript, which is not installed" in line
    assert line.endswith(f"pip install 'fastbert-kit[{extra}]'")


def test_a_learned_measure_is_refused_before_the_model_runs(
    folder: Path, uninstall: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = FastBertClassifier.from_pretrained(folder)
    texts = [row.text for row in examples(40)]
    monkeypatch.setattr(FastBertClassifier, "record_tokens", None)
    uninstall("sklearn.linear_model")
    with pytest.raises(MissingExtraError, match=r"learned .*needs sklearn.*kit\[train\]'$"):
        classifier.calibrate(texts, measure="learned")


def test_int8_for_openvino_names_its_extra(
    tmp_path: Path, uninstall: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def read_model(self, model: bytes) -> bytes:
            return model

    class Piece:
        def SerializeToString(self) -> bytes:  # noqa: N802  # as protobuf calls it
            return b""

    monkeypatch.setattr("openvino.Core", Core)
    uninstall("nncf")
    with pytest.raises(MissingExtraError, match=r"int8 .* needs nncf, .*kit\[export\]'$"):
        inspect.unwrap(export_module._write_openvino)(Piece(), tmp_path / "piece.xml", "int8")


@pytest.mark.parametrize("name", ["train", "distill", "StudentSettings"])
def test_public_functions_name_their_extra(name: str, uninstall: Callable[[str], None]) -> None:
    uninstall("torch")
    with pytest.raises(MissingExtraError, match=r"pip install 'fastbert-kit\[train\]'"):
        getattr(fastbert, name)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), needs_extra("train", "training"):
        raise KeyError
