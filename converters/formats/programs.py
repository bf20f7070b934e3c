"""A network as a program that runs without slimport: `torch.export`'s (`.pt2`) and ONNX's.

One program takes inputs of any batch, and images of any height and width, odd and even, where the network does, and
returns only the network's output, or its outputs by their names. Its description names the end points' values in it,
for `verify`.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.errors import InputError, first_line
from converters.formats.base import description_text, read_description
from slimport.graph import Graph, Input
from slimport.map_sides import map_sides
from slimport.networks import GraphNetwork, Network

NOTES = "slimport"
"""The key of the description in an ONNX file's `metadata_props`, and among a `.pt2` file's extra files."""
IMAGES = "images"
SIDE = 20
"""Where a side is open, of inputs that are no images."""


def export(model: Any) -> Any:
    """The `torch.export.ExportedProgram` of a network of `slimport.pytorch` in eval mode.

    Raises:
      InputError: PyTorch cannot export it.
    """
    torch = frameworks.require("torch")
    config = import_module("torch.fx.experimental._config")
    inputs, dtype = channels_first(model.network.inputs), next(model.parameters()).dtype
    named, failure = _with_names(model, input_names(model.network)), Exception()
    for sizes, freedom in _examples(model, inputs):
        examples = tuple(torch.zeros(size, dtype=dtype) for size in sizes)
        kind = getattr(torch.export.Dim, freedom)
        free = tuple({axis: kind for axis, size in enumerate(one.shape) if size is None} for one in inputs)
        try:
            # Without `backed_size_oblivious`, the program refuses images with a 1x1 feature map inside the network.
            with frameworks.quiet(), config.patch(backed_size_oblivious=True), torch.no_grad():
                program = torch.export.export(named, examples, dynamic_shapes=free)
        # PyTorch raises all kinds where sides must be equal, or one cannot be free.
        except Exception as error:
            failure = error
            continue
        for node in program.graph.nodes:
            # Lines of code of the machine that exported it.
            node.meta.pop("stack_trace", None)
        return program
    raise InputError(
        f"{model.network.name}: torch.export makes no program of it: {first_line(failure)}; convert to .safetensors, "
        f".pth or .keras"
    ) from failure


def channels_first(inputs: Sequence[Input]) -> list[Input]:
    """The inputs with PyTorch's axes, images [batch, channels, height, width], and any batch."""
    axes = ((3, 1, 2) if one.is_images else range(1, len(one.shape)) for one in inputs)
    return [
        one._replace(shape=(None, *(one.shape[axis] for axis in order))) if one.shape else one
        for one, order in zip(inputs, axes, strict=True)
    ]


def input_names(network: Network) -> list[str]:
    """The names of a program's inputs: `images` of images alone, and otherwise the network's, made into identifiers."""
    if network.takes_images:
        return [IMAGES]
    # The names of values inside an ONNX file, where they are identifiers.
    taken = {*network.graph().end_point_names(""), *output_names(network)}
    found: list[str] = []
    for one in network.inputs:
        own = re.sub(r"\W", "_", one.name, flags=re.ASCII)
        own = f"input_{own}" if not own.isidentifier() or keyword.iskeyword(own) else own
        numbered = itertools.chain([own], (f"{own}_{number}" for number in itertools.count(1)))
        found.append(next(name for name in numbered if name not in taken))
        taken.add(found[-1])
    return found


def output_names(network: Network) -> Sequence[str]:
    """The names of a program's outputs."""
    several = network.output_names if isinstance(network, GraphNetwork) else ()
    return several or ["logits" if network.num_classes else "features"]


def _with_names(model: Any, names: Sequence[str]) -> Any:
    """The model with parameters of these names in the signature of `forward`, which a program's inputs are named by."""

    class Named(type(model)):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            return super().forward(*inputs)

    own = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, own) for name in ("self", *names)]
    Named.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    twin = copy.copy(model)
    twin.__class__ = Named
    return twin


def _examples(model: Any, inputs: Sequence[Input]) -> Iterator[tuple[list[list[int]], str]]:
    """Yields sizes of inputs to export with, and how free their open sides are, as `torch.export.Dim` names it.

    A batch of one, or equal sides, would become conditions of the program. What needs equal sides gets them next, and
    what needs these sides alone has them fixed at last.
    """
    side, alone = model.network.default_image_size, model.network.takes_images
    wider = other_side(model.graph, side) - side if alone else 1
    for step, freedom in ((1, "DYNAMIC"), (0, "DYNAMIC"), (0, "AUTO"))[: 1 if alone else None]:
        heights, others = itertools.count(side, 2 * step), itertools.count(SIDE, step)
        sizes = []
        for one in inputs:
            height = next(heights) if one.is_images else 0
            usual = (side, height, height + wider) if one.is_images else others
            sides = [other if size is None else size for size, other in zip(one.shape[1:], usual, strict=False)]
            sizes.append([2, *sides] if one.shape else [])
        yield sizes, freedom


def other_side(graph: Graph, side: int) -> int:
    """A side next to `side`, for which the maps that the network squeezes are 1x1 too: of Inception v1, not the larger.

    Its last pooling, of 7x7, takes images of 193 to 224 pixels.
    """

    def fits(other: int) -> bool:
        found = map_sides(graph, (side, other))
        squeezed = [found[node.inputs[0]] for node in graph.nodes if node.op == "squeeze"]
        return all(sides in (None, (1, 1)) for sides in squeezed)

    return side - 1 if fits(side - 1) and not fits(side + 1) else side + 1


def export_end_points(model: Any) -> tuple[Any, list[str]]:
    """The program that returns the outputs and then every end point, and the names of these."""
    names: list[str] = []

    class EveryEndPoint(type(model)):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            output, end_points = self.end_points(*inputs)
            names[:] = end_points
            outputs = output.values() if isinstance(output, dict) else [output]
            return *outputs, *end_points.values()

    twin = copy.copy(model)
    twin.__class__ = EveryEndPoint
    return export(twin), names


def notes(description: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """The description in a program's file, as JSON.

    Args:
      description: of the source of the weights, `Source.description`.
      values: the name of the value in the program, by slim's name of the end point.
    """
    return description_text({**description, "end_points": dict(values)})


def load_pt2(path: Path) -> tuple[Any, dict[str, Any]]:
    """The exported program in a file, and its description; empty if slimport did not write it.

    To load it runs code from the file, so it is for `verify` and `predict`, which run a program.

    Raises:
      InputError: it cannot be read.
    """
    torch = frameworks.require("torch")
    extra = {NOTES: ""}
    try:
        with frameworks.quiet():
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        raise InputError(f"{path}: not a program of torch.export: {first_line(error)}") from error
    return program, read_description(path, extra[NOTES])


def load_onnx(path: Path) -> tuple[Any, dict[str, Any]]:
    """The `onnx.ModelProto` in a file, and its description; empty if slimport did not write it.

    Raises:
      InputError: it cannot be read, or has tensors in other files.
    """
    onnx = frameworks.require("onnx")
    try:
        # Other files are not opened: a path in a model may lead anywhere.
        model = onnx.load(path, load_external_data=False)
        tensors = import_module("onnx.external_data_helper")._get_all_tensors(model)
        outside = next((tensor.name for tensor in tensors if tensor.external_data), None)
        if outside is None:
            onnx.checker.check_model(model)
    except Exception as error:
        raise InputError(f"{path}: not an ONNX model: {first_line(error)}") from error
    if outside is not None:
        raise InputError(f"{path}: {outside} is in another file, which is not opened; save the model in one file")
    return model, read_description(path, next((e.value for e in model.metadata_props if e.key == NOTES), ""))
