"""Files that are wrong though they look right: each is what slimport writes, with one thing changed."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from converters import InputError, convert, trace, verify
from converters.weights.source import open_source
from scripts.make_checkpoint import save_without_tensorflow
from slimport.networks import Network

EPSILON = 1.001e-5
"""Of keras.applications, which float32 numbers do not show."""
SOURCE, TRACE = "source.ckpt", "trace.npz"


@dataclass(frozen=True)
class WrongFile:
    """One change.

    name: what is wrong.
    file: the name of the file that is changed.
    change: makes the change in place.
    caught: `different`, with exit code 1, or `refused`, with 2.
    words: what the report's differences, or the refusal, say.
    """

    name: str
    file: str
    change: Callable[[Path], None]
    caught: str
    words: str


class Files:
    """A network's checkpoint, with random weights, and its trace.

    Args:
      network: the description.
      folder: where the files go.
      size: of the input.
    """

    def __init__(self, network: Network, folder: Path, size: tuple[int, int]) -> None:
        self._folder = folder
        save_without_tensorflow(network, folder / SOURCE)
        trace(folder / SOURCE, folder / TRACE, size=size)

    def verify(self, file: str, change: Callable[[Path], None] | None = None, dtype: str | None = None) -> Any:
        """What `verify` finds out about a file, once it is changed: `equal`, `different` or `refused`, and why."""
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as folder:
            copied = Path(folder)
            source, path = copied / SOURCE, copied / file
            for right in (*self._folder.glob(f"{SOURCE}.*"), self._folder / TRACE, *self._converted(file)):
                (shutil.copytree if right.is_dir() else shutil.copyfile)(right, copied / right.name)
            if change is not None:
                change(path)
            try:
                report = verify(source, None if file == SOURCE else path, dtype=dtype, reference=copied / TRACE)
            except InputError as error:
                return "refused", str(error).removeprefix(f"{copied}/")
        reasons = [text for texts in report.differences.values() for text in texts]
        reasons += [f"{row.name} is beyond its limit" for row in report.rows if not row.ok]
        return ("equal" if report.ok else "different"), "; ".join(reasons)

    def _converted(self, file: str) -> list[Path]:
        """The right file, converted when it is first needed; none for the source itself."""
        path = self._folder / file
        if file != SOURCE and not path.exists():
            convert(self._folder / SOURCE, path, to=None if path.suffix else "huggingface")
        return [path] if path.exists() else []


# Changes


def tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes the tensors of a `.safetensors` file, which keeps its metadata."""

    def write(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        state = load_file(path)
        change(state)
        save_file(state, path, metadata)

    return write


def swap_two_of_one_shape(state: dict[str, Any]) -> None:
    kernels = [name for name in state if name.endswith("conv2.weight")]
    one, other = next((a, b) for a in kernels for b in kernels if a < b and state[a].shape == state[b].shape)
    state[one], state[other] = state[other], state[one]


def keras_layers(class_name: str, first: bool = False, **settings: Any) -> Callable[[Path], None]:
    """Changes the config of a class of layers in a `.keras` file, or of the first of them alone."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        layers = [layer for layer in config["config"]["layers"] if layer["class_name"] == class_name]
        for layer in layers[:1] if first else layers:
            layer["config"].update(settings)
        members["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


def onnx_nodes(op_type: str, name: str, value: Any, *, first: bool = False) -> Callable[[Path], None]:
    """Changes an attribute of a kind of node in an ONNX file, or of the first of them alone."""

    def write(path: Path) -> None:
        model = onnx.load(path)
        nodes = [node for node in model.graph.node if node.op_type == op_type]
        for node in nodes[:1] if first else nodes:
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
        onnx.save(model, path)

    return write


def program(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Changes the exported program in a `.pt2` file, which keeps its notes."""

    def write(path: Path) -> None:
        notes = {"slimport": ""}
        exported = torch.export.load(path, extra_files=notes)
        change(exported)
        torch.export.save(exported, path, extra_files=notes)

    return write


def other_epsilon(exported: Any) -> None:
    for node in exported.graph.nodes:
        if "batch_norm" in str(node.target):
            node.args = tuple(EPSILON if arg == 1e-5 else arg for arg in node.args)


def other_weight(exported: Any) -> None:
    with torch.no_grad():
        exported.state_dict["logits.bias"][0] += 1e-3


def folder_config(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[[Path], None]:
    """Changes what `config.json` says in a folder as the Hugging Face Hub has them."""

    def write(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **change(config)}))

    return write


def fewer_blocks(config: dict[str, Any]) -> dict[str, Any]:
    network = config["slimport"]["network"]
    return {"slimport": {**config["slimport"], "network": {**network, "blocks": network["blocks"][:-1]}}}


def of_another_seed(path: Path) -> None:
    with open_source(path) as source:
        network = source.network
    save_without_tensorflow(network, path, seed=1)


WRONG_FILES = (
    WrongFile(
        "an extra tensor",
        "m.safetensors",
        tensors(lambda state: state.update({"extra.weight": torch.ones(3)})),
        "different",
        "extra/weights is not in the network",
    ),
    WrongFile("two tensors swapped", "m.safetensors", tensors(swap_two_of_one_shape), "different", "not the source's"),
    WrongFile(
        "epsilon 1.001e-5 in the config",
        "m.keras",
        keras_layers("BatchNormalization", epsilon=EPSILON),
        "different",
        "epsilon is 1.001e-05, not 1e-05",
    ),
    WrongFile(
        "padding `valid` in the config",
        "m.keras",
        keras_layers("MaxPooling2D", first=True, padding="valid"),
        "different",
        "pool1/MaxPool: padding is valid, not same",
    ),
    WrongFile(
        "epsilon 1.001e-5 in the nodes",
        "m.onnx",
        onnx_nodes("BatchNormalization", "epsilon", EPSILON),
        "different",
        "epsilon is 1.001e-05, not 1e-05",
    ),
    WrongFile(
        "pads of a node moved by one",
        "m.onnx",
        onnx_nodes("Conv", "pads", [2, 2, 4, 4], first=True),
        "different",
        "pads is [2, 2, 4, 4], not [3, 3, 3, 3]",
    ),
    WrongFile("epsilon 1.001e-5 in the operations", "m.pt2", program(other_epsilon), "different", "beyond its limit"),
    WrongFile("another weight", "m.pt2", program(other_weight), "different", "logits/biases is not the source's"),
    WrongFile(
        "another network in config.json",
        "folder",
        folder_config(lambda _: {"architecture": "resnet_v2_101"}),
        "refused",
        "its 'architecture' is not that of model.safetensors",
    ),
    WrongFile(
        "other classes in config.json",
        "folder",
        folder_config(lambda config: {"num_classes": config["num_classes"] + 1}),
        "refused",
        "its 'num_classes' is not that of model.safetensors",
    ),
    WrongFile(
        "fewer blocks in config.json",
        "folder",
        folder_config(fewer_blocks),
        "refused",
        "its 'slimport' is not that of model.safetensors",
    ),
    WrongFile("a trace of other weights", SOURCE, of_another_seed, "refused", "a trace of other weights"),
)
