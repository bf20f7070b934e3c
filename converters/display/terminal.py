"""Progress on stderr, only where that is a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOWN_AFTER_S = 1.0


@contextmanager
def activity() -> Iterator[Callable[[str], None]]:
    """Shows a line of text after a second; the function that it yields sets the text."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    # A stream of its own: while TensorFlow is imported, stderr is held back.
    stderr = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    text, shown = [""], []

    def show() -> None:
        from rich.console import Console

        status = Console(file=stderr).status(text[0])
        status.start()
        shown.append(status)

    def update(now: str) -> None:
        text[0] = now
        for status in shown:
            status.update(now)

    timer = threading.Timer(_SHOWN_AFTER_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield update
    finally:
        timer.cancel()
        timer.join()
        for status in shown:
            status.stop()
        stderr.close()


@contextmanager
def transfers() -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows a bar for each transfer; yields a function of a file's name, its bytes so far, and all its bytes."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    tasks: dict[str, progress.TaskID] = {}
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield update


@contextmanager
def jobs(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows one bar for many jobs; yields a function of how many are done, and of all."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
