"""Breaks the code in many small ways, one at a time, and runs the tests that should see it.

    python -m scripts.studies.mutations [--only TEXT] [--known FILE]

Each mutation of `MUTATIONS` is made in a copy of the tree, and its tests run there: it is killed if one fails. All of
these tests run on the copy as it is before, and must pass. Prints a Markdown table; exits with 1 if fewer than 95
percent are killed. A mutation that the table in FILE, of a run that was cut short, calls killed is not tried again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from scripts.studies.mutation_list import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
LEAST_KILLED = 0.95
_COPIED = ("converters", "slimport", "scripts", "tests", "docs")
_TIMEOUT = 600
QUOTE = "'"


def copy_tree(to: Path) -> Path:
    """A copy of what the tests need, with a link to the shared files beside it."""
    tree = to / "tree"
    tree.mkdir()
    for name in _COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, tree / name)
    if (shared := ROOT.parent / "shared").exists():
        (to / "shared").symlink_to(shared)
    return tree


def mutated(text: str, mutation: Mutation) -> str:
    """The text of the mutation's file with the mutation made.

    Raises:
      ValueError: what it replaces is not there once.
    """
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.file}: {mutation.old!r} is there {count} times, not once")
    return text.replace(mutation.old, mutation.new)


def run_tests(tree: Path, tests: str) -> tuple[int, str]:
    """pytest's exit code in a copy of the tree, and the first test that failed."""
    with tempfile.TemporaryDirectory() as base:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", "--basetemp", base]
        # `python -m` finds the copy's packages before those that are installed.
        variables = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [*command, *shlex.split(tests)],
                cwd=tree,
                env=variables,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 1, "it does not end"
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return done.returncode, failed[0].rpartition("::")[2].partition("[")[0] if failed else ""


def survives(tree: Path, mutation: Mutation) -> tuple[bool, str]:
    """Whether a mutation's tests pass in the copy all the same, and which fails if not."""
    path = tree / mutation.file
    original = path.read_text()
    path.write_text(mutated(original, mutation))
    try:
        code, failed = run_tests(tree, mutation.tests)
    finally:
        path.write_text(original)
    if code == 5:
        raise ValueError(f"{mutation.tests}: no such test")
    return code == 0, failed


def check_control(tree: Path, mutations: Collection[Mutation]) -> None:
    """Raises RuntimeError if a test fails without a mutation, or ValueError if a mutation cannot be made."""
    for mutation in mutations:
        mutated((tree / mutation.file).read_text(), mutation)
    # A process for each file of tests, for the expressions of all that choose from it.
    chosen: dict[str, list[str]] = {}
    for mutation in mutations:
        files, _, expression = mutation.tests.partition(" -k ")
        chosen.setdefault(files, []).append(f"({expression.strip(QUOTE)})" if expression else "")
    for files, expressions in chosen.items():
        every = "" if "" in expressions else f" -k '{' or '.join(dict.fromkeys(expressions))}'"
        code, failed = run_tests(tree, files + every)
        if code:
            raise RuntimeError(f"{files}{every}: exit code {code} without a mutation: {failed}")


def cells(mutation: Mutation) -> str:
    """The first two cells of a mutation's row."""
    return f"| `{mutation.file}` | {mutation.what}"


def killed_before(table: str) -> dict[str, str]:
    """The rows of the mutations that a table calls killed, by their first two cells."""
    rows = [line for line in table.splitlines() if " | killed by " in line]
    return {row.partition(" | killed by ")[0]: row for row in rows}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the file or the description")
    parser.add_argument("--known", type=Path, help="the table of an earlier run")
    chosen = parser.parse_args()
    mutations = [each for each in MUTATIONS if chosen.only in f"{each.file} {each.what}"]
    known = killed_before(chosen.known.read_text()) if chosen.known else {}
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        check_control(tree, [each for each in mutations if cells(each) not in known])
        print("| file | mutation | result |")
        print("|---|---|---|")
        for mutation in mutations:
            if (row := known.get(cells(mutation))) is None:
                survived, failed = survives(tree, mutation)
                result = f"SURVIVED {mutation.tests}" if survived else f"killed by `{failed}`"
                row = f"{cells(mutation)} | {result} |"
            killed += " | killed by " in row
            print(row, flush=True)
    print(f"\n{killed} of {len(mutations)} mutations are killed")
    sys.exit(killed < LEAST_KILLED * len(mutations))


if __name__ == "__main__":
    main()
