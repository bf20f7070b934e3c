"""Little is imported, little is read, and memory does not grow with the file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import open_checkpoint, raw, write_checkpoint

from .conftest import SAVE, assert_same

ROOT = Path(__file__).parents[2]


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_numpy_and_crc32c_are_all_that_is_imported(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", {"w": np.zeros(3)})
    loaded = run(
        "import sys; from converters.checkpoint import open_checkpoint, write_checkpoint\n"
        "c = open_checkpoint(sys.argv[1]); dict(c); write_checkpoint(sys.argv[1] + '2', c); print(*sys.modules)",
        tmp_path / "c",
    ).split()
    heavy = {"tensorflow", "torch", "keras", "ml_dtypes", "cramjam", "tarfile", "gzip", "click", "rich"}
    assert not heavy.intersection(loaded)
    assert {name for name in loaded if name.startswith("slimport")} == {"slimport", "slimport.files"}
    own = {"converters", "slimport", "numpy", "crc32c", "google_crc32c"}
    standard = set(sys.stdlib_module_names) | {"__main__", "sitecustomize", "_distutils_hack"}
    others = {name.split(".")[0] for name in loaded} - own - standard
    # What an editable install of this or another project adds to every process.
    assert not {name for name in others if not name.startswith(("__editable__", "_", "distutils"))}


# How far memory rises above what it was before, in MiB, while all is streamed.
STREAM = """
import resource, sys
from converters.checkpoint import open_checkpoint
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
total = 0
with open_checkpoint(sys.argv[1]) as checkpoint:
    for name, array in checkpoint.stream():
        total += array.nbytes
print(total / 2**20, peak() - before)
"""


@pytest.mark.parametrize("file_format", ["v1", "v2"])
def test_a_stream_s_memory_does_not_grow_with_the_file(file_format: str, tmp_path: Path) -> None:
    peaks = []
    for count in (15, 60):
        arrays = {f"w{i:03d}": np.full((1 << 20) // 4 * 2, i, np.float32) for i in range(count)}
        SAVE[file_format](tmp_path / f"{count}", arrays)
        total, peak = map(float, run(STREAM, tmp_path / f"{count}").split())
        assert total == 2 * count
        peaks.append(peak)
    assert peaks[1] < 40
    assert peaks[1] - peaks[0] < 8


@pytest.mark.parametrize("file_format", ["v1", "v2"])
def test_opening_reads_the_names_and_no_tensor(
    file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {f"w{i:03d}": np.full(1 << 19, i, np.float32) for i in range(30)}
    SAVE[file_format](tmp_path / "c", arrays)
    sizes: list[int] = []
    read = raw.RawFile.read

    def counted(file: raw.RawFile, offset: int, size: int) -> memoryview:
        content = read(file, offset, size)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(raw.RawFile, "read", counted)
    checkpoint = open_checkpoint(tmp_path / "c")
    assert all(v.shape for v in checkpoint.variables.values())
    assert 0 < sum(sizes) < 1 << 20
    assert checkpoint["w001"][0] == 1
    assert sum(sizes) > 2 << 20


def test_arrays_are_read_only_and_outlive_the_checkpoint(tmp_path: Path) -> None:
    for values in (np.arange(600, dtype=np.float32).reshape(20, 30), np.arange(600_000, dtype=np.float32)):
        for file_format, save in SAVE.items():
            save(tmp_path / file_format, {"w": values})
            with open_checkpoint(tmp_path / file_format) as checkpoint:
                array = checkpoint["w"]
            assert not array.flags.writeable
            assert_same(array, values)


@pytest.mark.parametrize("file_format", ["v1", "v2"])
def test_the_order_of_reading_does_not_matter(file_format: str, tmp_path: Path) -> None:
    arrays = {f"w{i:02d}": np.full(size, i, np.float32) for i, size in enumerate((3, 1 << 20, 5, 5 << 20, 7) * 2)}
    SAVE[file_format](tmp_path / "c", arrays)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        for name in (*reversed(arrays), *sorted(arrays, key=lambda name: name[::-1])):
            assert_same(checkpoint[name], arrays[name])


def test_a_checkpoint_is_a_mapping(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", {"b": np.zeros(2), "a": np.ones((1, 2), np.int8)})
    checkpoint = open_checkpoint(tmp_path / "c")
    assert list(checkpoint) == ["a", "b"]
    assert len(checkpoint) == 2
    assert "a" in checkpoint
    assert checkpoint.get("nothing") is None
    with pytest.raises(KeyError):
        checkpoint["nothing"]
    variable = checkpoint.variables["a"]
    assert (variable.name, variable.shape, variable.dtype) == ("a", (1, 2), np.dtype("int8"))
    assert [name for name, _ in checkpoint.stream(["b"])] == ["b"]


@pytest.mark.parametrize("module", ["ml_dtypes", "cramjam"])
def test_a_package_that_is_missing_is_named(module: str, tmp_path: Path) -> None:
    import ml_dtypes

    from scripts.studies import damage

    write_checkpoint(tmp_path / "c", {"w": np.zeros(300, ml_dtypes.bfloat16)})
    if module == "cramjam":
        index = tmp_path / "c.index"
        index.write_bytes(damage.compressed(index.read_bytes()))
    said = run(
        "import sys; sys.modules[sys.argv[2]] = None\n"
        "from converters.checkpoint import open_checkpoint\n"
        "from converters.errors import CheckpointError\n"
        "try: open_checkpoint(sys.argv[1])\n"
        "except CheckpointError as error: print(error)",
        tmp_path / "c",
        module,
    )
    assert re.search(rf"pip install .*{module}", said)
    assert said.count("\n") == 1
