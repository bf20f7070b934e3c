"""Many conversions at once: all of a run, only what is new, one that fails, a process or a worker that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Run

from converters import InputError, batch, convert, open_checkpoint
from converters.batch import Job, convert_all
from converters.files import atomic

Slimport = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path, small_v2: Path) -> Path:
    """A training run's folder, with what else stands in one."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (0, 900, 1000, 10000):
        for path in small_v2.parent.glob("small.ckpt.*"):
            shutil.copy(path, folder / path.name.replace("small.ckpt", f"model.ckpt-{step}"))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-10000"\n')
    (folder / "graph.pbtxt").write_text("node {}")
    (folder / "events.out.tfevents.1").write_bytes(b"events")
    return folder


def statuses(outcomes: list[batch.Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def damage(run: Path, step: int) -> None:
    data = run / f"model.ckpt-{step}.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1000])


def test_every_checkpoint_of_a_run_is_converted_as_one_by_one(slimport: Slimport, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = slimport("convert", f"{run}/", f"{out}/", "--workers", "2")
    assert (done.code, done.err) == (0, ""), done
    names = [f"model.ckpt-{step}.safetensors" for step in (0, 900, 1000, 10000)]
    assert [line.split()[1] for line in done.out.splitlines()[1:]] == names
    assert done.out.startswith(f"{out}/: 4 converted\n")
    assert sorted(path.name for path in out.iterdir()) == sorted([".slimport", *names])
    for name in names:
        convert(run / name.removesuffix(".safetensors"), tmp_path / "one.safetensors")
        assert (out / name).read_bytes() == (tmp_path / "one.safetensors").read_bytes()


def test_what_is_done_is_skipped_until_something_changes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert statuses(convert_all(run, out)) == ["converted"] * 4
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert statuses(convert_all(run, out)) == ["skipped"] * 4
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == before
    (out / "model.ckpt-0.safetensors").unlink()
    (out / "model.ckpt-900.safetensors").write_bytes(b"something else")
    os.utime(run / "model.ckpt-1000.data-00000-of-00001", ns=(1, 1))
    assert statuses(convert_all(run, out)) == ["converted", "converted", "converted", "skipped"]
    assert statuses(convert_all(run, out, force=True)) == ["converted"] * 4
    assert statuses(convert_all(run, out, scope="resnet_v2")) == ["converted"] * 4


def test_a_job_that_a_cluster_runs_twice_is_converted_once(run: Path, tmp_path: Path) -> None:
    (tmp_path / ".slimport").mkdir()
    job = Job(run / "model.ckpt-0", tmp_path / "m.safetensors")
    times = []
    for made_in in ("first", "first", "second"):
        outcome = batch.run_job(job, True, made_in)
        assert outcome.status == "converted"
        times.append(job.destination.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]


def test_a_failure_is_reported_at_the_end_and_stops_nothing(slimport: Slimport, run: Path, tmp_path: Path) -> None:
    damage(run, 900)
    done = slimport("convert", run, f"{tmp_path}/out/")
    assert done.code == 2
    assert done.err == f"slimport: {run}: 1 of 4 could not be converted; the list above says why\n"
    assert done.out.startswith(f"{tmp_path}/out/: 3 converted, 1 failed\n")
    (line,) = [line for line in done.out.splitlines() if " failed  " in line]
    assert "model.ckpt-900" in line
    assert "it is cut off; get it again" in line
    assert not (tmp_path / "out" / "model.ckpt-900.safetensors").exists()
    done = slimport("convert", run, f"{tmp_path}/out/")
    assert done.out.startswith(f"{tmp_path}/out/: 3 skipped, 1 failed\n")


def test_a_pattern_takes_what_are_checkpoints(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    out = tmp_path / "out"
    one = [outcome.job.source.name for outcome in convert_all(f"{run}/*-1000*", out)]
    assert one == ["model.ckpt-1000", "model.ckpt-10000"]
    assert [job.destination.name for job in batch._jobs(f"{tmp_path}/[or]*/", out, ".pth", {})] == [
        "other.pth",
        "run.pth",
    ]
    with pytest.raises(InputError, match=r"would both be model\.ckpt-0\.safetensors"):
        convert_all(f"{tmp_path}/*/*-0.index", out)
    with pytest.raises(InputError, match="no checkpoint and no converted file matches"):
        convert_all(f"{run}/*.pbtxt", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint in it"):
        convert_all(tmp_path / "empty", out)


def test_outputs_of_several_files_and_other_formats_are_known_to_be_done(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert statuses(convert_all(f"{run}/*-0.index", out, to="slim")) == ["converted"]
    assert statuses(convert_all(f"{run}/*-0.index", out, to="slim")) == ["skipped"]
    with open_checkpoint(out / "model.ckpt-0.ckpt") as ours, open_checkpoint(run / "model.ckpt-0") as theirs:
        assert set(ours) == set(theirs)
    assert statuses(convert_all(f"{out}/*.ckpt.index", out, suffix=".pth")) == ["converted"]
    assert statuses(convert_all(f"{out}/*.pth", out)) == ["converted"]
    with pytest.raises(InputError, match="--to caffe: must be one of"):
        convert_all(run, out, to="caffe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "OUT/", "--step", "900"), "--step chooses one checkpoint of a run"),
        (("RUN", "OUT/m.pth", "--force"), "are for a folder, which ends in /"),
        (("RUN", "OUT/", "--dask", "tcp://127.0.0.1:9"), "no Dask scheduler answers there"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    slimport: Slimport,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__RETRY__COUNT", "0")
    monkeypatch.setattr(batch, "_CONNECT_S", 1)
    done = slimport("convert", *(a.replace("RUN", str(run)).replace("OUT", str(tmp_path)) for a in arguments))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert message in done.err


def killer(job: Job, force: bool, made_in: str) -> batch.Outcome:
    """`run_job`, except that one job's process is killed in the middle of its output."""
    if job.destination.name.startswith("model.ckpt-900"):
        with atomic(job.destination) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    return batch.run_job(job, force, made_in)


def test_a_process_that_is_killed_takes_no_other_job_with_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(batch, "run_job", killer)
    done = convert_all(run, out, workers=2)
    assert [outcome.status for outcome in done if outcome.job.source.name != "model.ckpt-900"] == ["converted"] * 3
    assert [outcome.message for outcome in done if outcome.status == "failed"] == [
        "its process was killed; is there enough memory?"
    ]
    assert sorted(path.name for path in out.iterdir() if path.name != ".slimport") == [
        f"model.ckpt-{step}.safetensors" for step in (0, 1000, 10000)
    ]


def killed_once(job: Job, force: bool, made_in: str) -> batch.Outcome:
    """`run_job`, except that the first worker that gets one job is killed in the middle of its output."""
    mark = Path(f"{job.destination.parent}.killed")
    if job.source.name == "model.ckpt-2003" and not mark.exists():
        mark.write_text(str(os.getpid()))
        with atomic(job.destination) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    return batch.run_job(job, force, made_in)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Ctrl-C goes to a group of processes")
def test_an_interrupt_while_processes_start_is_one_line(run: Path, tmp_path: Path) -> None:
    code = """
import multiprocessing, os, signal, sys, threading, time
def interrupted():
    while not multiprocessing.active_children():
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(0, signal.SIGINT)
threading.Thread(target=interrupted, daemon=True).start()
from converters.cli import main
main()
"""
    command = [sys.executable, "-c", code, "convert", str(run), f"{tmp_path / 'out'}/", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, start_new_session=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "slimport: interrupted")


CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    workers = int(sys.argv[1])
    with LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as local:
        print(local.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[[int], tuple[subprocess.Popen[str], str]]]:
    """A function that starts a scheduler in a process, with workers, and returns the process and the address."""
    pytest.importorskip("distributed")
    (tmp_path / "cluster.py").write_text(CLUSTER)
    with ExitStack() as stack:

        def start(workers: int) -> tuple[subprocess.Popen[str], str]:
            command = [sys.executable, str(tmp_path / "cluster.py"), str(workers)]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, process.stdout.readline().strip()

        yield start


def test_a_cluster_without_workers_is_said(
    slimport: Slimport, run: Path, tmp_path: Path, start_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_WORKER_S", 0.2)
    _, address = start_cluster(0)
    done = slimport("convert", run, f"{tmp_path / 'out'}/", "--dask", address)
    assert done.code == 2
    assert done.err.splitlines() == [
        f"slimport: {address} has no worker yet; waiting 0.2 s for one",
        f"slimport: --dask {address}: the cluster has no worker, or is lost; start 'dask worker {address}'",
    ]


def test_a_lost_scheduler_is_one_line(
    run: Path, tmp_path: Path, start_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_CONNECT_S", 1)
    process, address = start_cluster(1)

    def killed(done: int, _: int) -> None:
        if done == 1:
            process.kill()

    with pytest.raises(InputError, match=r"the scheduler or all workers are lost, with .* run it again") as raised:
        convert_all(run, tmp_path / "out", dask=address, progress=killed)
    assert "\n" not in str(raised.value)


class LostFuture:
    """A job whose outcome cannot be had."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def result(self, timeout: float) -> batch.Outcome:
        assert timeout
        raise self.error


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError(), OSError("closed")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_whose_outcome_was_lost_is_waited_for_only_while_there_are_workers(
    error: BaseException, workers: int
) -> None:
    job = Job(Path("a"), Path("b"))
    future = LostFuture(error)
    waits = iter(range(3))

    def wait(futures: set[LostFuture], **_: object) -> SimpleNamespace:
        if next(waits) == 2:
            future.error = OSError("given up")
        return SimpleNamespace(done=set(futures))

    distributed = SimpleNamespace(wait=wait, TimeoutError=TimeoutError)
    client = SimpleNamespace(run_on_scheduler=lambda _: workers)
    found = batch._outcomes(distributed, client, "tcp://x", {future: job})
    if workers:
        (outcome,) = found
        assert outcome.status == "failed"
        assert next(waits, 3) == (3 if isinstance(error, TimeoutError) else 1)
    else:
        with pytest.raises(InputError, match="the scheduler or all workers are lost, with 1 of 1 to do"):
            list(found)


@pytest.fixture
def cluster() -> Iterator[object]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as local:
        yield local


def test_a_cluster_that_loses_a_worker_in_the_middle_loses_nothing(
    run: Path, tmp_path: Path, small_v2: Path, cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(2000, 2010):
        for path in small_v2.parent.glob("small.ckpt.*"):
            shutil.copy(path, run / path.name.replace("small.ckpt", f"model.ckpt-{step}"))
    damage(run, 900)
    out = tmp_path / "out"
    monkeypatch.setattr(batch, "run_job", killed_once)
    seen: list[tuple[int, int]] = []
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    done = convert_all(run, out, dask=address, progress=lambda *step: seen.append(step))
    assert (tmp_path / "out.killed").exists()
    assert sorted(statuses(done)) == ["converted"] * 13 + ["failed"]
    assert seen[-1] == (14, 14)
    monkeypatch.undo()
    convert_all(run, tmp_path / "here")
    here = {path.name: path.read_bytes() for path in (tmp_path / "here").glob("*.safetensors")}
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == here
    assert len(here) == 13
    assert statuses(convert_all(run, out)).count("skipped") == 13
