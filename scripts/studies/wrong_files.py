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

import numpy as np
import onnx
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from converters import InputError, convert, frameworks, load_pytorch, trace, verify
from converters.formats.base import description_text
from converters.weights.source import open_source
from scripts.make_checkpoint import save_without_tensorflow
from slimport.networks import Network

EPSILON = 1.001e-5
"""Of keras.applications, which float32 numbers do not show."""
SOURCE, TRACE, MODULE = "source.ckpt", "trace.npz", "a module"
"""Names of what is verified: the last is a PyTorch port in memory."""


@dataclass(frozen=True)
class WrongFile:
    """One change.

    name: what is wrong.
    file: the name of the file that is changed, or `MODULE`.
    change: makes the change in place; of a module, returns another.
    caught: `different`, with exit code 1, or `refused`, with 2.
    words: what the report's differences, or the refusal, say.
    """

    name: str
    file: str
    change: Callable[[Any], Any]
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

    def verify(self, file: str, change: Callable[[Any], Any] = lambda _: _, dtype: str | None = None) -> Any:
        """What `verify` finds out about a file, once it is changed: `equal`, `different` or `refused`, and why."""
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as folder:
            copied = Path(folder)
            source, path = copied / SOURCE, copied / file
            for right in (*self._folder.glob(f"{SOURCE}.*"), self._folder / TRACE, *self._converted(file)):
                (shutil.copytree if right.is_dir() else shutil.copyfile)(right, copied / right.name)
            given = change(load_pytorch(source) if file == MODULE else path)
            given = {SOURCE: None, MODULE: given}.get(file, path)
            try:
                report = verify(source, given, dtype=dtype, reference=copied / TRACE)
            except InputError as error:
                return "refused", str(error).removeprefix(f"{copied}/")
        reasons = [text for texts in report.differences.values() for text in texts]
        rows = (row for each in report.by_dtype.values() for row in (*each.rows, *each.returned) if not row.ok)
        reasons += dict.fromkeys(f"{row.name} is beyond its limit" for row in rows)
        return ("equal" if report.ok else "different"), "; ".join(reasons)

    def _converted(self, file: str) -> list[Path]:
        """The right file, converted when it is first needed; none for the source itself."""
        path = self._folder / file
        if file not in (SOURCE, MODULE) and not path.exists():
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


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Changes the description in a `.safetensors` file, whose checksum is made right again."""

    def write(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        description = json.loads(metadata["slimport"])
        del description["checksum"]
        change(description)
        save_file(load_file(path), path, {**metadata, "slimport": description_text(description)})

    return write


def stride_first(description: dict[str, Any]) -> None:
    for _, units in description["network"]["blocks"]:
        units[0][2], units[-1][2] = units[-1][2], units[0][2]


def dilated(description: dict[str, Any]) -> None:
    """Gives the second block's second unit an atrous rate."""
    description["network"]["blocks"][1][1][1][3] = 2


def swap_two_of_one_shape(state: dict[str, Any]) -> None:
    kernels = [name for name in state if name.endswith("conv2.weight")]
    one, other = next((a, b) for a in kernels for b in kernels if a < b and state[a].shape == state[b].shape)
    state[one], state[other] = state[other], state[one]


def add_to_the_logits(path: Path) -> None:
    """Saves the Keras model with 5 added to its output; it keeps slimport's description."""
    keras = frameworks.require("keras")
    model = keras.saving.load_model(path, compile=False)
    with zipfile.ZipFile(path) as archive:
        description = archive.read("slimport.json")
    keras.Model(model.inputs, model.output + 5.0, name=model.name).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("slimport.json", description)


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


def negated_node(path: Path) -> None:
    """Adds a negation behind the output of an ONNX file."""
    model = onnx.load(path)
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Neg", [output.name], ["negated"]))
    output.name = "negated"
    onnx.save(model, path)


def computing_with_a_copy(path: Path) -> None:
    """Lets the last convolution of an ONNX file take a copy of its weights, a little different, of another name."""
    model = onnx.load(path)
    node = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    changed = onnx.numpy_helper.to_array(weights) * np.float32(1 + 2**-23)
    model.graph.initializer.append(onnx.numpy_helper.from_array(changed, "copy"))
    node.input[1] = "copy"
    onnx.save(model, path)


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


def negated_output(exported: Any) -> None:
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    (result,) = output.args[0]
    with exported.graph.inserting_before(output):
        negated = exported.graph.call_function(torch.ops.aten.neg.default, (result,))
    negated.meta = dict(result.meta)
    output.args = ((negated,),)
    exported.graph_signature.output_specs[0].arg.name = negated.name


def other_weight(exported: Any) -> None:
    with torch.no_grad():
        exported.state_dict["logits.bias"][0] += 1e-3


def folder_config(
    change: Callable[[dict[str, Any]], Mapping[str, Any]], name: str = "config.json"
) -> Callable[[Path], None]:
    """Changes what a `.json` says in a folder as the Hugging Face Hub has them."""

    def write(path: Path) -> None:
        config = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**config, **change(config)}))

    return write


def fewer_blocks(config: dict[str, Any]) -> dict[str, Any]:
    network = config["slimport"]["network"]
    return {"slimport": {**config["slimport"], "network": {**network, "blocks": network["blocks"][:-1]}}}


class Altered(torch.nn.Module):
    """A port whose `forward`, or whose `end_points`' first value, is not what its end points say."""

    def __init__(self, network: Any, *, first: bool) -> None:
        super().__init__()
        self.network, self.first = network, first

    def forward(self, images: torch.Tensor) -> Any:
        return self.network(images) if self.first else -self.network(images)

    def end_points(self, images: torch.Tensor) -> Any:
        net, end_points = self.network.end_points(images)
        return (net + 1 if self.first else net), end_points


def other_number(name: str) -> Callable[[Path], None]:
    """Changes a number of an array in the trace beside a file."""

    def write(path: Path) -> None:
        trace_path = path.parent / TRACE
        with np.load(trace_path) as file:
            arrays = dict(file)
        arrays[name].flat[0] += 1
        np.savez(trace_path, **arrays)

    return write


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
    WrongFile(
        "two tensors for one variable",
        "m.safetensors",
        tensors(lambda state: state.update({"logits.biases": state["logits.bias"] + 1})),
        "refused",
        "two tensors for one variable",
    ),
    WrongFile(
        "a number of a weight",
        "m.safetensors",
        tensors(lambda state: state["logits.bias"][:1].mul_(1 + 2**-20)),
        "different",
        "logits/biases is not the source's",
    ),
    WrongFile(
        "strides in the first units, in the metadata",
        "m.safetensors",
        described(stride_first),
        "refused",
        "nothing to compare",
    ),
    WrongFile("an atrous rate in the metadata", "m.safetensors", described(dilated), "refused", "nothing to compare"),
    WrongFile(
        "`output_stride` in the metadata",
        "m.safetensors",
        described(lambda description: description.update(arguments={"output_stride": 4})),
        "refused",
        "was built with output_stride 4",
    ),
    WrongFile(
        "other classes in the metadata",
        "m.safetensors",
        described(lambda description: description["network"].update(num_classes=5)),
        "refused",
        "logits/weights is not of shape",
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
    WrongFile("5 added to the logits", "m.keras", add_to_the_logits, "different", "the model's output is beyond"),
    WrongFile(
        "half precision in the policies",
        "m.keras",
        keras_layers("Conv2D", dtype="mixed_float16"),
        "different",
        "it computes in mixed_float16",
    ),
    WrongFile("a negation behind the logits", "m.onnx", negated_node, "different", "the model's output is beyond"),
    WrongFile(
        "a layer that computes with a copy of its weights",
        "m.onnx",
        computing_with_a_copy,
        "different",
        "logits/weight: the program does not compute with it",
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
    WrongFile(
        "a negation behind the logits",
        "m.pt2",
        program(negated_output),
        "different",
        "the model's output is beyond its limit",
    ),
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
    WrongFile(
        "another mean in preprocessor_config.json",
        "folder",
        folder_config(lambda _: {"image_mean": [0.485, 0.456, 0.406]}, "preprocessor_config.json"),
        "different",
        "image_mean is [0.485, 0.456, 0.406], not",
    ),
    WrongFile(
        "`forward` returns another sign",
        MODULE,
        lambda model: Altered(model, first=False),
        "different",
        "the model's output is beyond its limit",
    ),
    WrongFile(
        "`end_points` returns first what is 1 more",
        MODULE,
        lambda model: Altered(model, first=True),
        "different",
        "what end_points returns first is beyond its limit",
    ),
    WrongFile("left in training mode", MODULE, lambda model: model.train(), "different", "is beyond its limit"),
    WrongFile("another input in the trace", SOURCE, other_number("images"), "refused", "not those that were recorded"),
    WrongFile(
        "another rounding in the trace", SOURCE, other_number("rounding"), "refused", "not those that were recorded"
    ),
    WrongFile("a trace of other weights", SOURCE, of_another_seed, "refused", "a trace of other weights"),
)
