"""The cache: fetched files, each with a record of its URL, its stamp and its digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import frameworks
from converters.files import sha256_of
from converters.remote.urls import sibling
from slimport.files import replacing

if TYPE_CHECKING:
    from converters.variables import PathLike


@dataclass(frozen=True)
class Fetched:
    """A file in the cache.

    path: where it is.
    url: where it came from, without a password or a query.
    stamp: the server's description of it, see `Server.stamp`.
    sha256: of its bytes, in hex.
    mtime: when it was last changed, in ns; 0 in records of earlier versions.
    """

    path: Path
    url: str
    stamp: Mapping[str, str]
    sha256: str
    mtime: int = field(default=0, compare=False)

    def altered(self) -> bool:
        """Whether the file is no longer what was fetched. It is read only if its time of change is another."""
        return self.mtime not in (0, self.path.stat().st_mtime_ns) and sha256_of(self.path) != self.sha256


def cache_folder(cache: PathLike | None = None) -> Path:
    """The folder of the cache: the argument, `SLIMPORT_CACHE`, or a folder in the user's caches."""
    cache = cache or os.environ.get("SLIMPORT_CACHE")
    if cache:
        return Path(cache).expanduser()
    return Path(frameworks.require("platformdirs").user_cache_path("slimport"))


def folder_of(url: str, cache: PathLike | None = None) -> Path:
    """The folder in the cache for a URL: the same for all files of one remote folder, such as a checkpoint's."""
    return cache_folder(cache) / hashlib.sha256(sibling(url, "").encode()).hexdigest()[:16]


def find(target: Path) -> Fetched | None:
    """The file at this path in the cache, or None if it is missing, incomplete or without a record."""
    record = read_json(beside(target, "json"))
    if not isinstance(record, dict) or not target.is_file():
        return None
    try:
        fetched = Fetched(
            target, str(record["url"]), dict(record["stamp"]), str(record["sha256"]), int(record.get("mtime", 0))
        )
        whole = int(fetched.stamp.get("size", target.stat().st_size)) == target.stat().st_size
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return fetched if whole else None


def keep(part: Path, fetched: Fetched) -> None:
    """Moves a complete transfer to its path in the cache, and writes its record."""
    # A copy without a record is fetched again; a record without its copy never is.
    beside(fetched.path, "json").unlink(missing_ok=True)
    mtime = part.stat().st_mtime_ns
    part.replace(fetched.path)
    write_json(beside(fetched.path, "json"), {**asdict(fetched), "path": fetched.path.name, "mtime": mtime})
    discard(part)


def discard(part: Path) -> None:
    """Removes a transfer and its record."""
    part.unlink(missing_ok=True)
    beside(part, "json").unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """The hidden file with this suffix that belongs to a file in the cache."""
    return path.with_name(f".{path.name.removeprefix('.')}.{suffix}")


def read_json(path: Path) -> Any:
    """The value in a JSON file; None if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a value as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1))
