"""What is printed: results on stdout, progress on stderr only where that is a terminal.

Names and paths come from files and servers of others. Nothing of them reaches the terminal as a command: no escape
sequence, no line break, no mark that turns the direction of text.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from converters.errors import InputError
from converters.remote.urls import public_text

_SHOWN_AFTER_S = 1.0
# What click.style writes, and nothing else that begins with an escape.
_STYLE = re.compile(r"(\x1b\[(?:[0-9]{1,3};?)*m)")
_PLAIN_LINES = str.maketrans("└├│─", "`||-")


def say(text: str, err: bool = False) -> None:
    """Prints lines, everything in them escaped that is no visible character.

    Raises:
      InputError: stdout cannot be written.
    """
    stream = sys.stderr if err else sys.stdout
    text = "\n".join(map(_line, text.split("\n")))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN_LINES).encode(encoding, errors="backslashreplace").decode(encoding)
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"standard output cannot be written: {error.strerror or error}") from error


def one_line(text: str) -> str:
    """A text on one line, escaped as `say` does, without the secrets of URLs in it."""
    return _line(" ".join(public_text(text).split()))


def _line(text: str) -> str:
    # Every second part is a style.
    parts = _STYLE.split(text)
    return "".join(part if index % 2 or part.isprintable() else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextmanager
def activity() -> Iterator[Callable[[str], None]]:
    """Shows a line of text after a second; the function that it yields sets the text."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    # A stream of its own: while TensorFlow is imported, stderr is held back.
    stderr = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    text, shown = [""], []

    def plain(now: str) -> Any:
        from rich.text import Text

        # Not as rich's markup.
        return Text(one_line(now))

    def show() -> None:
        from rich.console import Console

        status = Console(file=stderr).status(plain(text[0]))
        status.start()
        shown.append(status)

    def update(now: str) -> None:
        text[0] = now
        for status in shown:
            status.update(plain(now))

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
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    tasks: dict[str, progress.TaskID] = {}
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(one_line(name), total=total)
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
