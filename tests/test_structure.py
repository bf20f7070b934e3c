"""The rooms of `converters`: imports go down only, and a function fits on a page."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the bottom up: a module imports from its own room, and from those before it.
ROOMS = (
    ("errors", "variables", "frameworks", "files"),
    ("mapping",),
    ("checkpoint",),
    ("graph_def",),
    ("formats",),
    ("remote",),
    ("weights",),
    ("conversion", "inspection", "loading", "prediction"),
    ("batch", "parity"),
    ("display",),
    ("cli",),
)
LONGEST = 60


def modules() -> list[Path]:
    return sorted((ROOT / "converters").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module of `converters` that a module imports anywhere, in a function and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("converters"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("converters"))


NAMES = {name_of(path) for path in modules()}
RANKS = {f"converters.{name}": rank for rank, names in enumerate(ROOMS) for name in names}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", [path for path in modules() if path.parent.name != ""], ids=name_of)
def test_imports_go_down(path: Path) -> None:
    mine = name_of(path)
    if mine == "converters":
        return
    for other in imported(path):
        assert room(other) == room(mine) or RANKS[room(other)] <= RANKS[room(mine)], f"{mine} imports {other}"


def test_no_imports_in_a_circle() -> None:
    graph = {name_of(path): sorted(set(imported(path)) - {name_of(path)}) for path in modules()}
    # A package's name is that of its room: what it re-exports is its own.
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " > ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_functions_fit_on_a_page() -> None:
    long = {
        f"{name_of(path)}.{node.name}": length
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    }
    assert not long


def test_slimport_never_imports_converters() -> None:
    for path in (ROOT / "slimport").rglob("*.py"):
        if path.name == "__main__.py":
            # The command.
            continue
        assert not list(imported(path)), path
