"""Where an output is written before it takes its place."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path


def temporary_path(path: Path) -> Path:
    """A hidden path beside `path`, with its suffix: no other process takes it, on this machine or another."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


def left_over(path: Path) -> list[Path]:
    """What writers that were killed left of `path`, or of a checkpoint with this prefix."""
    pattern = re.compile(rf"\.\d+-[0-9a-f]{{8}}\.{re.escape(path.name)}(\.index|\.data-\d{{5}}-of-\d{{5}})?")
    return [found for found in path.parent.iterdir() if pattern.fullmatch(found.name)]
