"""`.pt2`: a program of `torch.export`, for `torch.export.load(FILE).module()(images)`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters import frameworks
from converters.files import atomic, check_destination
from converters.formats import programs, pth
from converters.formats.base import Format, OpenFile, Weights
from converters.formats.models import pytorch_model


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file: the program's parameters and buffers."""
    program, description = programs.load_pt2(path)
    state = {name: tensor.detach() for name, tensor in program.state_dict.items()}
    yield pth.of_state(path, "pt2", state, description)


def write(weights: Weights, path: Path) -> None:
    """Writes the program, with the weights in their dtype and the network's arguments."""
    check_destination(path)
    torch = frameworks.require("torch")
    weights = weights.without_auxiliary()
    model = pytorch_model(weights)
    program = programs.export(model)
    # Operations have the same names whatever is returned.
    every, end_points = programs.export_end_points(model)
    named = zip(end_points, every.graph.output_node().args[0][1:], strict=True)
    there = {node.name for node in program.graph.nodes}
    values = {name: node.name for name, node in named if node.name in there}
    extra = {programs.NOTES: programs.notes(weights.description(), values)}
    # In memory first: if the disk is full, PyTorch's file writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())


FORMAT = Format("pt2", "pytorch", (".pt2",), 2, open_file, write, program=True)
