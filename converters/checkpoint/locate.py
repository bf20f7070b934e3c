"""Finds the checkpoint that a user names by a file, a prefix or a directory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from converters.checkpoint.bundle import index_path
from converters.checkpoint.messages import shown
from converters.checkpoint.table import MAGIC
from converters.errors import CheckpointError

_BESIDE = re.compile(r"(.+?)\.(?:index|meta|data-\d{5}-of-\d{5})", re.DOTALL)
_V1_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.DOTALL)
# How TensorFlow itself names all shards of a V1 checkpoint, in a `checkpoint` file too.
_V1_PATTERN = re.compile(r"(.+)-\?{5}-of-(\?{5}|\d{5})", re.DOTALL)
# How a checkpoint that is one file is named, nearly always.
_V1_NAME = re.compile(r".+\.ckpt(-\d+)?", re.DOTALL)
# At the end of a prefix; a number of more digits is no step.
_STEP = re.compile(r"-(\d{1,18})$")
GZIP_MAGIC, BZIP2_MAGIC, XZ_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"PK\x03\x04"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
# Files that mean the directory that contains them.
_OF_DIRECTORIES = ("checkpoint", "saved_model.pb")
# Of a `checkpoint` file, a short text.
LARGEST_STATE = 1 << 20
_LISTED = 10


@dataclass(frozen=True)
class Located:
    """A checkpoint: the V1 file, or the prefix; `v1_files` is empty for V2. `note` is what a user should know of it."""

    path: Path
    v1_files: tuple[Path, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint among files: its prefix and its files, by name; and what a user should know of the choice."""

    prefix: str
    format: str
    files: tuple[str, ...]
    note: str = ""


def locate(source: Path, step: int | None = None) -> Located:
    """Finds the checkpoint that `source` names.

    Args:
      source: a V1 file, a prefix, any file of a V2 or sharded V1 checkpoint, the `.meta` beside one, or a directory:
        with a `checkpoint` file (or that file), of a SavedModel, or with one checkpoint in it.
      step: which of a training run's checkpoints, PREFIX-STEP; None is the newest.

    Raises:
      CheckpointError: there is no checkpoint, or more than one.
    """
    if source.name in _OF_DIRECTORIES and source.is_file() and not ends_as_table(source):
        source = source.parent
    if source.is_dir():
        path, note = _in_directory(source, step)
        return replace(_locate_file(path), note=note)
    if step is not None:
        source = source.with_name(f"{prefix_name(source.name)}-{step}")
    return _locate_file(source)


def _locate_file(source: Path) -> Located:
    """The checkpoint of a file or a prefix."""
    if pattern := _V1_PATTERN.fullmatch(source.name):
        prefix = source.with_name(pattern[1])
        if shards := _v1_shards(prefix, pattern[2]):
            return Located(prefix, shards)
    if index_path(source).is_file():
        if ends_as_table(source):
            index = index_path(source).name
            raise several(
                str(source), [source.name, index], f"name {shown(index)} for the V2 one; move it away for the V1 one"
            )
        return Located(source)
    if beside := _BESIDE.fullmatch(source.name):
        prefix = source.with_name(beside[1])
        if index_path(prefix).is_file():
            return Located(prefix)
        if ends_as_table(prefix):
            return Located(prefix, (prefix,))
        if shards := _v1_shards(prefix):
            return Located(prefix, shards)
        if source.is_file():
            raise CheckpointError(
                f"{shown(str(source))}: {shown(index_path(prefix).name)} is not beside it; get that too"
            )
    if source.is_file():
        if shard := _V1_SHARD.fullmatch(source.name):
            prefix = source.with_name(shard[1])
            return Located(prefix, _v1_shards(prefix, shard[3]))
        return Located(source, (source,))
    if shards := _v1_shards(source):
        return Located(source, shards)
    raise CheckpointError(f"{shown(str(source))}: no such file, and no checkpoint of this prefix{_near(source)}")


def prefix_name(name: str) -> str:
    """The prefix in the name of an `.index`, `.meta` or `.data-?????-of-?????` file, else the name."""
    beside = _BESIDE.fullmatch(name)
    return beside[1] if beside else name


def is_data(name: str) -> bool:
    """Whether a name is that of a V2 checkpoint's data file, whose bytes tell nothing."""
    return _BESIDE.fullmatch(name) is not None and ".data-" in name[len(prefix_name(name)) :]


def shard_prefix(name: str) -> str:
    """The prefix in the name of a V1 checkpoint's shard, else the name."""
    shard = _V1_SHARD.fullmatch(name)
    return shard[1] if shard else name


def ends_as_table(path: Path) -> bool:
    """Whether a file ends like a table, such as a V1 checkpoint or an index."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(-len(MAGIC), 2)
            return file.read() == MAGIC
    except OSError:
        return False


def is_archive(path: Path) -> bool:
    """Whether a file begins like a tar, compressed or not, or a zip, as no other file of a checkpoint does."""
    if not path.is_file() or _BESIDE.fullmatch(path.name) or ends_as_table(path):
        return False
    with path.open("rb") as file:
        begins = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
    magics = (GZIP_MAGIC, BZIP2_MAGIC, XZ_MAGIC, ZIP_MAGIC)
    return begins.startswith(magics) or begins[TAR_MAGIC_AT:] == TAR_MAGIC


def is_zip(path: Path) -> bool:
    """Whether a file begins like a zip archive."""
    with path.open("rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def candidates(tables: Iterable[str], names: Iterable[str]) -> list[Candidate]:
    """The checkpoints among files.

    Args:
      tables: the names of those files that end as a table does.
      names: the names of all.
    """
    files: dict[tuple[str, str], list[str]] = {}
    for name in sorted(tables):
        if beside := _BESIDE.fullmatch(name):
            if name.endswith(".index"):
                files[beside[1], "v2"] = [name]
        elif shard := _V1_SHARD.fullmatch(name):
            files.setdefault((shard[1], "v1"), []).append(name)
        else:
            files[name, "v1"] = [name]
    for name in sorted(names):
        beside = _BESIDE.fullmatch(name)
        if beside and (beside[1], "v2") in files and not name.endswith((".index", ".meta")):
            files[beside[1], "v2"].append(name)
    return [Candidate(prefix, file_format, tuple(found)) for (prefix, file_format), found in sorted(files.items())]


def named_like_checkpoints(folder: Path) -> list[str]:
    """The prefixes of everything in a folder that is a checkpoint or named like one, which may be damaged."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    found = {one.prefix for one in candidates([name for name in names if ends_as_table(folder / name)], names)}
    data = {beside[1] for name in names if (beside := _BESIDE.fullmatch(name)) and ".data-" in name[len(beside[1]) :]}
    files = {name for name in names if _V1_NAME.fullmatch(name) or f"{name}.meta" in names}
    indexes = {prefix for name in names if _V1_NAME.fullmatch(prefix := name.removesuffix(".index")) and prefix != name}
    shards = {shard[1] for name in names if (shard := _V1_SHARD.fullmatch(name)) and f"{shard[1]}.meta" in names}
    return sorted(found | data | files | indexes | shards)


def choose(
    where: str, found: list[Candidate], state: str | None, step: int | None, otherwise: str = "name one of them"
) -> Candidate:
    """The candidate that the user means.

    Args:
      where: what errors call the directory or archive.
      found: the checkpoints there.
      state: the text of the `checkpoint` file; None where there is none.
      step: the one asked for; None is the newest that `state` names, or the only one.
      otherwise: what to do where several could be meant.

    Raises:
      CheckpointError: none is, or more than one.
    """
    listed = [candidate.prefix for candidate in found]
    if step is not None:
        found = [candidate for candidate in found if candidate.prefix.endswith(f"-{step}")]
        if not found:
            raise CheckpointError(f"{where}: no checkpoint of step {step}{_there_are(listed)}")
    elif state is not None:
        found = _named(where, found, newest_of(where, state))
    if not found:
        raise CheckpointError(f"{where}: no checkpoint in it")
    if len(found) > 1:
        newest = max((int(end[1]) for one in found if (end := _STEP.search(one.prefix))), default=None)
        by_step = "" if step is not None or newest is None else f", or its step, such as --step {newest}"
        raise several(where, [candidate.prefix for candidate in found], otherwise + by_step)
    return found[0]


def _named(where: str, found: list[Candidate], newest: str) -> list[Candidate]:
    """The candidates that a `checkpoint` file names; or else the only one that is there."""
    if pattern := _V1_PATTERN.fullmatch(newest):
        newest = pattern[1]
    # By its last part: where it was written is not where it is.
    named = [candidate for candidate in found if Path(candidate.prefix).name in _last_parts(newest)]
    gone = f"its 'checkpoint' file names {shown(newest)}, which is not there"
    if not named and len(found) == 1:
        return [replace(found[0], note=f"{gone}: {shown(Path(found[0].prefix).name)} was read")]
    if not named:
        raise CheckpointError(f"{where}: {gone}{_there_are([candidate.prefix for candidate in found])}")
    return named


def _last_parts(path: str) -> tuple[str, ...]:
    """The name of the file in a path, read as one of this system and as one of Windows."""
    return Path(path).name, PureWindowsPath(path).name


def several(where: str, names: list[str], what_to_do: str) -> CheckpointError:
    """The error for a name that could mean several checkpoints."""
    return CheckpointError(f"{shown(where)}: {len(names)} checkpoints: {_listed(names)}; {what_to_do}")


def newest_of(where: str, state: str) -> str:
    """The newest checkpoint's path by a `checkpoint` file, a CheckpointState in protobuf's text format.

    As in TensorFlow, the last of several lines counts. Source: tensorflow/python/training/checkpoint_state.proto.

    Raises:
      CheckpointError: it names none, or is too long to be such a file.
    """
    if len(state) > LARGEST_STATE:
        raise CheckpointError(
            f"{where}: its 'checkpoint' file is longer than {LARGEST_STATE} bytes; name the checkpoint itself"
        )
    found = re.findall(r"""^[ \t]*model_checkpoint_path[ \t]*:[ \t]*(["'])((?:[^\\\n]|\\.)*?)\1""", state, re.MULTILINE)
    if not found:
        raise CheckpointError(f"{where}: its 'checkpoint' file names no checkpoint; name the checkpoint itself")
    return _unescaped(found[-1][1])


def _in_directory(directory: Path, step: int | None) -> tuple[Path, str]:
    """The file or prefix in a directory, and what a user should know of the choice."""
    where = shown(str(directory))
    state = directory / "checkpoint"
    text = _state_text(state) if state.is_file() and not ends_as_table(state) else None
    if text is not None and step is None:
        named = newest_of(where, text)
        # Relative to the directory, or absolute; and then the directory can have moved since.
        for path in (directory / named, *(directory / name for name in _last_parts(named) if name)):
            if is_file(index_path(path)) or is_file(path) or _v1_shards(path):
                return path, ""
    if text is None and index_path(directory / "variables" / "variables").is_file():
        return directory / "variables" / "variables", ""
    names = [path.name for path in directory.iterdir()]
    tables = [name for name in names if ends_as_table(directory / name)]
    try:
        chosen = choose(where, candidates(tables, names), text, step)
        return directory / chosen.prefix, chosen.note
    except CheckpointError:
        if names and not tables and text is None and step is None:
            raise CheckpointError(
                f"{where}: a directory without a checkpoint: no 'checkpoint' file, no checkpoint and no SavedModel's "
                "variables in it"
            ) from None
        raise


def _state_text(state: Path) -> str:
    with state.open("rb") as file:
        return file.read(LARGEST_STATE + 1).decode(errors="replace")


def _unescaped(text: str) -> str:
    """C escapes, of bytes: protobuf writes a letter beyond ASCII as octal escapes of its UTF-8."""
    simple: Mapping[str, bytes] = {"n": b"\n", "r": b"\r", "t": b"\t"}

    def byte(escape: re.Match[str]) -> str:
        code = escape[1]
        if code[0] in "01234567":
            found = bytes([int(code, 8) & 0xFF])
        elif code[0] in "xX" and len(code) > 1:
            found = bytes([int(code[1:], 16)])
        else:
            found = simple.get(code, code.encode())
        return found.decode("latin-1")

    raw = re.sub(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", byte, text.encode().decode("latin-1"), flags=re.DOTALL)
    return raw.encode("latin-1", errors="replace").decode(errors="replace")


def _near(source: Path) -> str:
    """A list of the prefixes that start with this one, for an error message."""
    if not source.parent.is_dir():
        return ""
    names = sorted(path.name.removesuffix(".index") for path in source.parent.iterdir() if path.name.endswith(".index"))
    near = [name for name in names if name.startswith(source.name)]
    return f"; there are: {_listed(near)}" if near else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown(name) for name in names[:_LISTED]) + more


def _there_are(names: list[str]) -> str:
    return f"; there are: {_listed(names)}" if names else ", nor any other"


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _v1_shards(prefix: Path, count: str = "?????") -> tuple[Path, ...]:
    """The shards of a V1 checkpoint, in order: `count` of them, or all that exist."""
    if not prefix.parent.is_dir():
        return ()
    found = {
        path: match
        for path in prefix.parent.iterdir()
        if (match := _V1_SHARD.fullmatch(path.name)) and match[1] == prefix.name and count in ("?????", match[3])
    }
    if not found:
        return ()
    counts = sorted({match[3] for match in found.values()})
    if len(counts) > 1:
        raise several(str(prefix), [f"{prefix.name}-?????-of-{count}" for count in counts], "name one of them")
    wanted = int(counts[0])
    if {int(match[2]) for match in found.values()} != set(range(wanted)):
        raise CheckpointError(
            f"{shown(str(prefix))}: its shards are not all there: found {len(found)} of {wanted}; get the others"
        )
    return tuple(sorted(found))
