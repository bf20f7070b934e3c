"""What a user points at, and which checkpoint that is."""

from __future__ import annotations

import re
from pathlib import Path

from converters.checkpoint.bundle import index_path
from converters.errors import CheckpointError

_BESIDE = re.compile(r"(.+?)\.(?:index|meta|data-\d{5}-of-\d{5})")
_V1_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


def locate(source: Path) -> tuple[Path, list[Path]]:
    """The checkpoint that `source` means: its prefix or file, and V1's files; none for V2.

    Args:
      source: a V1 file, a prefix, any file of a V2 or sharded V1 checkpoint, the `.meta` beside one, a directory with a
        `checkpoint` file, or a SavedModel directory.

    Raises:
      CheckpointError: there is no checkpoint.
    """
    if source.is_dir():
        source = _in_directory(source)
    if index_path(source).is_file():
        return source, []
    if beside := _BESIDE.fullmatch(source.name):
        prefix = source.with_name(beside[1])
        if index_path(prefix).is_file():
            return prefix, []
        if prefix.is_file():
            return prefix, [prefix]
        if source.is_file():
            raise CheckpointError(f"{source}: the index beside it, {index_path(prefix).name}, is missing")
    if source.is_file():
        if shard := _V1_SHARD.fullmatch(source.name):
            prefix = source.with_name(shard[1])
            return prefix, _v1_shards(prefix)
        return source, [source]
    if shards := _v1_shards(source):
        return source, shards
    raise CheckpointError(f"{source}: no such file, and no checkpoint of this prefix")


def _in_directory(directory: Path) -> Path:
    state = directory / "checkpoint"
    if state.is_file():
        # CheckpointState, a text message: its first field is the newest checkpoint, relative or where it was written.
        found = re.search(r'^model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', state.read_text(errors="replace"), re.M)
        if not found:
            raise CheckpointError(f"{state}: names no checkpoint")
        named = Path(re.sub(r"\\(.)", r"\1", found[1]))
        if named.is_absolute() and not index_path(named).is_file() and not named.is_file():
            # The directory has moved since.
            named = Path(named.name)
        return directory / named
    variables = directory / "variables" / "variables"
    if index_path(variables).is_file():
        return variables
    raise CheckpointError(
        f"{directory}: a directory without a checkpoint: no 'checkpoint' file and no SavedModel's variables in it"
    )


def _v1_shards(prefix: Path) -> list[Path]:
    if not prefix.parent.is_dir():
        return []
    pattern = re.compile(re.escape(prefix.name) + r"-(\d{5})-of-(\d{5})")
    found = {path: match for path in prefix.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    if not found:
        return []
    counts = {int(match[2]) for match in found.values()}
    if len(counts) > 1 or {int(match[1]) for match in found.values()} != set(range(*counts)):
        raise CheckpointError(f"{prefix}: its shards are not all there: found {len(found)} of {max(counts)}")
    return sorted(found)
