"""Measure the structure of the sources: sizes, functions, documentation, imports and twins.

Usage: python benchmarks/structure.py [ROOT]

ROOT is a checkout; by default the one this file is in. Nothing is imported, only parsed, so an
older commit can be measured as well. `tests/test_structure.py` holds the sources to the bars.

How it is counted: a file has all its lines, blank ones included. A function (or method) has the
lines from its `def` to its end, without decorators and docstring, but with its signature; what is
nested in it counts to it and by itself.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

PACKAGE = "fastbert"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file.

    Args:
        path: Where it lies.
        name: What it is called in an import.
    """

    path: Path
    name: str

    @cached_property
    def source(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def lines(self) -> int:
        return len(self.source.splitlines())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @cached_property
    def inside_functions(self) -> list[ast.stmt]:
        """The import statements that are run when a function is called."""
        found = {id(node): node for function in self.functions for node in _imports(function)}
        return list(found.values())

    @cached_property
    def at_import(self) -> list[ast.stmt]:
        """The import statements that are run when the module is imported."""
        return list(_imports_at_import(self.tree.body))


@dataclass(frozen=True)
class Sources:
    """The modules of a package and its tests.

    Args:
        root: The checkout.
    """

    root: Path

    @cached_property
    def modules(self) -> dict[str, Module]:
        """The modules of the package, by name."""
        source = self.root / "src"
        found = [
            Module(path, ".".join(path.relative_to(source).with_suffix("").parts))
            for path in sorted((source / PACKAGE).rglob("*.py"))
        ]
        named = [Module(each.path, each.name.removesuffix(".__init__")) for each in found]
        return {module.name: module for module in named}

    @cached_property
    def tests(self) -> list[Module]:
        paths = sorted((self.root / "tests").rglob("*.py"))
        return [Module(path, str(path.relative_to(self.root))) for path in paths]

    def imported(self, module: Module, *, everywhere: bool = False) -> set[str]:
        """Return what a module imports when it is imported: modules of ours, and packages' names.

        Args:
            module: Which one.
            everywhere: Count the imports inside functions as well.
        """
        statements = module.at_import + (module.inside_functions if everywhere else [])
        return {name for node in statements for name in self._targets(node)} - {module.name}

    def _targets(self, node: ast.stmt) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in self.modules else str(node.module)

    def reach(self, target: str) -> set[str]:
        """Return our modules that cannot be imported without a module or package."""
        reaching: set[str] = set()
        while True:
            found = {
                name
                for name, module in self.modules.items()
                if any(
                    needed in reaching or self._is_in(needed, target)
                    for needed in self.imported(module)
                )
            }
            if found == reaching:
                return found
            reaching = found

    def _is_in(self, needed: str, target: str) -> bool:
        whole_package = target not in self.modules and needed.startswith(f"{target}.")
        return needed == target or whole_package

    def cycles(self) -> list[str]:
        """Return the modules that, over whatever they import at import time, need themselves."""
        return [name for name in self.modules if name in self.reach(name)]

    def without_twin(self) -> list[str]:
        """Return the modules without a file of tests of the same name in the same room."""
        have = {test.name for test in self.tests}
        return [
            name
            for name, module in self.modules.items()
            if not module.path.stem.startswith("__") and twin_of(name) not in have
        ]


def twin_of(module: str) -> str:
    """Return where the tests of a module are: `fastbert.nn.heads` in tests/nn/test_heads.py."""
    *rooms, name = module.split(".")[1:]
    return "/".join(["tests", *rooms, f"test_{name}.py"])


def length(function: Function) -> int:
    """Return the lines of a function from `def` to its end, without its docstring."""
    first, end = function.body[0], function.end_lineno
    assert end is not None
    assert first.end_lineno is not None
    documented = ast.get_docstring(function) is not None
    return end - function.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)


def is_own(node: ast.stmt) -> bool:
    """Return whether an import statement is of our own package."""
    if isinstance(node, ast.ImportFrom):
        return str(node.module).partition(".")[0] == PACKAGE
    return isinstance(node, ast.Import) and node.names[0].name.partition(".")[0] == PACKAGE


def _imports(node: ast.AST) -> Iterator[ast.stmt]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom))


def _imports_at_import(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports_at_import(node.orelse)
        elif not isinstance(node, Function):
            inner = [each for each in ast.walk(node) if isinstance(each, ast.stmt)][1:]
            direct = [each for each in inner if each in _blocks(node)]
            yield from _imports_at_import(direct)


def _blocks(node: ast.stmt) -> list[ast.stmt]:
    """Return the statements right inside a compound statement."""
    blocks = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
    handlers = [handler.body for handler in getattr(node, "handlers", [])]
    return [each for block in [*blocks, *handlers] for each in block]


# The table.


def figures(sources: Sources) -> dict[str, str]:
    """Return each figure of the table with its name."""
    modules = list(sources.modules.values())
    sizes = sorted(module.lines for module in modules)
    largest = max(modules, key=lambda module: module.lines)
    functions = [(module, each) for module in modules for each in module.functions]
    lengths = sorted(length(each) for _, each in functions)
    longest = max(functions, key=lambda pair: length(pair[1]))
    inside = [node for module in modules for node in module.inside_functions]
    lines, tests = sum(sizes), sum(test.lines for test in sources.tests)
    raises, asserts = (
        sum(isinstance(node, kind) for module in modules for node in ast.walk(module.tree))
        for kind in (ast.Raise, ast.Assert)
    )
    twinless = sources.without_twin()
    return {
        "lines / files": f"{lines} / {len(sizes)}",
        "median / largest file": f"{median(sizes):g} / {sizes[-1]} ({largest.name})",
        "functions": f"{len(lengths)}",
        "function median / p90 / max": f"{median(lengths):g} / {lengths[len(lengths) * 9 // 10]}"
        f" / {lengths[-1]} ({longest[0].name}.{longest[1].name})",
        "public names documented": f"{_share(map(_documented, _public(modules)))} %",
        "functions annotated": f"{_share(_annotated(each) for _, each in functions)} %",
        "comments per 100 lines": f"{100 * sum(map(_comments, modules)) / lines:.1f}",
        "import cycles": f"{len(sources.cycles())}",
        "imports inside functions": f"{len(inside)} ({sum(map(is_own, inside))} own)",
        "raise / assert": f"{raises} / {asserts}",
        "test lines / source lines": f"{tests} / {lines} = {tests / lines:.2f}",
        "modules without a twin": f"{len(twinless)}"
        + "".join(f"\n  {name} -> {twin_of(name)}" for name in twinless),
    }


def _public(modules: Iterable[Module]) -> Iterator[ast.Module | ast.ClassDef | Function]:
    for module in modules:
        yield module.tree
        for node in ast.walk(module.tree):
            named = isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")
            if named and not _is_nested(node, module):
                yield node  # type: ignore[misc]  # mypy does not see through `named`


def _is_nested(node: ast.AST, module: Module) -> bool:
    return any(node in ast.walk(function) and node is not function for function in module.functions)


def _documented(node: ast.Module | ast.ClassDef | Function) -> bool:
    return ast.get_docstring(node) is not None


def _annotated(function: Function) -> bool:
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    named = [each for each in arguments if each is not None and each.arg not in ("self", "cls")]
    return all(each.annotation is not None for each in named) and function.returns is not None


def _comments(module: Module) -> int:
    """Return how many comments stand on a line of their own or behind code."""
    tokens = tokenize.generate_tokens(io.StringIO(module.source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def _share(claims: Iterable[bool]) -> int:
    held = list(claims)
    return round(100 * sum(held) / len(held))


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, figure in figures(Sources(root)).items():
        print(f"{name:28} {figure}")


if __name__ == "__main__":
    main()
