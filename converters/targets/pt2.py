"""`.pt2`: a program of `torch.export`, for `torch.export.load(FILE).module()(images)`."""

from __future__ import annotations

import io
from pathlib import Path

from converters import frameworks, programs
from converters.models import pytorch_model
from converters.sources import Source
from converters.targets.atomic import atomic, check_destination


def write(source: Source, path: Path) -> None:
    """Writes the program, with the weights in their dtype and the network's default arguments."""
    check_destination(path)
    torch = frameworks.import_torch()
    source = source.without_auxiliary()
    model = pytorch_model(source)
    program = programs.export(model)
    # Operations are named as they come, whatever of them is returned.
    every, end_points = programs.export_end_points(model)
    named = zip(end_points, every.graph.output_node().args[0][1:], strict=True)
    there = {node.name for node in program.graph.nodes}
    values = {name: node.name for name, node in named if node.name in there}
    extra = {programs.NOTES: programs.notes(source.description(source.digests()), values)}
    # In memory first: where the disk is full, PyTorch's writer of files ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())
