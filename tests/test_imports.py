import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
COMMAND = Path(sysconfig.get_path("scripts")) / "fastbert"


def core_modules() -> list[str]:
    """Return the modules that the import contract keeps free of torch and transformers."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    [core] = [contract for contract in contracts if contract["id"] == "core"]
    return list(core["source_modules"])


def imported_by(*arguments: str) -> set[str]:
    """Run Python in a process of its own and return every module that it imported."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True
    )
    lines = run.stderr.splitlines()
    report = [line for line in lines if line.startswith("import time:")]
    assert run.returncode == 0, "\n".join(line for line in lines if line not in report)
    return {line.rpartition("|")[2].strip() for line in report}


# The import contract reads our sources only; these also see what our dependencies import.
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-c", "import fastbert"], id="import fastbert"),
        pytest.param([str(COMMAND), "--help"], id="fastbert --help"),
        pytest.param(["-c", f"import {', '.join(core_modules())}"], id="import the core"),
    ],
)
def test_torch_and_transformers_are_not_loaded_by(arguments: list[str]) -> None:
    modules = imported_by(*arguments)

    assert "fastbert" in modules
    assert not modules & {"torch", "transformers"}
