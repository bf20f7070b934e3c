"""Tries checkpoint indexes of other people's: what `inspect` says of each, from names and shapes.

    python -m scripts.studies.public_indexes FOLDER

FOLDER has a folder for each repository, OWNER+NAME, with the `.index` files that are to be tried under it. Prints a row
of docs/public_checkpoints.md's table for each. No tensor is read, so the files with the data may be absent.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters import InputError
from converters.inspection import Inspection, inspect
from converters.weights.recognize import Recognition

HEADER = """\
| repository, file | variables | what `inspect` says | s |
|---|---|---|---|"""


@dataclass(frozen=True)
class Trial:
    """What came of one index: where it is from, its number of variables, what is said of it, and how long it took."""

    repository: str
    file: str
    variables: int
    said: str
    seconds: float

    def row(self) -> str:
        """The line of the table."""
        cells = [f"{self.repository}, `{self.file}`", str(self.variables or ""), self.said, f"{self.seconds:.2f}"]
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def index_files(folder: Path) -> Iterator[Path]:
    """The indexes below a folder."""
    return (path for path in sorted(folder.rglob("*.index")) if path.is_file())


def tried(path: Path, root: Path) -> Trial:
    """Tries one index. Any exception but a refusal is a bug, and is said to be one."""
    repository, *rest = path.relative_to(root).parts
    start, variables = time.perf_counter(), 0
    try:
        found = inspect(path)
        said, variables = said_of(found), len(found.variables)
    except InputError as error:
        said = f"refused: {shortened(str(error), path)}"
    except Exception:
        said = f"BUG: {traceback.format_exc().splitlines()[-1]}"
    return Trial(repository.replace("+", "/"), "/".join(rest), variables, said, time.perf_counter() - start)


def said_of(found: Inspection) -> str:
    """The network, or the networks, or why there is none and which one is nearest."""
    if found.recognition:
        return network_text(found.recognition)
    if found.networks:
        return f"{len(found.networks)} networks: " + "; ".join(map(network_text, found.networks))
    near = found.nearest
    if near:
        return (
            f"unknown; nearest is {near.network} under {near.scope!r}, {near.alike} of "
            f"{len(near.network.variables())}; {near.different}"
        )
    return f"unknown: {shortened(str(found.doubt), found.path)}"


def network_text(found: Recognition) -> str:
    """The network with its scope, and what does not fit."""
    problems = list(found.problems())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return str(found) + (f", but {problems[0]}{more}" if problems else "")


def shortened(message: str, path: Path) -> str:
    """A message without the file's own path and without advice."""
    return message.replace(f"{path.with_suffix('')}: ", "").replace(f"{path}: ", "").partition("; 'slimport")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    print(HEADER)
    for path in index_files(folder):
        print(tried(path, folder).row(), flush=True)


if __name__ == "__main__":
    main()
