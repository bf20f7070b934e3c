"""docs/idioms.md names tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache

from conftest import ROOT

PAGE = (ROOT / "docs" / "idioms.md").read_text()
TESTS = re.findall(r"`(test_\w+\.py)::(\w+)(?:\[([\w ]+)\])?`", PAGE)


@cache
def source(file: str) -> str:
    return (ROOT / "tests" / file).read_text()


@cache
def functions(file: str) -> set[str]:
    return {node.name for node in ast.parse(source(file)).body if isinstance(node, ast.FunctionDef)}


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    heads = sum(" test |" in row for row in rows)
    assert (len(rows) > 100, heads) == (True, 4)
    assert not [row for row in rows if "::test_" not in row and " test |" not in row]


def test_every_test_that_is_named_is_there() -> None:
    assert len(TESTS) == PAGE.count("::test_")
    missing = [f"{file}::{name}" for file, name, _ in TESTS if name not in functions(file)]
    missing += [f"{file}: {case}" for file, _, case in TESTS if case and not re.search(rf"\b{case}\b", source(file))]
    assert not missing
