"""`inspect`: the network and the variables in a checkpoint or a converted file, from its index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import InputError, UnsupportedError
from converters.formats import read_of
from converters.variables import PathLike, Variable
from converters.weights import training_state
from converters.weights.recognize import Recognition, Resemblance, UnknownNetworkError
from converters.weights.selection import EVERYTHING, Selection, assign
from converters.weights.source import choose_network, networks_in, open_with_graph, selected, shapes_of
from converters.weights.user_graph import BESIDE, GraphOptions


@dataclass(frozen=True, repr=False)
class Inspection:
    """A file's variables, and the network among them.

    format: `v1` or `v2` of a checkpoint, or a converted file's suffix without the dot.
    selection: the selected variables.
    description: a converted file's description of its network and source; empty for other files.
    names: the selected variables' names in the file by slim's names; they differ in object-based checkpoints, and for
      moving averages.
    recognition: None if there is no network that slimport knows, or more than one.
    networks: all of them.
    doubt: why `recognition` is None.
    nearest: the nearest known network, if there is none.
    extras: the other variables, in groups; all variables if there is no network.
    unsupported: the nodes of a graph that have no counterpart, each with its op.
    step: the one that was asked for.
    read: the checkpoint, where the source is a directory or an archive with others.
    """

    path: Path
    format: str
    variables: tuple[Variable, ...]
    selection: Selection
    names: Mapping[str, str]
    recognition: Recognition | None
    networks: tuple[Recognition, ...] = ()
    doubt: str | None = None
    nearest: Resemblance | None = None
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    step: int | None = None
    read: str = ""

    def __repr__(self) -> str:
        return f"<Inspection of {self.path}: {self.recognition or 'no one network'}, {len(self.variables)} variables>"

    @property
    def parameters(self) -> int:
        """The number of elements in all variables."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    def to_json(self) -> dict[str, Any]:
        """What `slimport inspect --json` prints."""
        near = self.nearest
        return {
            "format": self.format,
            "variables": [{"name": v.name, "shape": list(v.shape), "dtype": dtype_name(v)} for v in self.variables],
            "model": self.recognition and _model_json(self.recognition),
            "models": [_model_json(network) for network in self.networks],
            "extras": {group: list(names) for group, names in self.extras.items()},
            "doubt": self.doubt,
            "unsupported": list(self.unsupported),
            "nearest": near
            and {"name": near.network.name, "scope": near.scope, "alike": near.alike, "difference": near.different},
        }


def inspect(
    path: PathLike,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
) -> Inspection:
    """Lists the network and the variables in a checkpoint or a converted file. No tensor is read.

    Args:
      path: a checkpoint or a converted file, see `open_source`.
      scope: the network's scope, if there are several networks.
      step: the checkpoint of a training run's directory; None is the newest.
      selection: the variables to use.
      graph: the user's own graph, for everything that variables cannot tell.

    Raises:
      InputError: it cannot be read, or has no network under the scope, or the selection does not fit its network.
    """
    try:
        with open_with_graph(path, step, graph) as (file, with_graph):
            names = selected(file, selection)
            every = networks_in(file, with_graph, names, selection)
    except UnsupportedError as error:
        return _not_supported(Path(path), selection, error)
    shapes = shapes_of(file, names)
    found, doubt, nearest = None, None, None
    try:
        found = choose_network(file, with_graph, every, names, scope if file.checkpoint else None)
    except InputError as error:
        doubt = str(error)
        if isinstance(error, UnknownNetworkError):
            doubt, nearest = error.reason, error.nearest
        if scope is not None:
            raise InputError(doubt) from error
    if found and found.complete:
        found = assign(found, names, selection, str(path)).recognition
    return Inspection(
        path=Path(path),
        format=file.format,
        variables=tuple(file.variables.values()),
        selection=selection,
        names=names,
        recognition=found,
        networks=tuple(every),
        doubt=doubt,
        nearest=nearest,
        extras=found.extras if found else training_state.grouped(shapes, shapes),
        description=file.description,
        step=step,
        read=read_of(Path(path), file),
    )


def _not_supported(path: Path, selection: Selection, error: UnsupportedError) -> Inspection:
    """The inspection of a graph that does not convert."""
    nodes = tuple(f"{node.op} of {node.node}" for node in error.nodes)
    return Inspection(path, "graph", (), selection, {}, None, doubt=str(error), unsupported=nodes)


def _model_json(found: Recognition) -> dict[str, Any]:
    return {
        "name": found.network.name,
        "scope": found.scope,
        "num_classes": found.network.num_classes,
        "final_endpoint": found.network.final_endpoint,
        "missing": list(found.missing),
        "mismatched": {name: list(shape) for name, shape in found.mismatched.items()},
        "unexpected": list(found.unexpected),
        "filled": found.filled,
        "reshaped": {name: list(shape) for name, shape in found.reshaped.items()},
        "averaged": None if found.averaged is None else list(found.averaged),
    }


def dtype_name(variable: Variable) -> str:
    """NumPy's name of the dtype; strings are objects in NumPy."""
    return "string" if variable.dtype.kind == "O" else str(variable.dtype.name)
