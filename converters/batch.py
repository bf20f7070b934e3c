"""Many conversions at once: every checkpoint of a training run, or of a pattern, in processes here or on a cluster.

A conversion is a unit that can be run anywhere, and again: its output appears whole or not at all, and a record of what
it was made from is written after it. A unit whose record still holds is done, and is skipped.
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.checkpoint.bundle import data_paths, index_path
from converters.checkpoint.locate import candidates, ends_as_table, is_archive, locate, prefix_name
from converters.conversion import convert
from converters.errors import InputError, first_line
from converters.sources import CONVERTED_SUFFIXES, PathLike
from converters.targets import TARGETS
from converters.targets.atomic import atomic
from converters.temporary import left_over
from converters.views import View
from slimport import __version__

Progress = Callable[[int, int], None]
"""Is told how many units are done, and how many there are."""

CONVERTED, SKIPPED, FAILED = "converted", "skipped", "failed"

_RECORDS = ".slimport"
_DROPPED_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".ckpt", *CONVERTED_SUFFIXES)
_CONNECT_S, _WORKER_S = 5, 30


@dataclass(frozen=True)
class Unit:
    """One conversion: `options` are `convert`'s arguments beside the source and the destination."""

    source: Path
    destination: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: `status` is `converted`, `skipped` or `failed`; `message`, which network or why not."""

    unit: Unit
    status: str
    message: str = ""
    seconds: float = 0.0


def convert_all(
    source: PathLike,
    folder: PathLike,
    *,
    suffix: str | None = None,
    force: bool = False,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress = lambda *_: None,
    **options: Any,
) -> list[Outcome]:
    """Converts every checkpoint of a training run, or every source that a pattern matches, into a folder.

    A unit that fails does not stop the others.

    Args:
      source: a folder with checkpoints, a pattern (`run/model.ckpt-*`, `runs/*/`), or one source.
      folder: where outputs go, each named after its checkpoint; it is made where it does not exist.
      suffix: of the outputs; None is that of `to`, or `.safetensors`.
      force: whether what is done is done again.
      workers: processes to run at once; None is one for each core.
      dask: the address of a Dask scheduler, whose workers then run the units instead. They need slimport, and the
        source and the folder under the same paths.
      progress: is told how far it is.
      options: of `convert`: `to`, `scope`, ...

    Returns:
      What became of each unit, in the order of their sources.

    Raises:
      InputError: there is nothing to convert, two outputs would have one name, the folder cannot be made, or no cluster
        answers.
    """
    units = _units(source, Path(folder), suffix or _suffix(options.get("to")), options)
    try:
        (Path(folder) / _RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from error
    batch = secrets.token_hex(8)
    if dask:
        run = _on_dask(dask, units, force, batch)
    else:
        run = _in_processes(units, force, batch, workers or _cores())
    outcomes: dict[Path, Outcome] = {}
    progress(0, len(units))
    for outcome in run:
        outcomes[outcome.unit.destination] = outcome
        progress(len(outcomes), len(units))
    return [outcomes[unit.destination] for unit in units]


def run_unit(unit: Unit, force: bool = False, batch: str = "") -> Outcome:
    """Runs one unit, wherever it is called; what goes wrong is in the outcome.

    A unit that was converted in this very `batch` is not converted again: a cluster runs a unit twice where it loses
    the worker that had its outcome.
    """
    start = time.perf_counter()
    record = unit.destination.parent / _RECORDS / f"{unit.destination.name}.json"
    try:
        made_from = _description(unit)
        found = _read(record)
        made_in = found.pop("batch", None) if isinstance(found, dict) else None
        if found == {**made_from, "outputs": _fingerprints(_outputs(unit.destination))}:
            if batch and made_in == batch:
                return Outcome(unit, CONVERTED, "by a worker that was lost")
            if not force:
                return Outcome(unit, SKIPPED)
        record.unlink(missing_ok=True)
        done = convert(unit.source, unit.destination, **unit.options)
        outputs = _fingerprints(_outputs(unit.destination))
        _write(record, {**made_from, "outputs": outputs, "batch": batch})
        return Outcome(unit, CONVERTED, done.recognition.network.name, time.perf_counter() - start)
    except InputError as error:
        message = str(error)
    # One unit's trouble is not the others'.
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {first_line(error)}"
    return Outcome(unit, FAILED, " ".join(message.split()), time.perf_counter() - start)


def _units(source: PathLike, folder: Path, suffix: str, options: Mapping[str, Any]) -> list[Unit]:
    units: dict[Path, Unit] = {}
    for path in _sources(os.fspath(source)):
        name = path.name
        for dropped in _DROPPED_SUFFIXES:
            name = name.removesuffix(dropped)
        unit = Unit(path, folder / f"{name}{suffix}", options)
        if (other := units.setdefault(unit.destination, unit)) is not unit:
            raise InputError(
                f"{os.fspath(source)}: {other.source} and {unit.source} would both be {unit.destination.name}; convert "
                f"them into two folders"
            )
    return list(units.values())


def _sources(source: str) -> list[Path]:
    """The sources that are meant, each once, in order: numbers in names count as numbers."""
    path = Path(source)
    if path.is_dir():
        found = _checkpoints(path) or ([path] if _source_of(path) else [])
        if not found:
            raise InputError(f"{source}: no checkpoint in it; a pattern like {path / '*'}/ takes those of its folders")
    elif glob.has_magic(source) and not path.exists():
        # Path.glob takes no absolute pattern.
        matches = [Path(match) for match in glob.glob(source, recursive=True)]  # noqa: PTH207
        found = [one for match in matches if (one := _source_of(match)) is not None]
        if not found:
            raise InputError(f"{source}: no checkpoint and no converted file matches")
    else:
        return [path]
    return sorted(set(found), key=_natural)


def _checkpoints(folder: Path) -> list[Path]:
    names = [path.name for path in folder.iterdir()]
    tables = [name for name in names if ends_as_table(folder / name)]
    return [folder / candidate.prefix for candidate in candidates(tables, names)]


def _source_of(path: Path) -> Path | None:
    """The source that a file or folder belongs to; None for a file that is of none."""
    if path.is_dir():
        return path if _checkpoints(path) or (path / "saved_model.pb").is_file() else None
    prefix = path.with_name(prefix_name(path.name))
    if index_path(prefix).is_file():
        return prefix
    known = path.name.endswith(CONVERTED_SUFFIXES) or ends_as_table(path) or is_archive(path)
    return path if known else None


def _natural(path: Path) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def _suffix(framework: str | None) -> str:
    found = next((target.suffix for target in TARGETS if framework in (None, target.framework)), None)
    if found is None:
        known = sorted({target.framework for target in TARGETS})
        raise InputError(f"--to {framework}: must be one of {', '.join(known)}")
    return found


def _in_processes(units: Sequence[Unit], force: bool, batch: str, workers: int) -> Iterator[Outcome]:
    """Runs units in processes. One that kills its process (no memory left, say) fails alone."""
    waiting = list(units)
    while waiting:
        # Spawned: a fork of a process with threads can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(waiting)), context, initializer=_ignore_interrupts) as pool:
            futures = {pool.submit(run_unit, unit, force, batch): unit for unit in waiting}
            try:
                for future in as_completed(futures):
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        continue
                    waiting.remove(outcome.unit)
                    yield outcome
            finally:
                pool.shutdown(cancel_futures=True)
        _clear(waiting)
        if waiting and workers == 1:
            # They run in order, so it was the first.
            yield Outcome(waiting.pop(0), FAILED, "its process was killed; is there enough memory?")
        # The process of one of them was killed, and all others with it: one at a time shows which.
        workers = 1


def _ignore_interrupts() -> None:
    # Ctrl-C goes to every process of the terminal; the one that started the others ends them in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_dask(address: str, units: Sequence[Unit], force: bool, batch: str) -> Iterator[Outcome]:
    """Runs units on a cluster, which runs those of a lost worker again on the others."""
    from asyncio import CancelledError

    distributed = frameworks.import_distributed()
    try:
        client = distributed.Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"--dask {address}: no Dask scheduler answers there: {first_line(error)}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKER_S)
        except TimeoutError as error:
            raise InputError(f"--dask {address}: the cluster has no worker; start 'dask worker {address}'") from error
        # Not pure: what the same unit gives depends on files.
        futures = {client.submit(run_unit, _absolute(unit), force, batch, pure=False): unit for unit in units}
        for future in distributed.as_completed(futures):
            try:
                yield replace(future.result(), unit=futures[future])
            # Whatever the cluster says of a unit that it gave up.
            except (Exception, CancelledError) as error:
                yield Outcome(futures[future], FAILED, f"the cluster gave it up: {type(error).__name__}: {error}")
    _clear(units)


def _absolute(unit: Unit) -> Unit:
    """The unit for a worker that may stand in another folder."""
    return replace(unit, source=unit.source.absolute(), destination=unit.destination.absolute())


def _clear(units: Iterable[Unit]) -> None:
    """Removes what was half-written by processes that were killed."""
    for unit in units:
        for temporary in left_over(unit.destination):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _description(unit: Unit) -> dict[str, Any]:
    """What a unit's output depends on."""
    return {
        "slimport": __version__,
        "options": {name: str(value) if isinstance(value, View) else value for name, value in unit.options.items()},
        "source": unit.source.name,
        "files": _fingerprints(_files(unit.source)),
    }


def _files(source: Path) -> list[Path]:
    """The files that hold a source."""
    if source.is_file() and (source.name.endswith(CONVERTED_SUFFIXES) or is_archive(source)):
        return [source]
    located = locate(source)
    return list(located.v1_files) or [index_path(located.path), *data_paths(located.path)]


def _outputs(destination: Path) -> list[Path]:
    """The files of an output, as far as they are there."""
    if destination.is_file():
        return [destination]
    if destination.is_dir():
        return sorted(path for path in destination.rglob("*") if path.is_file())
    index = index_path(destination)
    return [index, *data_paths(destination)] if index.is_file() else []


def _fingerprints(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of change of each file, as JSON has them; no size for one that is missing."""
    found: list[list[Any]] = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            found.append([path.name, None, None])
        else:
            found.append([path.name, state.st_size, state.st_mtime_ns])
    return found


def _read(record: Path) -> Any:
    try:
        return json.loads(record.read_text())
    except (OSError, ValueError):
        return None


def _write(record: Path, content: Mapping[str, Any]) -> None:
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(content))
