"""`.onnx`: for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slimport
from converters import frameworks, programs
from converters.models import pytorch_model
from converters.sources import Source
from converters.targets.atomic import atomic, check_destination

OPSET = 18
"""PyTorch's exporter writes it without a conversion between opsets, and ONNX Runtime reads it since 1.14 (2023)."""


def write(source: Source, path: Path) -> None:
    """Writes the model, with the weights as they are (BatchNorm is not folded) and the network's default arguments.

    Values inside it that are end points have slim's names for them.
    """
    check_destination(path)
    torch = frameworks.import_torch()
    source = source.without_auxiliary()
    frameworks.import_onnxscript()
    import onnx_ir
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    program, end_points = programs.export_end_points(pytorch_model(source))
    with frameworks.quiet():
        model = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            verbose=False,
            input_names=[programs.IMAGES],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        ).model
        output, *values = model.graph.outputs
        del model.graph.outputs[1:]
        # `predictions`, which only an end point asked for, goes; what is computed from shapes becomes a constant where
        # it is one.
        fold_constants(model)
        remove_unused_nodes(model)
    output.name = "logits" if source.network.num_classes else "features"
    names = _name(dict(zip(end_points, values, strict=True)), model.graph)
    for node in model.graph.all_nodes():
        # The lines of code on the machine that exported it.
        node.metadata_props.clear()
    model.producer_name, model.producer_version = "slimport", slimport.__version__
    model.metadata_props[programs.NOTES] = programs.notes(source.description(source.digests()), names)
    with atomic(path) as temporary:
        onnx_ir.save(model, temporary)


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
