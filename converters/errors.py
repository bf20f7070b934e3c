"""What a user can mend: each error is one line that says what is wrong, where, and what to do about it."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input or bad usage. The command prints the message on one line of stderr and exits with 2."""


class CheckpointError(InputError):
    """A file that is not a TensorFlow checkpoint, or a damaged one."""


def first_line(error: Exception) -> str:
    """What a library's exception says, cut to the one line that an error of ours has."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
