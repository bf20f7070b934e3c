"""TensorFlow restores what is written, and a write is whole or did not happen."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.checkpoint import open_checkpoint, write_checkpoint
from converters.errors import CheckpointError, InputError

from .conftest import V2_DTYPES, Arrays, assert_same, random_array, restore, save_v1, save_v2
from .test_exact import NAMES, SIDES

ROOT = Path(__file__).parents[2]
DTYPES = [*V2_DTYPES, "string"]


def assert_holds(prefix: Path, arrays: Arrays) -> None:
    """By TensorFlow's reader and by this one."""
    restored = restore(prefix, arrays)
    checkpoint = open_checkpoint(prefix)
    assert list(checkpoint) == sorted(arrays, key=str.encode)
    for name, array in arrays.items():
        assert_same(restored[name], array, name)
        assert_same(checkpoint[name], array, name)


def test_tensorflow_restores_every_dtype_and_rank(tmp_path: Path) -> None:
    shapes = [(), (4,), (2, 3, 4), (0, 2), (1, 2, 1, 2, 1, 2)]
    arrays = {f"{dtype}/{len(shape)}": random_array(dtype, shape, 3) for dtype in DTYPES for shape in shapes}
    write_checkpoint(tmp_path / "ours", arrays)
    assert_holds(tmp_path / "ours", arrays)


def test_a_saver_restores_thousands_of_variables(tmp_path: Path) -> None:
    arrays = {f"many/{'x' * (i % 50)}{i}": random_array("float32", (i % 7,), i) for i in range(3000)}
    write_checkpoint(tmp_path / "ours", arrays)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        some = list(arrays)[::40]
        made = {name: v1.get_variable(f"v{i}", initializer=arrays[name]) for i, name in enumerate(some)}
        v1.train.Saver(made).restore(session, str(tmp_path / "ours"))
        for name, value in session.run(made).items():
            assert_same(value, arrays[name], name)
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()} == {
        name: array.shape for name, array in arrays.items()
    }


def test_the_data_file_is_tensorflow_s_own_byte_for_byte(tmp_path: Path) -> None:
    arrays = {name: random_array("float32", (5, 2), i) for i, name in enumerate(["a", "a/b", "b", "é"])}
    write_checkpoint(tmp_path / "ours", arrays)
    save_v2(tmp_path / "theirs", arrays)
    suffix = ".data-00000-of-00001"
    assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tensorflow_restores_whatever_there_is(data: st.DataObject, tmp_path: Path) -> None:
    kinds = st.tuples(st.sampled_from(DTYPES), SIDES, st.integers(0, 2**32))
    drawn = data.draw(st.dictionaries(NAMES, kinds, min_size=1, max_size=12))
    arrays = {name: random_array(*kind) for name, kind in drawn.items()}
    write_checkpoint(tmp_path / "any", arrays)
    assert_holds(tmp_path / "any", arrays)


def test_arrays_that_lie_otherwise_in_memory(tmp_path: Path) -> None:
    array = random_array("float32", (6, 8))
    arrays = {"transposed": array.T, "strided": array[::2, ::-3], "number": np.array(3.0)}
    write_checkpoint(tmp_path / "c", arrays | {"swapped": array.astype(">f4")})
    assert_holds(tmp_path / "c", arrays | {"swapped": array})


def test_pairs_are_taken_one_at_a_time(tmp_path: Path) -> None:
    shared = np.empty((50,), np.float32)

    def pairs() -> Iterator[tuple[str, Any]]:
        for i in range(5):
            shared[:] = i
            yield f"w{4 - i}", shared

    write_checkpoint(tmp_path / "c", pairs())
    assert_holds(tmp_path / "c", {f"w{4 - i}": np.full(50, i, np.float32) for i in range(5)})


def test_a_checkpoint_can_be_written_over_itself(tmp_path: Path) -> None:
    arrays = {"a": random_array("float32", (9,)), "s": random_array("string", (3,))}
    write_checkpoint(tmp_path / "c", arrays)
    for _ in range(3):
        with open_checkpoint(tmp_path / "c") as checkpoint:
            write_checkpoint(tmp_path / "c", checkpoint)
        assert_holds(tmp_path / "c", arrays)


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({"w": np.zeros(2, "M8[s]")}, "w: TensorFlow has no dtype"),
        ({"w": np.array([1, None], object)}, "w: an array of objects that are not strings"),
        ({"": np.zeros(1)}, "an empty name"),
        ({"\ud800": np.zeros(1)}, "a name that is not Unicode"),
        ([("w", np.zeros(1)), ("w", np.zeros(1))], "a second variable of this name"),
    ],
)
def test_what_tensorflow_cannot_hold_is_refused_and_leaves_nothing(variables: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=match):
        write_checkpoint(tmp_path / "c", variables)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        write_checkpoint(tmp_path / "none" / "c", {"w": np.zeros(1)})
    save_v1(tmp_path / "old", {"w": np.zeros(1)})
    with pytest.raises(InputError, match="a V1 checkpoint has this name"):
        write_checkpoint(tmp_path / "old", {"w": np.zeros(1)})
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        write_checkpoint(tmp_path / ("n" * 250), {"w": np.zeros(1)})


OLD = {"w": np.arange(50, dtype=np.float32)}
NEW = {"w": -np.arange(60, dtype=np.float32), "v": np.ones(3)}


def is_whole(prefix: Path, arrays: Arrays) -> bool:
    with open_checkpoint(prefix) as checkpoint:
        return set(checkpoint) == set(arrays) and all(np.array_equal(checkpoint[n], a) for n, a in arrays.items())


# For every number that it reads, a process that kills itself at the call of this number that changes the disk.
KILLED = """
import os, signal, sys, numpy
from pathlib import Path
from converters.checkpoint import write_checkpoint
def counted(call):
    def wrapped(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*arguments, **options)
    return wrapped
os.fsync = counted(os.fsync)
for name in ("open", "replace", "unlink"):
    setattr(Path, name, counted(getattr(Path, name)))
for moment in sys.stdin:
    left = int(moment)
    if not (child := os.fork()):
        write_checkpoint(sys.argv[1], {"w": -numpy.arange(60, dtype=numpy.float32), "v": numpy.ones(3)})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Writes the new checkpoint in a process that is killed at a moment; returns its exit code."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "c")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def code(moment: int) -> int:
            print(moment, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield code
        process.stdin.close()


@pytest.mark.parametrize("generation", [1, 2])
def test_killed_at_any_moment_there_is_the_old_checkpoint_or_the_new(
    generation: int, killed: Callable[[int], int], tmp_path: Path
) -> None:
    prefix = tmp_path / "c"
    outcomes = []
    for moment in range(40):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for _ in range(generation):
            write_checkpoint(prefix, OLD)
        code = killed(moment)
        whole = [is_whole(prefix, arrays) for arrays in (OLD, NEW)]
        assert any(whole), moment
        outcomes.append(whole.index(True))
        # And what was left behind is in nobody's way.
        write_checkpoint(prefix, NEW)
        assert is_whole(prefix, NEW)
        assert len([path for path in tmp_path.iterdir() if path.name.startswith("c.data")]) in (1, 2, 3)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}


def test_out_of_space_the_old_checkpoint_is_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for a full disk: the system refuses the same call."""
    prefix = tmp_path / "c"
    write_checkpoint(prefix, OLD)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(InputError, match="c: cannot be written: File too large") as raised:
            write_checkpoint(prefix, {"w": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_the_old_checkpoint_is_as_it_was(tiny_disk: Path) -> None:
    prefix = tiny_disk / "c"
    write_checkpoint(prefix, OLD)
    before = {path.name: path.read_bytes() for path in tiny_disk.iterdir()}
    with pytest.raises(InputError, match="c: cannot be written: No space left on device"):
        write_checkpoint(prefix, {"w": np.zeros(20_000)})
    assert {path.name: path.read_bytes() for path in tiny_disk.iterdir()} == before


def test_a_disk_that_cannot_be_written_to(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(InputError, match="c: cannot be written: Read-only file system"):
        write_checkpoint(tiny_disk / "c", OLD)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def pairs() -> Iterator[tuple[str, Any]]:
        yield "a", np.zeros(1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "c", pairs())
    assert not list(tmp_path.iterdir())
