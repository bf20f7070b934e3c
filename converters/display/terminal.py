"""Terminal output: results on stdout, progress on stderr only where that is a terminal.

Names and paths come from files and servers of others. Nothing of them reaches the terminal as a command: no escape
sequence, no line break, no mark that turns the direction of text.

On a terminal, lines are fitted to its width, and there are colours unless NO_COLOR is set or TERM is dumb. Anywhere
else, a line is a line, for programs that read it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from converters.errors import InputError
from converters.remote.urls import public_text

_SHOWN_AFTER_S = 1.0
# What click.style writes, and nothing else that begins with an escape.
_STYLE = re.compile(r"(\x1b\[(?:[0-9]{1,3};?)*m)")
_PLAIN_LINES = str.maketrans("└├│─", "`||-")
_BELOW = str.maketrans("└├─", " │ ")
# The guides at the beginning of a line of a tree, and the gap between two columns of a table.
_GUIDES = re.compile(r"(?:\x1b\[[0-9;]*m|[└├│─ ])*")
_GAP = re.compile(r"(?<=\S) {2,}")
# A shape is one word with the name before it.
_WORD = re.compile(r"\s*(?:\x1b\[[0-9;]*m|\[[^\[\]]*\]|\s(?=\[)|\S)+\s*")
_COMMAND = re.compile(r"^\w+: slimport ")
_ROOM = 20
"""Columns that a column of a table needs to be read."""


def say(text: str, err: bool = False, fit: bool = True) -> None:
    """Prints lines, everything in them escaped that is no visible character.

    Args:
      text: the lines.
      err: whether they go to stderr.
      fit: whether lines are fitted to a terminal, as JSON must not be: a string in it has no line breaks.

    Raises:
      InputError: stdout cannot be written.
    """
    stream = sys.stderr if err else sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        text = _STYLE.sub("", text)
    text = fitted("\n".join(map(_line, text.split("\n"))), width_of(stream) if fit else None)
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


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal that a stream is; None where it is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fitted(text: str, width: int | None) -> str:
    """A text with every line broken where it is wider than `width`: between words, else after a slash in a name.

    The rest of a line stands under its last column where there is room for it, else four columns further in than its
    beginning, with the guides of a tree continued. A command goes on as a shell reads it.
    """
    return text if width is None else "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int) -> Iterator[str]:
    if len(_STYLE.sub("", line)) <= width:
        yield line
        return
    guides = _GUIDES.match(line)[0]  # type: ignore[index]
    line, before = line[len(guides) :], _continued(guides)
    columns = [gap.end() for gap in _GAP.finditer(_STYLE.sub("", line))]
    hang = columns[-1] if columns and width - len(before) - columns[-1] >= _ROOM else 4
    if hang == 4:
        line = _GAP.sub("  ", line)
    before += " " * hang
    end = " \\" if _COMMAND.search(_STYLE.sub("", line)) else ""
    row = guides
    length = len(_STYLE.sub("", guides))
    for word in _words(line, width - len(before) - len(end)):
        size = len(_STYLE.sub("", word.rstrip()))
        if length + size > width - len(end) and length > len(before):
            yield row.rstrip() + end
            row, length = before, len(before)
        row += word
        length += len(_STYLE.sub("", word))
    yield row.rstrip()


def _continued(guides: str) -> str:
    """The guides of the rest of a folded line."""
    return _STYLE.sub("", guides).translate(_BELOW)


def _words(line: str, room: int) -> Iterator[str]:
    """The words with the spaces behind them; what has no room in a line is taken apart after its slashes."""
    for word in _WORD.findall(line):
        if len(_STYLE.sub("", word.rstrip())) <= room:
            yield word
        else:
            yield from re.findall(r"[^/]*/|[^/]+", word)


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
