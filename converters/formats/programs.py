"""A network as a program that runs without slimport: `torch.export`'s (`.pt2`) and ONNX's.

One program takes images of any batch, height and width, odd and even, where the network does, and returns only the
network's output, or its outputs by their names. Its description names the end points' values in it, for `verify`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.errors import InputError, first_line
from converters.formats.base import description_text, read_description
from slimport.graph import Graph
from slimport.map_sides import map_sides
from slimport.networks import GraphNetwork, Network

NOTES = "slimport"
"""The key of the description in an ONNX file's `metadata_props`, and among a `.pt2` file's extra files."""
IMAGES = "images"


def export(model: Any) -> Any:
    """The `torch.export.ExportedProgram` of a network of `slimport.pytorch` in eval mode.

    Raises:
      InputError: the network has several inputs.
    """
    torch = frameworks.require("torch")
    config = import_module("torch.fx.experimental._config")
    shape = input_shape(model.network)
    side = model.network.default_image_size
    # A batch of one, or equal sides, would become conditions of the program.
    example = (2, side, side, other_side(model.graph, side))
    sizes = [given if size is None else size for given, size in zip(example, shape, strict=False)]
    images = torch.zeros(sizes, dtype=next(model.parameters()).dtype)
    free = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if size is None}
    # Without `backed_size_oblivious`, the program refuses images with a 1x1 feature map inside the network.
    with frameworks.quiet(), config.patch(backed_size_oblivious=True), torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=(free,))
    for node in program.graph.nodes:
        # Lines of code of the machine that exported it.
        node.meta.pop("stack_trace", None)
    return program


def input_shape(network: Network) -> tuple[int | None, ...]:
    """The shape of a program's input, [batch, channels, height, width] of images; None where any size will do.

    Raises:
      InputError: the network has several inputs.
    """
    shape: tuple[int | None, ...] = (None, None, None, network.in_channels)
    if isinstance(network, GraphNetwork):
        if len(network.recorded.inputs) > 1:
            raise InputError(
                f"{network.name}: programs (.pt2, .onnx) have one input: choose a part with one by --input, or convert "
                f"to .safetensors, .pth or .keras"
            )
        shape = (None, *network.input_shape[1:])
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


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
        def forward(self, images: Any) -> Any:
            output, end_points = self.end_points(images)
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
