"""Sources by URL, from a server on the loopback: whole, cut, changed, forged, missing; and the zoo."""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from conftest import Run, save_small
from server import Server, serve

from converters import InputError, convert, open_checkpoint, remote
from converters.remote import server as remote_server
from converters.remote import transfer, zoo
from slimport import networks

Slimport = Callable[..., Run]

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
BLOCK = 1 << 16
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote_server, "BLOCK", BLOCK)
    monkeypatch.setattr(transfer, "_PAUSE_S", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as served:
        yield served


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_is_fetched_once_whole_with_its_digest(server: Server, tmp_path: Path) -> None:
    server.files["/run/m.ckpt"], server.etags["/run/m.ckpt"] = CONTENT, '"1"'
    seen: list[tuple[str, int, int | None]] = []
    url = f"{server.url}/run/m.ckpt"
    (first,) = remote.fetch(url, sha256=DIGEST, cache=tmp_path, progress=lambda *step: seen.append(step))
    assert first.path.read_bytes() == CONTENT
    assert (first.sha256, first.url) == (DIGEST, url)
    assert seen[-1] == ("m.ckpt", len(CONTENT), len(CONTENT))
    assert len(seen) == math.ceil(len(CONTENT) / BLOCK)
    requests = len(server.bodies("/run/m.ckpt"))
    assert remote.fetch(url, cache=tmp_path) == [first]
    assert len(server.bodies("/run/m.ckpt")) == requests


def test_a_cut_transfer_goes_on_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = CONTENT, '"1"'
    # Whole, cut in the middle, cut before the first byte, whole, cut by one byte.
    server.cuts = [BLOCK, 1000, 0, BLOCK, BLOCK - 1]
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == CONTENT
    assert server.bodies("/m.ckpt") == [0, BLOCK, BLOCK, BLOCK, 2 * BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK]


def test_a_transfer_that_was_given_up_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = CONTENT, '"1"'
    server.cuts = [BLOCK, BLOCK] + [0] * 20
    with pytest.raises(InputError, match=rf"cut off after {2 * BLOCK} of 300000 bytes: .*; run it again to go on"):
        remote.fetch(f"{server.url}/m.ckpt", cache=tmp_path)
    server.cuts, server.log = [], []
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == CONTENT
    assert server.bodies("/m.ckpt")[0] == 2 * BLOCK


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_changed_meanwhile_is_not_glued(server: Server, tmp_path: Path, same_size: bool) -> None:
    other = OTHER if same_size else OTHER[:-1000]
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = CONTENT, '"1"'
    server.cuts = [BLOCK, BLOCK] + [0] * 20
    with pytest.raises(InputError, match="cut off"):
        remote.fetch(f"{server.url}/m.ckpt", cache=tmp_path)
    server.files["/m.ckpt"], server.etags["/m.ckpt"], server.cuts = other, '"2"', []
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == other


def test_a_file_that_changes_between_two_ranges_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = CONTENT, '"1"'

    def change() -> None:
        server.files["/m.ckpt"], server.etags["/m.ckpt"] = OTHER, '"2"'

    server.after_body = [None, change]
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == OTHER


def test_without_an_etag_a_transfer_of_an_earlier_run_is_not_trusted(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"] = CONTENT
    server.cuts = [BLOCK, BLOCK] + [0] * 20
    with pytest.raises(InputError, match="run it again later"):
        remote.fetch(f"{server.url}/m.ckpt", cache=tmp_path)
    server.files["/m.ckpt"], server.cuts = OTHER, []
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == OTHER


@pytest.mark.parametrize("cuts", [[], [BLOCK, 70_000, 100]])
def test_a_server_without_ranges_sends_the_whole(server: Server, tmp_path: Path, cuts: list[int]) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"], server.ranges = CONTENT, '"1"', False
    server.cuts = cuts
    assert remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path).read_bytes() == CONTENT


def test_a_newer_file_replaces_the_cached_and_an_unreachable_server_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        url = f"{server.url}/m.ckpt"
        for content, etag in ((CONTENT, '"1"'), (OTHER, '"2"')):
            server.files["/m.ckpt"], server.etags["/m.ckpt"] = content, etag
            assert remote.local_path(url, cache=tmp_path).read_bytes() == content
    assert remote.local_path(url, cache=tmp_path).read_bytes() == OTHER
    with pytest.raises(InputError, match="cannot be reached"):
        remote.fetch(url.replace("m.ckpt", "n.ckpt"), cache=tmp_path)


def test_a_wrong_digest_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = OTHER, '"1"'
    with pytest.raises(InputError, match=rf"its SHA-256 is [0-9a-f]{{64}}, not {DIGEST}; nothing is kept"):
        remote.fetch(f"{server.url}/m.ckpt", sha256=DIGEST, cache=tmp_path)
    assert files_in(tmp_path) == []


def test_a_damaged_copy_in_the_cache_does_not_pass_for_its_digest(server: Server, tmp_path: Path) -> None:
    server.files["/m.ckpt"], server.etags["/m.ckpt"] = CONTENT, '"1"'
    path = remote.local_path(f"{server.url}/m.ckpt", cache=tmp_path)
    path.write_bytes(OTHER)
    with pytest.raises(InputError, match=r"remove .* to fetch it again"):
        remote.fetch(f"{server.url}/m.ckpt", sha256=DIGEST, cache=tmp_path)


def test_a_missing_file_is_one_line_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/no/such\.ckpt: no such file there; check the URL"):
        remote.fetch(f"{server.url}/no/such.ckpt", cache=tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/m.ckpt", "gs:// needs a package that is not installed: pip install gcsfs"),
        ("s3://bucket/m.ckpt", "s3:// needs a package that is not installed: pip install s3fs"),
        ("nothing://bucket/m.ckpt", "no protocol that slimport knows"),
        ("http://127.0.0.1:9/", "names no file"),
        ("run/model.ckpt", "nothing to fetch"),
        ("zoo:resnet_v9", "'slimport zoo' lists what is"),
    ],
)
def test_what_cannot_be_fetched_says_why(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        remote.fetch(url, cache=tmp_path)


def test_any_protocol_of_fsspec_is_fetched(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/bucket/m.ckpt", CONTENT)
    assert remote.local_path("memory://bucket/m.ckpt", sha256=DIGEST, cache=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_v2_checkpoint_brings_its_shards(server: Server, small_v2: Path, suffix: str, tmp_path: Path) -> None:
    for path in small_v2.parent.glob("small.ckpt*"):
        server.files[f"/a%20run/{path.name}"] = path.read_bytes()
        server.etags[f"/a%20run/{path.name}"] = '"1"'
    url = f"{server.url}/a%20run/small.ckpt{suffix}"
    with pytest.raises(InputError, match="several files, which have no one digest"):
        remote.fetch(url, cache=tmp_path, sha256=DIGEST)
    path = remote.local_path(url, cache=tmp_path)
    with open_checkpoint(path) as fetched, open_checkpoint(small_v2) as original:
        assert {name: array.tobytes() for name, array in fetched.items()} == {
            name: array.tobytes() for name, array in original.items()
        }


def test_a_released_archive_is_fetched_by_name_and_converted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_small(tmp_path / "release" / "small.ckpt", "v1")
    archive = tmp_path / "resnet_v2_50_2017_04_14.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", checkpoint.parent, checkpoint.name], check=True)
    path = f"/download.tensorflow.org/models/{archive.name}"
    server.files[path], server.etags[path] = archive.read_bytes(), '"1"'
    monkeypatch.setattr(zoo, "_STORAGE", f"{server.url}/")
    monkeypatch.setenv("SLIMPORT_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("resnet_v2_50_2017_04_14", "zoo:resnet_v2_50")):
        convert(name, tmp_path / f"{number}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    release = zoo.find("resnet_v2_50")
    assert release is not None
    kept = remote.cached(release)
    assert kept is not None
    assert kept.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    # A release that is another one day is not taken for the same.
    server.files[path], server.etags[path] = OTHER, '"2"'
    with pytest.raises(InputError, match="as it was before; remove"):
        remote.fetch("zoo:resnet_v2_50")
    assert remote.cached(release) == kept


def test_a_file_here_goes_before_a_name_of_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert remote.is_remote("resnet_v2_50")
    Path("resnet_v2_50").touch()
    assert not remote.is_remote("resnet_v2_50")
    assert remote.is_remote("zoo:resnet_v2_50")


def test_the_zoo_says_what_the_networks_are() -> None:
    for release in zoo.RELEASES:
        network = networks.NETWORKS[release.network]
        assert release.classes == network.num_classes
        assert release.preprocessing == network.preprocessing
        assert release.parameters == sum(math.prod(shape) for shape in network.variables().values())


def test_the_command_takes_urls_everywhere(slimport: Slimport, small_v2: Path, tmp_path: Path) -> None:
    with serve() as server:
        for path in small_v2.parent.glob("small.ckpt*"):
            server.files[f"/{path.name}"], server.etags[f"/{path.name}"] = path.read_bytes(), '"1"'
        # Two connections that break do not reach the user.
        server.cuts = [10, 10]
        url, environment = f"{server.url}/small.ckpt", {"SLIMPORT_CACHE": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        run = slimport("convert", url, tmp_path / "m.safetensors", **environment)
        assert (run.code, run.err) == (0, ""), run
        bodies = len(server.bodies("/small.ckpt.data-00000-of-00001"))
        run = slimport("inspect", url, "--json", **environment)
        assert json.loads(run.out)["model"]["num_classes"] == 7
        assert len(server.bodies("/small.ckpt.data-00000-of-00001")) == bodies
        run = slimport("fetch", f"{url}.index", "--cache", tmp_path, "--sha256", "0" * 64, **environment)
        assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
        run = slimport("inspect", f"{server.url}/none.ckpt", **environment)
        assert (run.code, run.err) == (2, f"slimport: {server.url}/none.ckpt: no such file there; check the URL\n")
    run = slimport("zoo", "--json", SLIMPORT_CACHE=str(tmp_path))
    assert {entry["name"] for entry in json.loads(run.out)} == {release.name for release in zoo.RELEASES}
