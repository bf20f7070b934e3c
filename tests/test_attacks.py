"""Nothing lost, nothing run, nothing leaked: what an attack found, as claims."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import signal
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SMALL, Run, random_weights
from safetensors import SafetensorError
from safetensors.numpy import load_file

from converters import InputError, convert
from converters.batch import convert_all
from converters.checkpoint import open_checkpoint, write_checkpoint
from converters.display import terminal
from converters.formats import is_folder, open_file
from converters.weights.selection import Selection
from converters.weights.source import open_source
from scripts.studies import attack_forms, attack_names, attack_signals, forgery

Slimport = Callable[..., Run]
FORMS = ("m.safetensors", "m.pth", "m.weights.h5", "m.keras", "m.ckpt", "folder")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small network as a V2 checkpoint."""
    write_checkpoint(tmp_path / "a.ckpt", {f"resnet_v2/{name}": a for name, a in random_weights(SMALL).items()})
    return tmp_path / "a.ckpt"


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("source", "destination", "to"),
    [
        ("a.ckpt", "a.ckpt", None),
        ("a.ckpt.index", "a.ckpt", None),
        ("a.ckpt.data-00000-of-00001", "./a.ckpt", "slim"),
        (".", "a.ckpt", None),
        ("linked.ckpt", "a.ckpt", None),
        ("folder", "folder", "huggingface"),
        ("folder", "folder/model.safetensors", None),
        ("folder/model.safetensors", "folder", "huggingface"),
        ("m.safetensors", "link.safetensors", None),
    ],
)
def test_a_source_is_never_its_own_destination(
    source: str, destination: str, to: str | None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "ckpt" not in destination:
        convert(checkpoint, "folder", "huggingface")
        convert(checkpoint, "m.safetensors")
        Path("link.safetensors").symlink_to("m.safetensors")
    for path in tmp_path.glob("a.ckpt.*") if source == "linked.ckpt" else ():
        path.with_name(path.name.replace("a.ckpt", "linked.ckpt")).hardlink_to(path)
    before = listing(tmp_path)
    with pytest.raises(InputError, match="is the source itself"):
        convert(source, destination, to)
    assert listing(tmp_path) == before


def test_a_batch_leaves_out_nothing_that_is_named_like_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    index, data = (Path(f"{checkpoint}{end}").read_bytes() for end in (".index", ".data-00000-of-00001"))
    (tmp_path / "cut.ckpt-7.index").write_bytes(index[:100])
    (tmp_path / "no_index-3.data-00000-of-00001").write_bytes(data)
    (tmp_path / "v1.ckpt-8").write_bytes(b"cut")
    (tmp_path / "plain").write_bytes(b"cut")
    (tmp_path / "plain.meta").write_bytes(b"meta")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    done = {outcome.job.source.name: outcome.status for outcome in convert_all(tmp_path, tmp_path / "out", workers=1)}
    failed = dict.fromkeys(("cut.ckpt-7", "no_index-3", "v1.ckpt-8", "plain"), "failed")
    assert done == {"a.ckpt": "converted"} | failed


@pytest.fixture(scope="module")
def small_process() -> Iterator[Executor]:
    """A process without frameworks, which forks in a tenth of the time."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("form", ["file", "checkpoint", "folder"])
def test_a_signal_at_any_call_leaves_the_old_or_the_new(form: str, tmp_path: Path, small_process: Executor) -> None:
    count = small_process.submit(attack_signals.attack, tmp_path, form, (signal.SIGKILL, signal.SIGINT)).result()
    assert count.cases > 20
    assert not count.broken, count.broken
    assert set(count.outcomes) == {"old", "new"}


def test_two_conversions_to_one_prefix_do_not_mix(tmp_path: Path, small_process: Executor) -> None:
    assert not small_process.submit(attack_signals.at_once, tmp_path, 6).result().broken


@pytest.mark.parametrize(
    "name",
    ["a.ckpt.data-00000-of-00001", "a.ckpt.index", "v1", "m.safetensors", "m.pth", "m.keras", "m.weights.h5"],
)
def test_a_source_that_changes_meanwhile_is_an_error(name: str, checkpoint: Path, tmp_path: Path) -> None:
    source = checkpoint if name.startswith("a.ckpt") else tmp_path / name
    if name == "v1":
        with open_checkpoint(checkpoint) as opened:
            forgery.write_v1(source, opened)
    elif source != checkpoint:
        convert(checkpoint, source)
    changed, content = tmp_path / name, (tmp_path / name).read_bytes()
    # A memory map would end the process.
    for change in (
        lambda: os.truncate(changed, len(content) // 2),
        lambda: os.truncate(changed, 0),
        lambda: changed.write_bytes(content + b"x"),
    ):
        with open_source(source) as opened:
            stream = opened.stream()
            next(stream)
            change()
            with pytest.raises(InputError, match=r"changed while|become shorter|damaged|cannot be read") as raised:
                list(stream)
        assert "\n" not in str(raised.value)
        changed.write_bytes(content)


def test_extras_and_destination_are_both_there_or_none(checkpoint: Path, tmp_path: Path) -> None:
    with open_checkpoint(checkpoint) as opened:
        write_checkpoint(tmp_path / "more", {**opened, "other/file": np.ones(3, np.complex128)})
    target = tmp_path / "m.safetensors"
    for name in ("m.safetensors", "folder/m.npz"):
        with pytest.raises(InputError, match=r"is the destination, or in it|does not exist"):
            convert(tmp_path / "more", target, extras=tmp_path / name)
    with pytest.raises(InputError, match=r"but \.npz can"):
        convert(tmp_path / "more", target, extras=tmp_path / "x.safetensors")
    assert not target.exists()
    mask = os.umask(0o027)
    try:
        convert(tmp_path / "more", target, extras=tmp_path / "x.npz")
        convert(tmp_path / "more", tmp_path / "new.safetensors", dtype="float16")
    finally:
        os.umask(mask)
    assert list(np.load(tmp_path / "x.npz")) == ["other/file"]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x.npz", "new.safetensors")} == {0o640}
    target.chmod(0o604)
    convert(tmp_path / "more", target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_what_a_killed_conversion_left_is_removed_by_the_next(checkpoint: Path, tmp_path: Path) -> None:
    left = tmp_path / ".123-00c0ffee.m.safetensors"
    left.mkdir()
    (left / "m.safetensors").write_bytes(b"half")
    (tmp_path / ".123-00c0ffee.other.safetensors").mkdir()
    convert(checkpoint, tmp_path / "m.safetensors")
    assert not left.exists()
    assert (tmp_path / ".123-00c0ffee.other.safetensors").exists()


def test_destinations_that_are_none(checkpoint: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "circle.pth").symlink_to(tmp_path / "circle.pth")
    for destination, message in {
        "pipe.safetensors": "a device or a pipe",
        "circle.pth": "links go in a circle",
        f"{'n' * 300}.pth": "File name too long",
        "no/m.pth": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            convert(checkpoint, tmp_path / destination)
    with pytest.raises(InputError, match="is empty"):
        convert(checkpoint, "")
    with pytest.raises(InputError, match="is empty"):
        is_folder("")
    with pytest.raises(InputError, match="a device or a pipe"):
        convert(checkpoint, "/dev/full", "slim")
    convert(checkpoint, tmp_path / f"{'n' * 240}.safetensors")


def test_save_writes_what_its_name_says(tmp_path: Path) -> None:
    import slimport.pytorch

    model = slimport.pytorch.build(SMALL)
    with pytest.raises(ValueError, match=r"m\.pth: .*\.safetensors"):
        slimport.pytorch.save(model, tmp_path / "m.pth")
    assert not list(tmp_path.iterdir())


def test_a_scope_that_matches_nothing_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--exclude-scope resnet_v2/nothing: no variable"):
        convert(checkpoint, tmp_path / "m.pth", selection=Selection(exclude_scopes=("resnet_v2/nothing",)))


def test_the_step_is_said(slimport: Slimport, checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for end in (".index", ".data-00000-of-00001"):
        (run / f"m.ckpt-7{end}").write_bytes(Path(f"{checkpoint}{end}").read_bytes())
    shown = slimport("inspect", run, "--step", "7").out
    assert "read: m.ckpt-7" in shown
    assert f"slimport convert {run} resnet_v2.safetensors --step 7" in shown
    done = slimport("convert", run, tmp_path / "half.ckpt", "--dtype", "float16").out
    assert "read: m.ckpt-7" in done
    assert "its variables are float16: a graph restores them only if its own are float16 too" in done


def test_two_names_that_become_one_are_refused() -> None:
    from converters.formats.base import pytorch_names

    with pytest.raises(InputError, match="conv1/weights and conv1/weight: both would be"):
        pytorch_names(["conv1/weights", "conv1/weight"])


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('model_checkpoint_path: "gone"\nmodel_checkpoint_path: "a.ckpt"\n', "a.ckpt"),
        ('model_checkpoint_path: "D:\\\\run\\\\a.ckpt"\n', "a.ckpt"),
        (
            'model_checkpoint_path: "gone-5"\n',
            "its 'checkpoint' file names gone-5, which is not there: a.ckpt was read",
        ),
    ],
)
def test_a_checkpoint_file_of_any_machine(text: str, taken: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(text)
    assert convert(tmp_path, tmp_path / "m.safetensors").read == taken
    archive = tmp_path / "run.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in (*tmp_path.glob("a.ckpt.*"), tmp_path / "checkpoint"):
            zipped.write(path, f"run/{path.name}")
    with open_checkpoint(archive) as opened:
        assert (opened.path.name, opened.note) == (checkpoint.name, taken if "gone" in taken else "")


# Code run, files read, secrets printed.


class Bomb:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


def zip_of(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    bomb = pickle.dumps(Bomb(), protocol=2)
    (tmp_path / "m.pth").write_bytes(zip_of({"m/data.pkl": bomb, "m/byteorder": b"little"}))
    (tmp_path / "old.pth").write_bytes(bomb)
    (tmp_path / "m.pt2").write_bytes(zip_of({"a/data/sample_inputs/model.pt": bomb, "a/models/model.json": b"{}"}))
    own = {"a/extra/slimport": b"{}", "a/byteorder": b"little", "a/data/weights/model_weights_config.json": b"{}"}
    (tmp_path / "own.pt2").write_bytes(zip_of({**own, "a/data/sample_inputs/model.pt": bomb}))
    for name in ("m.pth", "old.pth", "m.pt2", "own.pt2"):
        with pytest.raises(InputError):
            convert(tmp_path / name, tmp_path / "out.safetensors")
    assert not (tmp_path / "bomb").exists()


def test_a_program_is_read_without_pytorch_and_has_no_example(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "m.pt2")
    assert (tmp_path / "m.pt2").stat().st_size < 500_000
    code = f"""
import sys
from converters import convert
convert({str(tmp_path / "m.pt2")!r}, {str(tmp_path / "m.safetensors")!r})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with open_source(checkpoint) as one, open_source(tmp_path / "m.safetensors") as other:
        ours = other.arrays()
        assert all(np.array_equal(ours[name], array) for name, array in one.arrays().items())


def test_no_other_file_is_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["vars/0"] = np.ones(3, np.float32)
    np.ones(3, np.float32).tofile(tmp_path / "raw")

    def external(group: Any) -> None:
        group.create_dataset("0", (3,), "f4", external=[(str(tmp_path / "raw"), 0, 12)])

    def virtual(group: Any) -> None:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "vars/0", (3,))
        group.create_virtual_dataset("0", layout)

    def linked(group: Any) -> None:
        group["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "vars/0")

    def circle(group: Any) -> None:
        group["0"] = h5py.SoftLink("/layers/conv/vars/0")

    def null(group: Any) -> None:
        group["0"] = h5py.Empty("f4")

    for make in (external, virtual, linked, circle, null):
        with h5py.File(tmp_path / "m.weights.h5", "w") as file:
            group = file.create_group("layers/conv/vars")
            group.attrs["name"] = "conv1"
            make(group)
        with pytest.raises(InputError, match="is not an array in this file"), open_file(tmp_path / "m.weights.h5"):
            pass


def test_secrets_in_urls_are_not_shown(slimport: Slimport, tmp_path: Path) -> None:
    for url in (
        "http://user:pass@127.0.0.1:9/m?token=tok",
        "http://user:pass@[::1/m?token=tok",
        "s3://user:pass@x/?tok",
    ):
        run = slimport("fetch", url, "--cache", tmp_path, "--sha256", "0")
        assert run.code == 2
        assert run.err.count("\n") == 1
        assert "bug" not in run.err
        assert not any(secret in run.err for secret in ("user", "pass", "tok")), run.err
    assert terminal.one_line("see https://u:p@host/a?b=c, or not") == "see https://host/a or not"


def test_secrets_in_urls_are_not_in_the_report_page(
    slimport: Slimport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters import parity
    from converters.display import page
    from converters.remote import sources

    commands: list[str] = []
    monkeypatch.setattr(parity, "verify", lambda *_, **__: SimpleNamespace(ok=True, to_json=dict))
    monkeypatch.setattr(sources, "fetch", lambda *_, **__: [SimpleNamespace(path=tmp_path / "m")])
    monkeypatch.setattr(page, "write", lambda _, __, command: commands.append(command))
    urls = ("https://user:pass@host/m.ckpt?token=tok", "s3://user:pa'ss@host/m.ckpt#tok", "https://u:pa ss@host/n?tok")
    for url in urls:
        run = slimport("verify", url, tmp_path / "m.pth", "--report", "r.html", "--json")
        assert (run.code, run.err, run.out.strip()) == (0, "", "{}")
    assert [shlex.split(command)[:3] for command in commands] == [
        ["slimport", "verify", "https://host/m.ckpt"],
        ["slimport", "verify", "s3://host/m.ckpt"],
        ["slimport", "verify", "https://host/n"],
    ]
    assert not any(secret in command for command in commands for secret in ("user", "ss@", "pass", "tok"))
    assert all(str(tmp_path / "m.pth") in command and "--report r.html --json" in command for command in commands)


def test_foreign_text_reaches_no_terminal_raw(slimport: Slimport, tmp_path: Path) -> None:
    for name in attack_names.HOSTILE:
        weights = {f"resnet_v2/{n}": array for n, array in random_weights(SMALL).items()}
        write_checkpoint(tmp_path / "c", {**weights, name: np.zeros(1, np.float32)})
        for more in ((), ("--all",)):
            run = slimport("inspect", tmp_path / "c", *more)
            assert run.code == 0
            assert all(letter.isprintable() or letter == "\n" for letter in run.out), run.out
    assert terminal.one_line("a\x1b]0;title\x07b\u202ec\nd[/]") == "a\\x1b]0;title\\x07b\\u202ec d[/]"


# Resources.


@pytest.mark.parametrize("name", attack_names.SMALL_FILES)
def test_small_files_cost_little(name: str, tmp_path: Path) -> None:
    found = attack_names.measured(attack_names.SMALL_FILES[name](tmp_path))
    # On a machine that is busy with other tests; the study has the seconds of an idle one.
    assert found.processor < 6, found
    assert found.mebibytes < 400, found
    assert "bug" not in found.message


def test_a_large_tensor_is_converted_in_pieces(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters import files

    convert(checkpoint, tmp_path / "whole.safetensors")
    monkeypatch.setattr(files, "PIECE", 100)
    convert(checkpoint, tmp_path / "pieces.safetensors")
    assert (tmp_path / "pieces.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    convert(tmp_path / "whole.safetensors", tmp_path / "b.ckpt")
    with open_checkpoint(checkpoint) as there, open_checkpoint(tmp_path / "b.ckpt") as back:
        assert {name: a.tobytes() for name, a in there.items()} == {name: a.tobytes() for name, a in back.items()}


@pytest.mark.usefixtures("checkpoint")
def test_the_workers_of_a_killed_batch_end(tmp_path: Path) -> None:
    code = f"""
import multiprocessing, os, signal, sys, threading, time
from converters import batch
def killed():
    while not multiprocessing.active_children():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=killed).start()
batch.convert_all({str(tmp_path)!r}, {str(tmp_path / "out")!r}, workers=1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    # It came to an end, so that no worker has its streams open any more.
    assert done.returncode == -signal.SIGKILL


# "A bug, please report it."


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    attack_forms.files(folder, [form.damaged for form in attack_forms.FORMS if form.name in FORMS])
    return folder


@pytest.mark.parametrize("form", [form for form in attack_forms.FORMS if form.name in FORMS], ids=lambda f: f.damaged)
def test_a_damaged_file_is_refused_or_read_as_it_was(form: attack_forms.Form, forms: Path) -> None:
    allowed = {attack_forms.REFUSED, attack_forms.HARMLESS, attack_forms.OTHER_VALUES}
    outcomes = [what for what, _ in attack_forms.cases(forms, form, range(20), seed=1)]
    assert set(outcomes) <= allowed, outcomes
    assert outcomes.count(attack_forms.REFUSED) > 2


# What is added to the last tensor's begin and end, and to the bytes of the file.
PLACES = {
    "as it is": (0, 0, 0),
    "a gap before it": (4, 4, 4),
    "a gap before it, and its end beyond the file's": (4, 4, 0),
    "it overlaps the one before it": (-4, -4, -4),
    "bytes behind it": (0, 0, 4),
    "bytes are missing": (0, 0, -4),
    "an end that is not its shape's": (0, 4, 0),
    "an end that is not its shape's, and as many bytes": (0, 4, 4),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_safetensors_file_is_refused_where_its_own_library_refuses_it(
    place: str, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    convert(checkpoint, path)
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    start, stop, more = PLACES[place]
    begin, end = header[list(header)[-1]]["data_offsets"]
    header[list(header)[-1]]["data_offsets"] = [begin + start, end + stop]
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + content[data : len(content) + min(more, 0)] + bytes(max(more, 0))
    )
    right = place == "as it is"
    with nullcontext() if right else pytest.raises(SafetensorError):
        load_file(path)
    with nullcontext() if right else pytest.raises(InputError), open_source(path):
        pass


def safetensors_of(metadata: object) -> bytes:
    header = json.dumps(
        {"__metadata__": metadata, "conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    )
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4)


@pytest.mark.parametrize(
    "description",
    [
        "[]", "1", "{", '{"scope": 1}', '{"network": []}', '{"network": {"family": []}}', '{"selection": {"ema": 1}}',
        '{"selection": {"exclude_scopes": [1]}}', '{"source": ["a"]}', '{"arguments": "a"}', "[" * 100_000,
        '{"network": {"family": "nasnet", "num_cells": 9}}', '{"a": 1, "a": 2}', '{"scope": "a", "checksum": "0"}',
    ],
)  # fmt: skip
def test_descriptions_of_other_types_are_refused(description: str, tmp_path: Path) -> None:
    for metadata in ({"slimport": description}, {"slimport": 1}, [], "text"):
        (tmp_path / "m.safetensors").write_bytes(safetensors_of(metadata))
        with pytest.raises(InputError), open_source(tmp_path / "m.safetensors"):
            pass


def test_tensors_that_are_not_plain_are_refused(tmp_path: Path) -> None:
    import torch

    weight = torch.ones(2, 3)
    states: dict[str, Any] = {
        "sparse": {"w": weight.to_sparse()},
        "meta": {"w": weight.to("meta")},
        "quantized": {"w": torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8)},
        "fp8": {"w": weight.to(torch.float8_e4m3fn)},
        "conjugate": {"w": torch.ones(2, dtype=torch.complex64).conj()},
        "integer keys": {1: weight},
        "nested": {"model": {"w": weight}},
        "model": torch.nn.Linear(2, 2),
    }
    for name, state in states.items():
        torch.save(state, tmp_path / "m.pth")
        with (
            pytest.raises(InputError, match=r"plain tensors|not a state dict|no network"),
            open_source(tmp_path / "m.pth"),
        ):
            pytest.fail(name)


def test_a_file_of_before_pytorch_1_6_is_read(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    convert(checkpoint, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    torch.save(dict(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with open_source(tmp_path / "old.pth") as old, open_source(tmp_path / "m.pth") as new:
        ours = new.arrays()
        assert all(np.array_equal(ours[name], array) for name, array in old.arrays().items())


def test_views_of_one_storage_are_read_as_pytorch_reads_them(tmp_path: Path) -> None:
    import torch

    base = torch.arange(24.0)
    state = {"a.weight": base[4:10].view(2, 3).t(), "b.weight": base[::2], "c.bias": base.view(2, 12)[1]}
    torch.save(state, tmp_path / "m.pth")
    with open_file(tmp_path / "m.pth") as opened:
        found = dict(opened.read(["a/weights", "b/weights", "c/biases"]))
    assert np.array_equal(found["a/weights"], state["a.weight"].t().numpy())
    assert np.array_equal(found["b/weights"], base[::2].numpy())
    assert np.array_equal(found["c/biases"], base[12:].numpy())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!doctype html><html>", "a web page"),
    ],
)
def test_a_shard_that_is_something_else_is_said(content: bytes, message: str, checkpoint: Path, tmp_path: Path) -> None:
    Path(f"{checkpoint}.data-00000-of-00001").write_bytes(content)
    with pytest.raises(InputError, match=message):
        convert(checkpoint, tmp_path / "m.pth")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "zip"])
def test_archives_of_every_compression_are_opened(mode: str, checkpoint: Path, tmp_path: Path) -> None:
    import tarfile

    archive = tmp_path / "a.archive"
    files = {f"run/{path.name}": path for path in tmp_path.glob("a.ckpt.*")}
    if mode == "zip":
        archive.write_bytes(zip_of({name: path.read_bytes() for name, path in files.items()}))
    else:
        with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
            for name, path in files.items():
                tar.add(path, name)
    with open_checkpoint(archive) as opened, open_checkpoint(checkpoint) as there:
        assert {name: a.tobytes() for name, a in opened.items()} == {name: a.tobytes() for name, a in there.items()}


def test_streams_that_cannot_take_the_text(slimport_process: Callable[..., Run], checkpoint: Path) -> None:
    run = slimport_process("inspect", checkpoint, PYTHONIOENCODING="cp1252")
    assert (run.code, run.err) == (0, "")
    assert "|-- conv1" in run.out
    command = [sys.executable, "-c", "from converters.cli import main; main()", "inspect", str(checkpoint)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "slimport: standard output cannot be written: No space left on device\n",
    )
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    assert subprocess.run(closed, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False).stderr == ""


def test_a_size_that_no_memory_holds_is_refused(slimport: Slimport, checkpoint: Path) -> None:
    run = slimport("verify", checkpoint, "--size", "99999")
    assert (run.code, run.err) == (
        2,
        "slimport: --size 99999: at most 16384 pixels, since a network's feature maps are larger still\n",
    )
