"""Names from files in error messages: short, and on one line."""

from __future__ import annotations

_LONGEST = 400


def shown(name: str) -> str:
    """The name, escaped if it is not printable, and cut in the middle if it is too long."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
