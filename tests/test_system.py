"""What a bug report says of the machine: enough to find the fault, nothing about its owner."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fastbert import system
from fastbert.cli.run import run


def test_installed_packages_have_versions_and_others_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "PACKAGES", ("numpy", "no-such-package"))
    assert system.versions() == {"numpy": version("numpy")}


def test_a_runtime_that_is_absent_is_left_out_and_a_broken_one_has_no_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"openvino", "onnxruntime"}
    monkeypatch.setattr(system, "find_spec", found.__contains__)
    monkeypatch.setitem(sys.modules, "openvino", None)  # importing it is an ImportError
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    assert system.runtimes() == {"openvino": [], "onnx": ["fp32", "int8"]}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [(["FP32", "BF16", "INT8"], ["fp32", "bf16", "int8"]), (["FP32", "INT8"], ["fp32", "int8"])],
)
def test_openvino_has_bf16_where_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[str], expected: list[str]
) -> None:
    class Core:
        def get_property(self, *_: str) -> list[str]:
            return capabilities

    class OpenVino:
        def __init__(self) -> None:
            self.Core = Core

    monkeypatch.setattr(system, "find_spec", "openvino".__eq__)
    monkeypatch.setattr(system, "import_module", lambda _: OpenVino())
    assert system.runtimes() == {"openvino": expected}


def test_inspection_of_the_system_shows_the_same_in_tables_and_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["inspect", "--system", "--json"]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(printed)
    assert facts == system.system_facts()
    assert str(Path.home()) not in printed
    assert sys.prefix not in printed

    assert run(["inspect", "--system"]) == 0
    shown = capsys.readouterr().out
    for words in (facts["processor"], facts["python"], *facts["versions"], *facts["runtimes"]):
        assert words in shown


@pytest.mark.parametrize("arguments", [[], ["model", "--system"]])
def test_inspection_takes_a_folder_or_the_system(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", *arguments]) == 2
    assert "takes either DIR, a model folder, or --system" in capsys.readouterr().err


def test_the_system_is_shown_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from fastbert.cli.run import run; "
        "code = run(['inspect', '--system', '--json']); "
        "print(sorted({'transformers', 'torch'} & set(sys.modules)), file=sys.stderr); "
        "sys.exit(code)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.strip() == "['torch']"  # the one set above
    assert "torch" not in json.loads(shown.stdout)["runtimes"]
