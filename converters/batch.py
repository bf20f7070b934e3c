"""Many conversions at once: every checkpoint of a training run or pattern, in local processes or on a cluster.

Each conversion is a job that can be run anywhere, and repeatedly: its output appears whole or not at all, and then a
record of its inputs is written. A job whose record is still right is done, and is skipped.
"""

from __future__ import annotations

import glob
import json
import logging
import multiprocessing
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.checkpoint.bundle import data_paths, index_path
from converters.checkpoint.locate import is_archive, locate, named_like_checkpoints, prefix_name, shard_prefix
from converters.conversion import convert
from converters.errors import InputError, first_line
from converters.files import atomic, fingerprints, remove_temporary
from converters.formats import CONVERTED_SUFFIXES, FORMATS, output_files
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
        if found == {**inputs, "outputs": fingerprints(output_files(job.destination))}:
            if batch and made_in == batch:
                return Outcome(job, CONVERTED, "by a worker that was lost")
            if not force:
                return Outcome(job, SKIPPED)
        record.unlink(missing_ok=True)
        done = convert(job.source, job.destination, **job.options)
        outputs = fingerprints(output_files(job.destination))
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
        found = _checkpoints(path) or ([path] if _source_of(path, {}) else [])
        if not found:
            raise InputError(f"{source}: no checkpoint in it; a pattern like {path / '*'}/ takes those of its folders")
    elif glob.has_magic(source) and not path.exists():
        # Path.glob takes no absolute pattern.
        matches = [Path(match) for match in glob.glob(source, recursive=True)]  # noqa: PTH207
        beside: dict[Path, list[Path]] = {}
        found = [one for match in matches if (one := _source_of(match, beside)) is not None]
        if not found:
            raise InputError(f"{source}: no checkpoint and no converted file matches")
    else:
        return [path]
    return sorted(set(found), key=_natural)


def _checkpoints(folder: Path) -> list[Path]:
    """Everything in a folder that is named like a checkpoint: one that cannot be read is a job that fails."""
    return [folder / prefix for prefix in named_like_checkpoints(folder)]


def _source_of(path: Path, beside: dict[Path, list[Path]]) -> Path | None:
    """The source that a file or folder belongs to; None for other files. `beside` is filled with folders' sources."""
    if path.is_dir():
        return path if _checkpoints(path) or (path / "saved_model.pb").is_file() else None
    if path.name.endswith(CONVERTED_SUFFIXES) or is_archive(path):
        return path
    if path.parent not in beside:
        beside[path.parent] = _checkpoints(path.parent)
    prefixes = (path.with_name(name) for name in (prefix_name(path.name), shard_prefix(path.name)))
    return next((prefix for prefix in prefixes if prefix in beside[path.parent]), None)


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
        with ProcessPoolExecutor(min(workers, len(waiting)), context, initializer=_end_with_parent) as pool:
            with _children_ignore_interrupts():
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


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Ctrl-C goes to every process of the terminal: children of this block leave it to this one, from their start on.

    The mask of signals is inherited, before a line of Python runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It would unblock the signal when it starts.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent does, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_dask(address: str, jobs: Sequence[Job], force: bool, batch: str) -> Iterator[Outcome]:
    """Runs jobs on a cluster, which repeats those of a lost worker on other workers."""
    distributed = frameworks.require("distributed")
    # It writes tracebacks of what is an error in one line here, and each of its loggers has a level of its own.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = distributed.Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"--dask {address}: no Dask scheduler answers there: {first_line(error)}") from error
    try:
        _wait_for_workers(client, address)
        # Not pure: the outcome of a job depends on files.
        futures = {client.submit(run_job, _absolute(job), force, batch, pure=False): job for job in jobs}
        yield from _outcomes(distributed, client, address, futures)
    finally:
        # The scheduler may be gone.
        with suppress(Exception):
            client.close(timeout=_CONNECT_S)
    remove_temporary(job.destination for job in jobs)


def _wait_for_workers(client: Any, address: str) -> None:
    try:
        if not client.scheduler_info()["workers"]:
            print(f"slimport: {address} has no worker yet; waiting {_WORKER_S} s for one", file=sys.stderr)
        client.wait_for_workers(1, timeout=_WORKER_S)
    # The time is over, or the scheduler is lost, for which each connection has its own exception.
    except Exception as error:
        raise InputError(
            f"--dask {address}: the cluster has no worker, or is lost; start 'dask worker {address}'"
        ) from error


def _outcomes(distributed: Any, client: Any, address: str, futures: Mapping[Any, Job]) -> Iterator[Outcome]:
    """Yields the outcomes as they come.

    Raises:
      InputError: the scheduler or all workers are lost.
    """
    from asyncio import CancelledError

    waiting = set(futures)
    while waiting:
        done = set()
        # Of a lost scheduler, the cluster raises its own exception.
        with suppress(Exception, CancelledError):
            done = distributed.wait(waiting, timeout=_WORKER_S, return_when="FIRST_COMPLETED").done
        lost = not done
        for future in done:
            try:
                outcome = replace(future.result(timeout=_CONNECT_S), job=futures[future])
            except distributed.TimeoutError:
                # Its outcome was lost with the worker that had it: another runs it again, if there is one.
                lost = True
                continue
            # The cluster raises its own exceptions for a job that it gave up, and for all if the scheduler is lost.
            except (Exception, CancelledError) as error:
                if lost := not _alive(client):
                    break
                outcome = Outcome(futures[future], FAILED, f"the cluster gave it up: {type(error).__name__}: {error}")
            waiting.remove(future)
            yield outcome
        if lost and not _alive(client):
            raise InputError(
                f"--dask {address}: the scheduler or all workers are lost, with {len(waiting)} of {len(futures)} to "
                "do; run it again when they are back: what is done is skipped"
            )


def _alive(client: Any) -> bool:
    """Whether the scheduler answers and has a worker."""
    try:
        return bool(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)))
    # Of whatever library the connection was.
    except Exception:
        return False


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
        "files": fingerprints(_files(job.source)),
    }


def _files(source: Path) -> list[Path]:
    """The files of a source."""
    if source.is_file() and (source.name.endswith(CONVERTED_SUFFIXES) or is_archive(source)):
        return [source]
    located = locate(source)
    return list(located.v1_files) or [index_path(located.path), *data_paths(located.path)]


def _read(record: Path) -> Any:
    try:
        return json.loads(record.read_text())
    except (OSError, ValueError):
        return None


def _write(record: Path, content: Mapping[str, Any]) -> None:
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(content))
