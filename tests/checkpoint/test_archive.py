"""The checkpoint inside an archive is found, nothing else is unpacked, and nothing gets out of the folder."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from converters import CheckpointError
from converters.checkpoint import open_checkpoint

from .conftest import assert_same, random_array, save_v1, save_v2

W = random_array("float32", (300, 20))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked to."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack(path: Path, files: dict[str, Path | bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_release_holds_a_v1_file_beside_graphs(mode: str, temporary: Path, tmp_path: Path) -> None:
    v1 = save_v1(tmp_path / "resnet_v2_50.ckpt", {"w": W})
    path = pack(
        tmp_path / "release", {"train.graph": b"g" * 5000, "./run/resnet_v2_50.ckpt": v1, "eval.graph": b"e"}, mode
    )
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.format, checkpoint.path.name) == ("v1", "resnet_v2_50.ckpt")
        array = checkpoint["w"]
        assert_same(array, W)
        assert [file.name for file in temporary.rglob("*") if file.is_file()] == ["resnet_v2_50.ckpt"]
    assert_same(array, W)
    assert not list(temporary.iterdir())


def test_a_v2_checkpoint_with_its_shards(tmp_path: Path) -> None:
    prefix = save_v2(tmp_path / "m-5", {"w": W})
    names = ["m-5.index", "m-5.data-00000-of-00001"]
    path = pack(tmp_path / "m.tar.gz", {f"a/{name}": prefix.with_name(name) for name in names} | {"a/m-5.meta": b"m"})
    with open_checkpoint(path) as checkpoint:
        assert_same(checkpoint["w"], W)
        assert [file.name for file in checkpoint.files] == names


def test_a_v1_checkpoint_in_shards(tmp_path: Path) -> None:
    shards = [save_v1(tmp_path / f"s-{i:05d}-of-00002", {f"w{i}": W[i:]}) for i in range(2)]
    path = pack(tmp_path / "s.tar.gz", {f"run/{shard.name}": shard for shard in shards})
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.files) == 2
        for i in range(2):
            assert_same(checkpoint[f"w{i}"], W[i:])
    path = pack(tmp_path / "half.tar.gz", {shards[0].name: shards[0]})
    with pytest.raises(CheckpointError, match="its shards are not all there: found 1 of 2"):
        open_checkpoint(path)


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    path = pack(tmp_path / "twice.tar", {"m.ckpt": b"old"}, "w")
    with tarfile.open(path, "a") as tar:
        tar.addfile(member(name="m.ckpt"))
    with pytest.raises(CheckpointError, match=r"m\.ckpt is in it twice"):
        open_checkpoint(path)


def test_of_several_the_newest_or_the_step_asked_for(tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {}
    for step in (1, 2):
        prefix = save_v2(tmp_path / f"m-{step}", {"w": W[step:]})
        for suffix in (".index", ".data-00000-of-00001"):
            files[f"run/m-{step}{suffix}"] = Path(f"{prefix}{suffix}")
    path = pack(tmp_path / "several.tar.gz", files)
    with pytest.raises(CheckpointError, match="2 checkpoints: run/m-1, run/m-2; ask for a step, or unpack it"):
        open_checkpoint(path)
    assert_same(open_checkpoint(path, step=2)["w"], W[2:])
    with pytest.raises(CheckpointError, match="no checkpoint of step 3; there are: run/m-1, run/m-2"):
        open_checkpoint(path, step=3)
    path = pack(tmp_path / "newest.tar.gz", files | {"run/checkpoint": b'model_checkpoint_path: "/old/m-1"\n'})
    assert_same(open_checkpoint(path)["w"], W[1:])


def member(kind: bytes = tarfile.REGTYPE, name: str = "evil", size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


@pytest.mark.parametrize(
    ("evil", "message"),
    [
        (member(name="/etc/evil"), "an absolute path"),
        (member(name="a/../../evil"), "a path out of the archive"),
        (member(tarfile.SYMTYPE, link="/etc/passwd"), "a link"),
        (member(tarfile.LNKTYPE, link="m.ckpt"), "a link"),
        (member(tarfile.CHRTYPE), "a device"),
        (member(tarfile.BLKTYPE), "a device"),
        (member(tarfile.FIFOTYPE), "a device"),
        (member(tarfile.GNUTYPE_SPARSE), "a sparse file"),
    ],
)
def test_what_does_not_belong_in_an_archive_refuses_it(
    evil: tarfile.TarInfo, message: str, temporary: Path, tmp_path: Path
) -> None:
    v1 = save_v1(tmp_path / "m.ckpt", {"w": W})
    path = pack(tmp_path / "evil.tar", {"m.ckpt": v1}, "w")
    with tarfile.open(path, "a") as tar:
        tar.addfile(evil)
    with pytest.raises(CheckpointError, match=f"evil is {message}: refused"):
        open_checkpoint(path)
    assert not list(temporary.iterdir())


def backwards() -> bytes:
    """A header whose size, below zero, takes a reader back to it: some readers never come out of that."""
    info = member(name="loop")
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 8 + (-512 % (1 << 32)).to_bytes(4, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def long_header() -> bytes:
    """A name that claims to be of a gigabyte."""
    return member(tarfile.GNUTYPE_LONGNAME, "././@LongLink", 1 << 30).tobuf() + b"x" * 4096


def nested_headers() -> bytes:
    return member(tarfile.GNUTYPE_LONGNAME, "././@LongLink", 0).tobuf() * 5000


def too_large() -> bytes:
    return member(name="m.ckpt", size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize("forged", [backwards, long_header, nested_headers, too_large])
def test_forged_archives_are_refused(forged: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "forged.tar"
    path.write_bytes(forged())
    with pytest.raises(CheckpointError, match=r"forged\.tar") as raised:
        open_checkpoint(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_damaged_archive_is_one_line_of_error_or_harmless(mode: str, temporary: Path, tmp_path: Path) -> None:
    arrays = {"w": random_array("float32", (50, 4)), "b": random_array("int64", (9,))}
    content = pack(tmp_path / "a", {"g": b"x" * 600, "m.ckpt": save_v1(tmp_path / "m.ckpt", arrays)}, mode).read_bytes()
    step = max(1, len(content) // 80)
    bad = [content[:end] for end in range(1, len(content), step)]
    bad += [
        content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] for at in range(0, len(content), step)
    ]
    messages = []
    for damaged in bad:
        (tmp_path / "bad").write_bytes(damaged)
        try:
            with open_checkpoint(tmp_path / "bad") as checkpoint:
                for name, array in arrays.items():
                    assert_same(checkpoint[name], array)
        except CheckpointError as error:
            messages.append(str(error))
    # Much of a tar is padding.
    assert len(messages) > 40
    assert not any("\n" in message for message in messages)
    assert not list(temporary.iterdir())


def test_an_archive_without_a_checkpoint(tmp_path: Path) -> None:
    path = pack(tmp_path / "no.tar.gz", {"readme": b"nothing"})
    with pytest.raises(CheckpointError, match=r"no\.tar\.gz: no checkpoint in it"):
        open_checkpoint(path)


def test_what_does_not_fit_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    path = pack(tmp_path / "m.tar.gz", {"m.ckpt": save_v1(tmp_path / "m.ckpt", {"w": W})})
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(CheckpointError, match="bytes to unpack, and 10 are free"):
        open_checkpoint(path)
    assert not list(temporary.iterdir())
