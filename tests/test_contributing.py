import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fastbert.exits.criteria import Seen
from tests.seen import seen

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_the_example_criterion_lets_rows_leave_when_two_exits_agree() -> None:
    [source] = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"np": np, "Bool": Bool, "Seen": Seen}
    exec(source, names)
    criterion = names["AgreementCriterion"]()

    answers = np.array([[0, 2, 1], [2, 2, 0], [2, 1, 1], [2, 1, 0]])  # [exits, rows]
    logits = np.eye(4)[answers]  # four classes
    leaving = [criterion.leaves(seen(logits[: exits + 1])).tolist() for exits in range(4)]
    assert leaving == [
        [False, False, False],
        [False, True, False],
        [True, False, False],
        [True, True, False],
    ]


def reading_order() -> list[set[str]]:
    """Return the rooms and modules that each entry of the list in CONTRIBUTING.md is about."""
    text = CONTRIBUTING.read_text("utf-8").partition("## Reading order")[2].partition("\n## ")[0]
    entries = re.findall(r"^\d+\. (.*?)(?=^\d+\. |\n\n)", text, re.DOTALL | re.MULTILINE)
    heading = r"(?:^|(?<=\n)|(?<=\. ))\s*`([a-z_]+)(?:/|\.py)`:"
    return [set(re.findall(heading, entry)) for entry in entries]


def test_every_room_and_module_of_the_package_is_in_the_reading_order() -> None:
    package = ROOT / "src" / "fastbert"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    named = [name for entry in reading_order() for name in entry]
    assert sorted(named) == sorted(rooms | modules)


def test_the_reading_order_is_that_of_the_import_contract_from_the_bottom_up() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if each["id"] == "layers"]
    contract = [set(re.findall(r"\w+", layer)) for layer in reversed(layers)]
    assert reading_order() == contract


def test_the_reading_order_names_modules_that_are_there() -> None:
    text = CONTRIBUTING.read_text("utf-8").partition("## Reading order")[2].partition("\n## ")[0]
    there = {path.name for path in (ROOT / "src" / "fastbert").rglob("*.py")}
    assert {path.rpartition("/")[2] for path in re.findall(r"`([\w/]+\.py)`", text)} <= there | {
        "test_engine.py"
    }
