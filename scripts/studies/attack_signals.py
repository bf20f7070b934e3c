"""Kills and interrupts writers at every call that changes the disk: the old output is there, or the new one, whole.

    python -m scripts.studies.attack_signals [--rounds N]

A process writes over an old file, checkpoint or folder. At its first, second, third, ... such call it gets a signal:
SIGKILL, which ends it there, SIGINT, which Python turns into an exception after the call, or SIGTERM. Then the next
writer must find nothing in its way, and leave nothing behind. And: two processes at once write to one checkpoint.
Exits with 1 if an output was neither the old nor the new one. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from converters.checkpoint import open_checkpoint, write_checkpoint
from converters.errors import InputError
from converters.files import atomic, atomic_folder

_EVENTS = ("open", "os.", "fcntl.", "ctypes.call_function", "shutil.")
_MOST = 500


@dataclass
class Count:
    """What was there after each signal; `broken` are the cases that must not be."""

    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()


def _file(path: Path, content: int) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(bytes([content]) * 5000)


def _holds_file(path: Path, content: int) -> bool:
    return path.read_bytes() == bytes([content]) * 5000


def _arrays(content: int) -> Mapping[str, Any]:
    return {f"w{number}": np.full(100 + content, content, np.float32) for number in range(3)}


def _checkpoint(path: Path, content: int) -> None:
    write_checkpoint(path, _arrays(content))


def _holds_checkpoint(path: Path, content: int) -> bool:
    with open_checkpoint(path) as found:
        wanted = _arrays(content)
        return set(found) == set(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def _folder(path: Path, content: int) -> None:
    with atomic_folder(path, ("a", "b")) as folder:
        for name in ("a", "b"):
            (folder / name).write_bytes(bytes([content]) * 100)


def _holds_folder(path: Path, content: int) -> bool:
    return {inside.name: inside.read_bytes()[:1] for inside in path.iterdir()} == dict.fromkeys("ab", bytes([content]))


FORMS: Mapping[str, tuple[Callable[[Path, int], None], Callable[[Path, int], bool]]] = {
    "file": (_file, _holds_file),
    "checkpoint": (_checkpoint, _holds_checkpoint),
    "folder": (_folder, _holds_folder),
}


def attack(folder: Path, form: str, signals: Sequence[signal.Signals]) -> Count:
    """Writes 2 over 1 with each signal at each call, until the writer comes to its end."""
    write, holds = FORMS[form]
    count = Count()
    for number in signals:
        for moment in range(_MOST):
            there = folder / f"{form}-{number}"
            there.mkdir()
            write(there / "out", 1)
            ended = _signalled(partial(write, there / "out", 2), number, moment)
            where = f"{form}, {number.name} at call {moment}"
            what = [name for name, content in (("old", 1), ("new", 2)) if _quietly(holds, there / "out", content)]
            count.outcomes[what[0] if what else "neither"] += 1
            if not what:
                count.broken.append(f"{where}: neither the old nor the new")
            write(there / "out", 3)
            if not _quietly(holds, there / "out", 3):
                count.broken.append(f"{where}: the next writer fails")
            if left := [path.name for path in there.iterdir() if path.name.startswith(".")]:
                count.broken.append(f"{where}: {left} is left")
            shutil.rmtree(there)
            if ended:
                break
    return count


def _quietly(holds: Callable[[Path, int], bool], path: Path, content: int) -> bool:
    try:
        return holds(path, content)
    except (InputError, OSError):
        return False


def _signalled(write: Callable[[], None], number: signal.Signals, moment: int) -> bool:
    """Whether a process came to its end before the call at which it would have got a signal."""
    if not (child := os.fork()):
        left = moment

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(_EVENTS):
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), number)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.addaudithook(hook)
        with suppress(BaseException):
            write()
        os._exit(7 if left >= 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def at_once(folder: Path, rounds: int) -> Count:
    """Two processes write one checkpoint at the same time."""
    count = Count()
    for number in range(rounds):
        prefix = folder / f"round{number}"
        children = []
        for content in (1, 2):
            if not (child := os.fork()):
                with suppress(BaseException):
                    for _ in range(5):
                        _checkpoint(prefix, content)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        whole = [str(content) for content in (1, 2) if _quietly(_holds_checkpoint, prefix, content)]
        count.outcomes[whole[0] if whole else "neither"] += 1
        if not whole:
            count.broken.append(f"round {number}: neither one's nor the other's")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="of two writers at once [100]")
    arguments = parser.parse_args()
    table = Table("output", "cases", "old", "new", "neither, or something left")
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as there:
        for form in FORMS:
            for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
                count = attack(Path(there), form, (number,))
                old, new = (str(count.outcomes[what]) for what in ("old", "new"))
                table.add_row(f"{form}, {number.name}", str(count.cases), old, new, str(len(count.broken)))
                broken += count.broken
        count = at_once(Path(there), arguments.rounds)
        table.add_row("two checkpoints at once", str(count.cases), "", str(count.cases), str(len(count.broken)))
        broken += count.broken
    Console(width=100).print(table)
    print(*broken[:20], sep="\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
