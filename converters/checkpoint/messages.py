"""What an error says of a name that came from a file: short, and on one line."""

from __future__ import annotations

_LONGEST = 400


def shown(name: str) -> str:
    """The name, where it can be printed as it is and is not too long; else escaped, and cut in the middle."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
