"""An exported model is run where neither torch nor transformers can be imported."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.exported import export_all
from tests.tiny_data import examples, write_csv
from tests.tiny_folder import save_model

COMMAND = Path(sysconfig.get_path("scripts")) / "fastbert"
FORBIDDEN = ("torch", "transformers", "sklearn", "accelerate", "datasets", "nncf", "onnxscript")

PROGRAM = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Forbidden())
sys.argv = ["fastbert", *{arguments}]
from fastbert.cli import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("model") / "model", "bert")
    export_all(folder, [("onnx", "fp32"), ("openvino", "fp32")])
    return folder


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("command", ["predict", "evaluate", "calibrate"])
def test_commands_need_the_runtime_alone(
    folder: Path, tmp_path: Path, runtime: str, command: str
) -> None:
    texts = write_csv(tmp_path / "texts.csv", examples(40, seed=1))
    other = "onnxruntime" if runtime == "openvino" else "openvino"
    arguments = [command, str(folder), str(texts), "--runtime", runtime]
    program = PROGRAM.format(
        forbidden=(*FORBIDDEN, other, *(["onnx"] if other == "onnxruntime" else [])),
        arguments=arguments,
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout
