"""What is installed with slimport, and the one line where something is not."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import slimport
from converters import InputError, frameworks, predict
from scripts.studies.lower_bounds import lower_bounds

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process in which Keras was not imported yet, and no backend was chosen."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", "/nowhere")
    return monkeypatch


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in names else None)


def test_a_missing_framework_is_one_line_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in frameworks.EXTRAS.items():
        assert extra in EXTRAS
        assert frameworks.installation(module) == f"pip install 'slimport[{extra}]'"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install 'slimport\[onnx\]'"):
        frameworks.require("onnxruntime")


def test_in_a_clone_that_is_not_installed_the_command_names_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "versions", lambda *_: {})
    assert frameworks.installation("torch") == f"pip install '{ROOT}[pytorch]'"


def test_a_missing_pillow_is_not_a_broken_image(
    digits_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").touch()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r"^PIL\.Image is not installed: pip install pillow$"):
        predict(digits_checkpoint, [tmp_path / "cat.png"])


def test_keras_without_a_backend_says_how_to_get_one(without: pytest.MonkeyPatch) -> None:
    install(without)
    with pytest.raises(InputError, match=r"pip install 'slimport\[keras,pytorch\]' or .*\[tensorflow\]'"):
        frameworks.require("keras")


@pytest.mark.parametrize(
    ("chosen", "installed", "message"),
    [
        ("thano", ("torch",), r"^KERAS_BACKEND=thano: must be one of tensorflow, torch, jax$"),
        ("jax", ("torch",), r"^KERAS_BACKEND=jax: jax is not installed: pip install jax; KERAS_BACKEND=torch works$"),
        ("tensorflow", (), r"^KERAS_BACKEND=tensorflow: tensorflow is not installed: pip install '.*\[tensorflow\]'$"),
    ],
)
def test_a_backend_that_is_none_or_not_installed_is_one_line(
    without: pytest.MonkeyPatch, chosen: str, installed: tuple[str, ...], message: str
) -> None:
    install(without, *installed)
    without.setenv("KERAS_BACKEND", chosen)
    with pytest.raises(InputError, match=message):
        frameworks.require("keras")


@pytest.mark.parametrize(
    ("configured", "installed", "backend"),
    [("tensorflow", ("torch",), "torch"), ("torch", ("torch", "tensorflow"), ""), (None, ("jax",), "jax")],
)
def test_keras_runs_on_a_backend_that_is_installed(
    without: pytest.MonkeyPatch, tmp_path: Path, configured: str | None, installed: tuple[str, ...], backend: str
) -> None:
    """Keras writes "tensorflow" into its file at its first import, whether that is installed or not."""
    install(without, *installed)
    if configured:
        without.setenv("KERAS_HOME", str(tmp_path))
        (tmp_path / "keras.json").write_text(json.dumps({"backend": configured}))
    without.setenv("KERAS_BACKEND", "")
    without.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"^keras is not installed: pip install 'slimport\[keras\]'$"):
        frameworks.require("keras")
    assert os.environ["KERAS_BACKEND"] == backend


def missing(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "slimport", "--version"], capture_output=True, cwd=ROOT, check=True)
    assert slimport.__version__ in done.stdout.decode()


def test_the_version_is_in_one_place() -> None:
    assert SETUP["metadata"]["version"] == "attr: slimport.__version__"
    for name in ("setup.cfg", "pyproject.toml", "CITATION.cff"):
        assert slimport.__version__ not in (ROOT / name).read_text()


def test_the_lower_bounds_are_those_of_setup_cfg() -> None:
    bounds = dict(bound.split(">=") for bound in lower_bounds() if ">=" in bound)
    assert bounds["torch"] in EXTRAS["pytorch"]
    assert len(bounds) > 20
    tested = re.findall(r"^([\w.-]+)==", (ROOT / "scripts/constraints.txt").read_text(), re.MULTILINE)
    assert {name.lower().replace("_", "-") for name in bounds} <= {name.lower().replace("_", "-") for name in tested}


def test_the_readme_on_a_package_index_has_no_link_to_a_file_beside_it() -> None:
    description = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["description"]
    readme = (ROOT / "README.md").read_text()
    here = re.compile(r"\]\((?!https?:)")
    assert here.search(readme)
    assert not here.search(description(readme, None))
    absolute = description(readme, "https://example.com/slimport")
    assert not here.search(absolute)
    assert "](https://example.com/slimport/raw/HEAD/docs/verify.png)" in absolute
    assert "](https://example.com/slimport/blob/HEAD/docs/verify.md)" in absolute
    # Every file that the README leads to is there.
    for path in re.findall(r"\]\((?!https?:)([^)#]+)", readme):
        assert (ROOT / path).exists(), path
