"""The command as a newcomer meets it: examples that work as they stand, completion, and a terminal that shows more."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, SMALL, Run, save_small
from PIL import Image
from server import serve

from converters import convert
from converters.cli import cli
from converters.remote import zoo

Slimport = Callable[..., Run]
COMMAND = [sys.executable, "-c", "from converters.cli import main; main()"]


def examples(name: str | None = None) -> list[str]:
    """The lines of a command's help that can be typed."""
    shown = CliRunner().invoke(cli, [name, "--help"] if name else ["--help"])
    assert shown.exit_code == 0
    return [line.strip() for line in shown.output.splitlines() if line.startswith(f"  slimport {name or ''}")]


def test_every_commands_help_has_an_example() -> None:
    for name in (None, *cli.commands):
        assert examples(name), name


def test_every_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SLIMPORT_CACHE", str(tmp_path / "cache"))
    save_small(Path("resnet_v2_50.ckpt"), "v1", replace(SMALL, num_classes=1001))
    save_small(Path("run/model.ckpt-1000"), "v2")
    (tmp_path / "run/checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000"\n')
    shutil.copytree("run", "runs/first")
    (tmp_path / "labels.txt").write_text("".join(f"kind {index}\n" for index in range(SMALL.num_classes or 0)))
    for name in ("cat.jpg", "dog.png", "flower.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(name)
    for name in ("resnet_v2_50.pth", "model.safetensors"):
        convert("resnet_v2_50.ckpt", name)
    subprocess.run(["tar", "-czf", "resnet_v2_50_2017_04_14.tar.gz", "resnet_v2_50.ckpt"], check=True)
    with serve() as server:
        monkeypatch.setattr(zoo, "_STORAGE", f"{server.url}/")
        for path in (tmp_path / "resnet_v2_50_2017_04_14.tar.gz", *tmp_path.glob("run/*")):
            name = path.relative_to(tmp_path).as_posix()
            name = f"download.tensorflow.org/models/{name}" if name.endswith(".tar.gz") else name
            server.files[f"/{name}"], server.etags[f"/{name}"] = path.read_bytes(), '"1"'
        # What others take is made first.
        first = ("convert", "trace")
        for command in (*first, *(name for name in cli.commands if name not in first)):
            for example in examples(command):
                # Neither the server nor the device is there for every test, and what a pipe leads to is not ours.
                here = example.replace("https://example.com", server.url).replace(" --device cuda", "")
                arguments = shlex.split(here.partition("|")[0])[1:]
                done = CliRunner().invoke(cli, arguments)
                assert done.exit_code == 0, (example, done.output, done.exception)


def test_the_shell_completes_commands_options_files_and_names_of_the_zoo(slimport: Slimport) -> None:
    def completed(line: str) -> str:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return slimport(_SLIMPORT_COMPLETE="bash_complete", **words).out

    assert completed("slimport conv") == "plain,convert\n"
    assert "plain,--scope" in completed("slimport convert --s")
    assert completed("slimport convert resnet_v2_50").splitlines() == ["plain,resnet_v2_50_2017_04_14"]
    assert completed("slimport predict ru") == "file,ru\n"
    assert completed("slimport convert run out") == "file,out\n"


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    with serve() as server:
        server.files["/m.ckpt"], server.etags["/m.ckpt"] = bytes(1000), '"1"'
        command = [*COMMAND, "fetch", f"{server.url}/m.ckpt", "--cache", str(tmp_path)]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "TERM": "xterm", "COLUMNS": "100"}
        ours, theirs = pty.openpty()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=environment, check=True)
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert "m.ckpt" in shown
        assert "\x1b[" in shown
        assert re.fullmatch(rb"[0-9a-f]{64}  \S+/m\.ckpt\n", done.stdout)
        shutil.rmtree(tmp_path)
        again = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=True)
        assert (again.stdout, again.stderr) == (done.stdout, b"")
