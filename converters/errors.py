"""Errors that a user can fix: each is one line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
from typing import NamedTuple


class InputError(ValueError):
    """Bad input or bad usage. The command prints the message on one line of stderr and exits with 2."""


class CheckpointError(InputError):
    """A file that is not a TensorFlow checkpoint, or a damaged one."""


class UnsupportedNode(NamedTuple):
    """A node of a TensorFlow graph that has no counterpart: its op and name."""

    op: str
    node: str


class UnsupportedError(InputError):
    """A TensorFlow graph with nodes that have no counterpart, in the graph's order."""

    def __init__(self, message: str, nodes: tuple[UnsupportedNode, ...]) -> None:
        super().__init__(message)
        self.nodes = nodes


def reason(error: Exception) -> str:
    """The system's reason for an error, and what to do about a full disk."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{said}; make room, or choose another disk" if getattr(error, "errno", None) == errno.ENOSPC else said


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
