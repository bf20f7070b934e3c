"""`.onnx`: for ONNX Runtime and other readers of ONNX."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import slimport
from converters import frameworks
from converters.files import atomic, check_destination
from converters.formats import programs
from converters.formats.base import Format, OpenFile, Weights, pytorch_file
from converters.formats.models import pytorch_model
from converters.variables import Array
from slimport.names import pytorch_name
from slimport.networks import Network

_LARGEST = (1 << 31) - (16 << 20)
"""Bytes of weights in a message of at most 2 GiB, with room for the program."""
_AXES = ("batch", "channels", "height", "width")
OPSET = 18
"""PyTorch's exporter writes it without a conversion between opsets, and ONNX Runtime has read it since 1.14 (2023)."""


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file: its initializers with PyTorch's names. Others are constants of the program."""
    model, description = programs.load_onnx(path)
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.numpy_helper import to_array

    initializers = {tensor.name: tensor for tensor in model.graph.initializer if "." in tensor.name}
    tensors = {
        name: (tuple(tensor.dims), np.dtype(tensor_dtype_to_np_dtype(tensor.data_type)))
        for name, tensor in initializers.items()
    }

    def read(name: str) -> Array:
        array: Array = to_array(initializers[name])
        return array

    yield pytorch_file(path, "onnx", tensors, read, description)


def write(weights: Weights, path: Path) -> None:
    """Writes the model, with the weights as they are (BatchNorm is not folded) and the network's arguments.

    Values inside it that are end points have slim's names for them.
    """
    check_destination(path)
    weights = weights.without_auxiliary()
    torch = frameworks.require("torch")
    frameworks.require("onnxscript")
    import onnx_ir
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    program, end_points = programs.export_end_points(pytorch_model(weights))
    with frameworks.quiet():
        model = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            verbose=False,
            input_names=programs.input_names(weights.network),
            dynamic_shapes=_free_axes(program, weights.network),
        ).model
        count = len(model.graph.outputs) - len(end_points)
        outputs, values = model.graph.outputs[:count], model.graph.outputs[count:]
        del model.graph.outputs[count:]
        # Removes `predictions`, which only an end point needs; folds constant computations on shapes.
        _keep_weights(model, {pytorch_name(name) for name in weights.network.variables()})
        fold_constants(model, should_fold=_should_fold)
        remove_unused_nodes(model)
    for output, name in zip(outputs, programs.output_names(weights.network), strict=True):
        output.name = name
    names = _name(dict(zip(end_points, values, strict=True)), model.graph)
    for node in model.graph.all_nodes():
        # Lines of code of the machine that exported it.
        node.metadata_props.clear()
    model.producer_name, model.producer_version = "slimport", slimport.__version__
    model.metadata_props[programs.NOTES] = programs.notes(weights.description(), names)
    with atomic(path) as temporary:
        onnx_ir.save(model, temporary)


def _keep_weights(model: Any, names: Collection[str]) -> None:
    """Leaves names with a dot to the weights alone."""
    for name in [name for name in model.graph.initializers if "." in name and name not in names]:
        value = model.graph.initializers.pop(name)
        value.name = value.const_value.name = name.replace(".", "_")
        model.graph.initializers[value.name] = value


def _should_fold(node: Any) -> bool | None:
    """Never what a weight goes into: it would be another number under no name. Otherwise as onnxscript does."""
    weights = (value for value in node.inputs if value is not None and "." in (value.name or ""))
    return False if any(value.is_initializer() for value in weights) else None


def _free_axes(program: Any, network: Network) -> tuple[dict[int, str], ...]:
    """The axes of each input in which a program takes any size, by their names."""
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    names, found = programs.input_names(network), []
    for one, name, own in zip(network.inputs, names, program.graph_signature.user_inputs, strict=True):
        axes = _AXES if one.is_images else ("batch", *(f"axis_{axis}" for axis in range(1, len(one.shape))))
        # The batch is that of all inputs.
        axes = axes if len(names) == 1 else (axes[:1] + tuple(f"{name}_{axis}" for axis in axes[1:]))
        found.append({axis: axes[axis] for axis, size in enumerate(shapes[own]) if not isinstance(size, int)})
    return tuple(found)


def _name(end_points: dict[str, Any], graph: Any) -> dict[str, str]:
    """Names the values of a graph by their end points, and returns the name of each end point's value."""
    there = {id(value) for node in graph.all_nodes() for value in node.outputs}
    named = {id(value): value for value in graph.outputs}
    for name, value in end_points.items():
        # A block's last unit and the block are one value, and so are the last end point and the output.
        if id(value) in there and id(value) not in named:
            value.name = name
            named[id(value)] = value
    return {name: value.name for name, value in end_points.items() if id(value) in named}


FORMAT = Format("onnx", "onnx", (".onnx",), 3, open_file, write, ("float32",), program=True, largest=_LARGEST)
