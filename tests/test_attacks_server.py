"""Whatever a server answers: its file, whole, or an error in one line without a secret."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, random_weights

from converters import InputError, convert, remote
from converters.checkpoint import write_checkpoint
from converters.remote import beginnings, transfer
from converters.remote import server as remote_server
from converters.remote.urls import public, public_text
from scripts.studies import attack_server, damage, forgery


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "_PAUSE_S", 0)
    monkeypatch.setattr(remote_server, "_PAUSE_S", 0)
    monkeypatch.setattr(remote_server, "_LONGEST_PAUSE_S", 0.01)


@pytest.mark.parametrize("name", attack_server.ANSWERS)
def test_a_file_is_fetched_whole_or_the_error_is_one_line(name: str, tmp_path: Path) -> None:
    found = attack_server.attack(attack_server.ANSWERS[name], tmp_path)
    assert found.ok, found
    assert ("then the file" in name or name == "the file") <= (found.said == "fetched")
    # At its beginning, or at the bound.
    assert ("without end" in name) <= (found.seconds < 5 and "does not say" in found.said)


def test_without_a_length_every_form_that_is_read_is_known_by_its_beginning(tmp_path: Path) -> None:
    import h5py
    import torch
    from onnx import helper

    arrays = {f"resnet_v2/{name}": array for name, array in random_weights(SMALL).items()}
    write_checkpoint(tmp_path / "m", arrays)
    forgery.write_v1(tmp_path / "v1", arrays)
    convert(tmp_path / "m", tmp_path / "m.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pth")
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["w"] = np.ones(2)
    for mode in ("", "gz", "bz2", "xz"):
        with tarfile.open(tmp_path / f"m.tar.{mode}", f"w:{mode}") as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "m.index", "m.index")
    for name in ("m.index", "v1"):
        (tmp_path / f"compressed.{name}").write_bytes(damage.compressed((tmp_path / name).read_bytes()))
    model = helper.make_model(helper.make_graph([], "g", [], []), producer_name="p")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    # A node, the meta information of a graph, a SavedModel with one graph.
    node = forgery.message(1, forgery.message(1, b"conv1/weights"), forgery.message(2, b"VariableV2"))
    (tmp_path / "m.pb").write_bytes(node)
    (tmp_path / "m.meta").write_bytes(forgery.message(1, forgery.message(5, b"2.16")) + forgery.message(2, node))
    (tmp_path / "saved_model.pb").write_bytes(forgery.number(1, 1) + forgery.message(2, forgery.message(2, node)))
    (tmp_path / "m.pbtxt").write_text('# a graph\nnode {\n  name: "conv1"\n}\n')
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"\n')
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 19
    for path in files:
        assert beginnings.refusal(path.name, path.read_bytes()[: beginnings.ENOUGH]) is None, path
    generator = np.random.default_rng(0)
    for begins in (b"", bytes(300), b"hello " * 50, b"{}" * 150, *(generator.bytes(300) for _ in range(100))):
        assert beginnings.refusal("m.ckpt", begins) is not None, begins


def test_a_data_file_without_a_length_ends_where_its_index_says(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", {"w": np.arange(1000.0)})
    index, data = ((tmp_path / f"m.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))

    def answer(more: bytes) -> Callable[[attack_server.Request, int], None]:
        def answered(request: attack_server.Request, _: int) -> None:
            request.close_connection = True
            path = request.path.partition("?")[0]
            ending = index if path.endswith(".index") else data + more if ".data-" in path else b""
            request.send(200 if ending else 404, {"Content-Length": "", "Connection": "close"}, ending)

        return answered

    with attack_server.served(answer(b"")) as url:
        fetched = remote.fetch(url.replace("m.ckpt", "m"), cache=tmp_path / "a")
        assert [one.path.read_bytes() for one in fetched] == [index, data]
    with (
        attack_server.served(answer(b"x")) as url,
        pytest.raises(InputError, match="sends more than 8000 bytes; check"),
    ):
        remote.fetch(url.replace("m.ckpt", "m"), cache=tmp_path / "b")


def test_what_a_server_asks_to_wait_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    class BusyError(Exception):
        def __init__(self, asked: str) -> None:
            self.headers = {"Retry-After": asked}

    monkeypatch.setattr(remote_server, "_LONGEST_PAUSE_S", 60)
    for asked, waited in (("7", 7), ("100000", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0), ("", 0)):
        assert remote_server.asked_pause(BusyError(asked)) == waited


def test_two_urls_do_not_share_a_copy(tmp_path: Path) -> None:
    with attack_server.served(attack_server.whole) as url:
        base = url.partition("?")[0].rpartition("/")[0]
        one, other = (remote.fetch(f"{base}/{folder}%2Fm.ckpt", cache=tmp_path)[0] for folder in ("a", "b"))
    assert one.path == other.path
    assert one.url != other.url


def test_an_altered_copy_is_not_used(tmp_path: Path) -> None:
    with attack_server.served(attack_server.whole) as url:
        path = remote.local_path(url, cache=tmp_path)
        content = path.read_bytes()
        path.write_bytes(content)
        assert remote.local_path(url, cache=tmp_path) == path
        path.write_bytes(content[:-1] + b"x")
        with pytest.raises(InputError, match=r"its copy was changed since; remove .* to fetch it again"):
            remote.local_path(url, cache=tmp_path)


def test_only_the_public_part_of_a_url_is_shown() -> None:
    assert public("https://user:pass@host/a/b?token=1#x") == "https://host/a/b"
    for secret in ("pa/ss", "pa?ss", "pa#ss", "12/ss", "12?ss", "pa'ss"):
        assert "ss" not in public(f"https://user:{secret}@host/m"), secret
    assert public("https://host:8080/a/b") == "https://host:8080/a/b"
    assert public_text("404 for 's3://u:p@host/a?k=1' and http://[::1") == "404 for 's3://host/a' and http://..."
