"""No checkpoint's own code is ever run, and nobody is asked on standard input whether to."""

import ast
from pathlib import Path

import fastbert

SOURCES = sorted(Path(fastbert.__file__).parent.rglob("*.py"))
OWN = {"FastBertClassifier", "library.FastBertClassifier", "cls", "kind"}


def loads(source: Path) -> list[tuple[str, ast.Call]]:
    """Return the calls by which transformers would load something, and where they stand."""
    calls = [
        node
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    return [(f"{source.name}:{call.lineno}", call) for call in calls if is_load(call.func)]


def is_load(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute):
        return called.attr == "from_pretrained" and ast.unparse(called.value) not in OWN
    return isinstance(called, ast.Name) and called.id == "pipeline"


def refuses(keyword: ast.keyword) -> bool:
    if keyword.arg is None:  # **LOADING, which has it
        return ast.unparse(keyword.value) == "LOADING"
    return keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) == "False"


def test_every_load_refuses_code_from_the_checkpoint() -> None:
    from fastbert.nn.loading import LOADING

    assert LOADING["trust_remote_code"] is False
    found = [load for source in SOURCES for load in loads(source)]
    assert len(found) >= 5
    assert [place for place, call in found if not any(map(refuses, call.keywords))] == []
