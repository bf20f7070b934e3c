"""The user's own TensorFlow graph, for everything that a checkpoint's variables cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from converters.errors import InputError
from converters.formats import OpenFile
from converters.variables import Array, PathLike, Variable
from converters.weights import training_state
from converters.weights.recognize import Recognition
from slimport.graph import Shape, Source, scoped
from slimport.networks import GraphNetwork

if TYPE_CHECKING:
    from converters.graph_def import UserGraph

NONE = "none"
"""The path that means no graph."""
GRAPH_SUFFIXES = (".meta", ".pb", ".pbtxt")


@dataclass(frozen=True)
class GraphOptions:
    """The graph to read, and how.

    Attributes:
      path: of a `.meta`, `.pb` or SavedModel; None is the one beside the checkpoint, `NONE` is no graph.
      inputs: the tensors where the network begins; empty for those that the graph tells.
      outputs: the tensors where it ends; empty for those that the graph tells.
      mode: `eval`, as after training, or `graph`, as the graph is; None follows from the file.
    """

    path: PathLike | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    mode: Literal["eval", "graph"] | None = None

    def read(self, path: Path) -> UserGraph:
        """The network in a graph.

        Raises:
          InputError: it cannot be read, or has an op that is not supported.
        """
        # Here, so that converted files are read where what reads TensorFlow's (crc32c) is not installed.
        from converters.graph_def import read_network

        return read_network(path, mode=self.mode, inputs=self.inputs, outputs=self.outputs)


BESIDE = GraphOptions()


class FoundGraph(NamedTuple):
    """The graph for a file.

    user: None if there is none, or if it cannot be used.
    trouble: why the one beside a checkpoint cannot be used.
    """

    user: UserGraph | None = None
    trouble: str | None = None


def graph_of(file: OpenFile, options: GraphOptions) -> FoundGraph:
    """The graph for a file: the named one, or the one beside a checkpoint.

    A checkpoint converts as before where nobody asked for the graph beside it, and that cannot be used.

    Raises:
      InputError: the graph that is asked for cannot be read.
    """
    if options.path == NONE:
        return FoundGraph()
    if options.path is not None:
        return FoundGraph(_with_names_of(file, options.read(Path(options.path))))
    if file.checkpoint is None:
        return FoundGraph()
    found = next((path for path in _beside(file.checkpoint.path) if path.is_file()), None)
    if found is None:
        return FoundGraph()
    try:
        user = _with_names_of(file, options.read(found))
    except InputError as error:
        if options != BESIDE:
            raise
        return FoundGraph(trouble=str(error))
    stored = file.variables.keys() | user.constants.keys()
    absent = [source.name for source in user.sources.values() if source.name not in stored]
    if absent and options == BESIDE:
        return FoundGraph(trouble=f"{found}: is not the graph of this checkpoint, which has no {absent[0]}")
    return FoundGraph(user)


def _with_names_of(file: OpenFile, user: UserGraph) -> UserGraph:
    """The graph with its variables' names as the file's are seen: without object paths, where there is another name."""
    seen = {variable.name: name for name, variable in file.variables.items()}
    sources = {name: source._replace(name=seen.get(source.name, source.name)) for name, source in user.sources.items()}
    return replace(user, sources=sources)


def is_graph(path: Path) -> bool:
    """Whether a path is a graph by itself: a frozen one, or one whose checkpoint is not beside it."""
    if path.suffix != ".meta":
        return path.suffix in GRAPH_SUFFIXES and path.name != "saved_model.pb"
    prefix = path.with_suffix("")
    return path.is_file() and not prefix.is_file() and not prefix.with_name(f"{prefix.name}.index").is_file()


def open_alone(path: Path, options: GraphOptions) -> tuple[OpenFile, FoundGraph]:
    """A graph as a file of weights: its constants, which in a frozen graph are all."""
    user = options.read(path)
    sources = {source.name: (source, user.graph.variables[name]) for name, source in user.sources.items()}
    constants = {name: array for name, array in user.constants.items() if name in sources}
    variables = {
        name: Variable(name, constants[name].shape, constants[name].dtype)
        if name in constants
        else Variable(name, source.shape or shape, np.dtype(np.float32))
        for name, (source, shape) in sources.items()
    }

    def read(wanted: Iterable[str]) -> Iterator[tuple[str, Array]]:
        for name in wanted:
            if name not in constants:
                raise InputError(f"{path}: a graph without data: the values of {name} are in a checkpoint; name that")
            yield name, constants[name]

    kind = "frozen graph" if constants.keys() == variables.keys() else "graph"
    return OpenFile(path, kind, (path,), variables, read), FoundGraph(user)


def recognised_by_graph(
    user: UserGraph, names: Mapping[str, str], shapes: Mapping[str, Shape], known: Sequence[Recognition]
) -> Recognition:
    """The network of a graph: a known one if it is equal in every node, or else the graph's own.

    Args:
      user: the graph.
      names: the names in the file by those that slim gave them.
      shapes: the variables' shapes by the latter.
      known: the networks that the variables look like.
    """
    from converters.graph_def.known import likeness

    notes = list(user.notes)
    for found in known:
        if found.complete and not _apart(found, user):
            like = likeness(user, found.network, found.scope)
            if not like.differences:
                return replace(found, graph=user, settled=True, arguments=like.arguments)
            notes.insert(0, f"{like}: as {user.file.path.name} says")
    stored = {name: source for name, source in user.sources.items() if source.name not in user.constants}
    stored |= {name: source for name, source in user.sources.items() if source.name in names}
    by_graph = _recognised(user.network, user.scope, user.sources, stored, shapes)
    return replace(by_graph, graph=user, assumptions=tuple(notes))


def recognised_by_description(network: GraphNetwork, scope: str, shapes: Mapping[str, Shape]) -> Recognition:
    """The network that a checkpoint describes, whose variables have the names of the graph that it came from."""
    sources = {
        name: source._replace(name=scoped(scope, source.name)) for name, source in network.recorded.sources.items()
    }
    return replace(_recognised(network, scope, sources, sources, shapes), origins=sources)


def _recognised(
    network: GraphNetwork,
    scope: str,
    sources: Mapping[str, Source],
    stored: Mapping[str, Source],
    shapes: Mapping[str, Shape],
) -> Recognition:
    """A graph's network among variables, of which it needs those that are `stored`."""
    variables = network.recorded.variables
    expected = {source.name: source.shape or variables[name] for name, source in stored.items()}
    own = {source.name for source in sources.values()}
    return Recognition(
        network,
        scope,
        missing=tuple(name for name in expected if name not in shapes),
        mismatched={name: shape for name, shape in expected.items() if shapes.get(name, shape) != shape},
        extras=training_state.grouped(shapes, [name for name in shapes if name not in own], []),
        settled=True,
    )


def _apart(found: Recognition, user: UserGraph) -> bool:
    """Whether the graph and a recognised network have no variable in common."""
    theirs = {source.name for source in user.sources.values()}
    return not any(name in theirs for name in found.full_names())


def _beside(prefix: Path) -> Iterator[Path]:
    """The paths at which TensorFlow writes the graph of a checkpoint."""
    yield prefix.with_name(f"{prefix.name}.meta")
    if prefix.parent.name == "variables":
        yield prefix.parent.parent / "saved_model.pb"
