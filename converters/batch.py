"""Many conversions at once: every checkpoint of a training run or pattern, in local processes or on a cluster.

Each conversion is a job that can be run anywhere, and repeatedly: its output appears whole or not at all, and then a
record of its inputs is written. A job whose record is still right is done, and is skipped.
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import re
import secrets
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
from converters.files import atomic, remove_temporary
from converters.formats import CONVERTED_SUFFIXES, FORMATS
from converters.variables import PathLike
from converters.weights.selection import Selection
from converters.weights.user_graph import GraphOptions
from slimport import __version__

Progress = Callable[[int, int], None]
"""Is called with the number of jobs that are done, and of all jobs."""

CONVERTED, SKIPPED, FAILED = "converted", "skipped", "failed"

_RECORDS = ".slimport"
_DROPPED_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".ckpt", *CONVERTED_SUFFIXES)
_CONNECT_S, _WORKER_S = 5, 30


@dataclass(frozen=True)
class Job:
    """One conversion; `options` are the other arguments of `convert`."""

    source: Path
    destination: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of one conversion.

    status: `converted`, `skipped` or `failed`.
    message: the network's name, or the error.
    """

    job: Job
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

    A job that fails does not stop the others.

    Args:
      source: a folder with checkpoints, a pattern (`run/model.ckpt-*`, `runs/*/`), or one source.
      folder: of the outputs, each named after its checkpoint; it is made if it does not exist.
      suffix: of the outputs; None is that of `to`, or `.safetensors`.
      force: whether jobs that are done run again.
      workers: processes to run at once; None is one for each core.
      dask: the address of a Dask scheduler, whose workers then run the jobs instead. They need slimport, and the
        source and the folder under the same paths.
      progress: is called after every job.
      options: of `convert`: `to`, `scope`, ...

    Returns:
      The result of each conversion, in the order of their sources.

    Raises:
      InputError: there is nothing to convert, two outputs would have one name, the folder cannot be made, or no cluster
        answers.
    """
    jobs = _jobs(source, Path(folder), suffix or _suffix(options.get("to")), options)
    try:
        (Path(folder) / _RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from error
    batch = secrets.token_hex(8)
    if dask:
        run = _on_dask(dask, jobs, force, batch)
    else:
        run = _in_processes(jobs, force, batch, workers or _cores())
    outcomes: dict[Path, Outcome] = {}
    progress(0, len(jobs))
    for outcome in run:
        outcomes[outcome.job.destination] = outcome
        progress(len(outcomes), len(jobs))
    return [outcomes[job.destination] for job in jobs]


def run_job(job: Job, force: bool = False, batch: str = "") -> Outcome:
    """Runs one job in this process; an error becomes a failed outcome.

    A job that was converted in this very `batch` is not converted again: a cluster runs a job twice if it loses the
    worker that had its outcome.
    """
    start = time.perf_counter()
    record = job.destination.parent / _RECORDS / f"{job.destination.name}.json"
    try:
        inputs = _inputs(job)
        found = _read(record)
        made_in = found.pop("batch", None) if isinstance(found, dict) else None
        if found == {**inputs, "outputs": _fingerprints(_outputs(job.destination))}:
            if batch and made_in == batch:
                return Outcome(job, CONVERTED, "by a worker that was lost")
            if not force:
                return Outcome(job, SKIPPED)
        record.unlink(missing_ok=True)
        done = convert(job.source, job.destination, **job.options)
        outputs = _fingerprints(_outputs(job.destination))
        _write(record, {**inputs, "outputs": outputs, "batch": batch})
        return Outcome(job, CONVERTED, done.recognition.network.name, time.perf_counter() - start)
    except InputError as error:
        message = str(error)
    # A failure must not stop the other jobs.
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {first_line(error)}"
    return Outcome(job, FAILED, " ".join(message.split()), time.perf_counter() - start)


def _jobs(source: PathLike, folder: Path, suffix: str, options: Mapping[str, Any]) -> list[Job]:
    jobs: dict[Path, Job] = {}
    for path in _sources(os.fspath(source)):
        name = path.name
        for dropped in _DROPPED_SUFFIXES:
            name = name.removesuffix(dropped)
        job = Job(path, folder / f"{name}{suffix}", options)
        if (other := jobs.setdefault(job.destination, job)) is not job:
            raise InputError(
                f"{os.fspath(source)}: {other.source} and {job.source} would both be {job.destination.name}; convert "
                f"them into two folders"
            )
    return list(jobs.values())


def _sources(source: str) -> list[Path]:
    """The sources in a folder or of a pattern, in order, numbers in their names compared as numbers."""
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
    """The source that a file or folder belongs to; None for other files."""
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
    for format_ in FORMATS:
        if framework in (None, format_.framework):
            return format_.suffixes[0]
    known = sorted({format_.framework for format_ in FORMATS})
    raise InputError(f"--to {framework}: must be one of {', '.join(known)}")


def _in_processes(jobs: Sequence[Job], force: bool, batch: str, workers: int) -> Iterator[Outcome]:
    """Runs jobs in processes. If a process is killed (out of memory, say), only its own job fails."""
    waiting = list(jobs)
    while waiting:
        # Spawned: a fork of a process with threads can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(waiting)), context, initializer=_ignore_interrupts) as pool:
            futures = {pool.submit(run_job, job, force, batch): job for job in waiting}
            try:
                for future in as_completed(futures):
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        continue
                    waiting.remove(outcome.job)
                    yield outcome
            finally:
                pool.shutdown(cancel_futures=True)
        remove_temporary(job.destination for job in waiting)
        if waiting and workers == 1:
            # Jobs run in order, so it was the first.
            yield Outcome(waiting.pop(0), FAILED, "its process was killed; is there enough memory?")
        # A pool ends when one of its processes is killed: running one job at a time shows whose.
        workers = 1


def _ignore_interrupts() -> None:
    # Ctrl-C goes to every process of the terminal; the main process ends the others in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_dask(address: str, jobs: Sequence[Job], force: bool, batch: str) -> Iterator[Outcome]:
    """Runs jobs on a cluster, which repeats those of a lost worker on other workers."""
    from asyncio import CancelledError

    distributed = frameworks.require("distributed")
    try:
        client = distributed.Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"--dask {address}: no Dask scheduler answers there: {first_line(error)}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKER_S)
        except TimeoutError as error:
            raise InputError(f"--dask {address}: the cluster has no worker; start 'dask worker {address}'") from error
        # Not pure: the outcome of a job depends on files.
        futures = {client.submit(run_job, _absolute(job), force, batch, pure=False): job for job in jobs}
        for future in distributed.as_completed(futures):
            try:
                yield replace(future.result(), job=futures[future])
            # The cluster raises its own exceptions for a job that it gave up.
            except (Exception, CancelledError) as error:
                yield Outcome(futures[future], FAILED, f"the cluster gave it up: {type(error).__name__}: {error}")
    remove_temporary(job.destination for job in jobs)


def _absolute(job: Job) -> Job:
    """The job for a worker whose current folder may be another."""
    return replace(job, source=job.source.absolute(), destination=job.destination.absolute())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inputs(job: Job) -> dict[str, Any]:
    """Everything that a job's output depends on, as plain JSON values."""
    return {
        "slimport": __version__,
        "options": {
            name: str(value) if isinstance(value, Selection | GraphOptions) else value
            for name, value in job.options.items()
        },
        "source": job.source.name,
        "files": _fingerprints(_files(job.source)),
    }


def _files(source: Path) -> list[Path]:
    """The files of a source."""
    if source.is_file() and (source.name.endswith(CONVERTED_SUFFIXES) or is_archive(source)):
        return [source]
    located = locate(source)
    return list(located.v1_files) or [index_path(located.path), *data_paths(located.path)]


def _outputs(destination: Path) -> list[Path]:
    """The existing files of an output."""
    if destination.is_file():
        return [destination]
    if destination.is_dir():
        return sorted(path for path in destination.rglob("*") if path.is_file())
    index = index_path(destination)
    return [index, *data_paths(destination)] if index.is_file() else []


def _fingerprints(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of change of each file, for JSON; no size for a missing file."""
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
