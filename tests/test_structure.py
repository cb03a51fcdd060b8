"""The sources keep to the house: short modules and functions, no cycle, a test file for each.

How each figure is counted: benchmarks/structure.py.
"""

from pathlib import Path
from statistics import median

from structure import Sources, length, twin_of

SOURCES = Sources(Path(__file__).parents[1])
MODULES = SOURCES.modules.values()
FUNCTIONS = {
    f"{module.name}.{function.name}": length(function)
    for module in MODULES
    for function in module.functions
}
LONGEST_MODULE, LONGEST_FUNCTION, MEDIAN_FUNCTION, IMPORTS_IN_FUNCTIONS = 400, 60, 7, 25


def test_no_module_is_too_long_to_be_read_in_one_go() -> None:
    lines = {module.name: module.lines for module in MODULES}
    assert {name: count for name, count in lines.items() if count > LONGEST_MODULE} == {}


def test_no_function_is_a_wall() -> None:
    # From `def` to its end with the signature, without decorators and docstring.
    assert {name: count for name, count in FUNCTIONS.items() if count > LONGEST_FUNCTION} == {}


def test_functions_are_short() -> None:
    assert median(FUNCTIONS.values()) <= MEDIAN_FUNCTION


def test_few_imports_are_hidden_in_functions() -> None:
    inside = {module.name: len(module.inside_functions) for module in MODULES}
    there = {name: count for name, count in inside.items() if count}
    assert sum(there.values()) <= IMPORTS_IN_FUNCTIONS, there


def test_no_module_needs_itself_to_be_imported() -> None:
    assert SOURCES.cycles() == []


def test_every_module_has_tests_of_its_name_in_the_same_room() -> None:
    assert {name: twin_of(name) for name in SOURCES.without_twin()} == {}


def test_what_is_measured_is_what_stands_there(tmp_path: Path) -> None:
    package = tmp_path / "src" / "fastbert" / "room"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from fastbert.room import b\n"
        "if TYPE_CHECKING:\n"
        "    from fastbert.room import c\n"
        "@property\n"
        "def f(x: int,\n"
        "      y: int) -> int:\n"
        '    """Say\n'
        '    what."""\n'
        "    import json\n"
        "    def inner() -> int:\n"
        "        import csv\n"
        "        return 1\n"
        "    return x\n"
    )
    (package / "b.py").write_text(
        "try:\n    import torch.nn\nfinally:\n    from fastbert.room.c import d\n"
    )
    (package / "c.py").write_text("import fastbert.room.a\n")
    (tmp_path / "tests" / "room").mkdir(parents=True)
    (tmp_path / "tests" / "room" / "test_b.py").touch()
    (tmp_path / "tests" / "test_c.py").touch()  # not in its room

    sources = Sources(tmp_path)
    a = sources.modules["fastbert.room.a"]
    assert (a.lines, [length(function) for function in a.functions]) == (14, [7, 3])
    assert len(a.inside_functions) == 2
    rooms = [f"fastbert.room.{name}" for name in "abc"]
    assert sources.cycles() == rooms  # a needs b, b needs c, c needs a
    assert sources.reach("torch") == set(rooms)
    assert sources.reach("json") == set()
    assert sources.without_twin() == ["fastbert.room.a", "fastbert.room.c"]
