"""What `from fastbert import ...` offers, against what there is and what the docs use."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import fastbert
from fastbert import errors

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
NEED_TORCH = {
    "Contender",
    "SchemeSettings",
    "StageSettings",
    "StudentSettings",
    "compare",
    "distill",
    "train",
}


def test_every_exported_name_can_be_imported() -> None:
    assert len(set(fastbert.__all__)) == len(fastbert.__all__)
    assert list(fastbert.__all__) == sorted(fastbert.__all__, key=_order)
    for name in fastbert.__all__:
        assert not isinstance(getattr(fastbert, name), ModuleType)
    assert set(fastbert.__all__) <= set(dir(fastbert))


def _order(name: str) -> tuple[bool, str]:
    """Return where ruff sorts a name: classes before functions."""
    return (not name[0].isupper(), name)


def test_every_error_is_exported() -> None:
    assert {name for name in vars(errors) if name.endswith("Error")} <= set(fastbert.__all__)


def test_the_docs_import_nothing_from_the_package_that_is_not_exported() -> None:
    imported = {
        name.strip()
        for path in DOCS
        for names in re.findall(r"^from fastbert import (.*)$", path.read_text("utf-8"), re.M)
        for name in names.split(",")
    }
    assert {"FastBertClassifier", "train"} <= imported <= set(fastbert.__all__)


def test_what_needs_no_torch_loads_none() -> None:
    light = sorted(set(fastbert.__all__) - NEED_TORCH)
    program = f"import sys; from fastbert import {', '.join(light)}\n"
    program += "print({'torch', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout == "set()\n", shown.stderr


def test_what_functions_take_is_what_is_exported() -> None:
    examples = fastbert.load_examples.__annotations__
    assert examples["columns"] is fastbert.Columns
    assert fastbert.evaluate.__annotations__["classifier"] is fastbert.FastBertClassifier
    assert fastbert.StudentSettings().stage.__class__ is fastbert.StageSettings
