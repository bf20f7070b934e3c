"""From a file to a network with its variables: open, select, recognise, assign.

The same for a checkpoint and for a converted file. A converted file may describe its network; otherwise the network is
recognised from names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.files import sha256_of
from converters.formats import FLOATING_POINT, Format, OpenFile, format_of, open_file
from converters.remote import local_path
from converters.variables import Array, PathLike
from converters.weights.recognize import Recognition, choose, compared, networks
from converters.weights.rounding import Rounding, loss, numpy_dtype
from converters.weights.selection import EVERYTHING, Assignment, Selection, assign, select
from converters.weights.user_graph import (
    BESIDE,
    FoundGraph,
    GraphOptions,
    graph_of,
    is_graph,
    open_alone,
    recognised_by_description,
    recognised_by_graph,
)
from slimport.graph import Shape, scoped
from slimport.networks import GraphNetwork, Network

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint


@dataclass(frozen=True)
class Source:
    """A network and its variables, assigned from a file.

    Attributes:
      file: the opened file.
      recognition: the network, as it was selected.
      dtypes: by slim's name relative to the scope, in the order of `stream`.
      stream: yields (slim's name relative to the scope, array), one variable at a time; an array may be valid only
        until the next one is asked for.
      arguments: the network's arguments that are not the defaults.
      names: the names in the file of all selected variables, by slim's names.
      assignments: the source of each variable, by its name relative to the scope.
      selection: the selection from the original network, if the file's description has it.
      rounding: the errors of rounding to another dtype.
    """

    file: OpenFile
    recognition: Recognition
    dtypes: Mapping[str, np.dtype[Any]]
    stream: Callable[[], Iterator[tuple[str, Array]]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    assignments: Mapping[str, Assignment] = field(default_factory=dict, repr=False)
    selection: Selection | None = None
    rounding: Rounding | None = None

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.file.path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the source."""
        return self.file.files

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, if the source is one."""
        return self.file.checkpoint

    @property
    def format(self) -> Format:
        """The format of the file."""
        return format_of(self.path)

    @property
    def network(self) -> Network:
        """The network."""
        return self.recognition.network

    @property
    def scope(self) -> str:
        """The model's scope."""
        return self.recognition.scope

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, in hex, by the file's name."""
        return {path.name: sha256_of(path) for path in self.files}

    def description(self, digests: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The description in a converted file of its network and its source, as plain JSON values."""
        digests = self.digests() if digests is None else digests
        described = {"network": self.network.to_json(), "scope": self.scope, "source": dict(digests)}
        if self.arguments:
            described["arguments"] = dict(self.arguments)
        if self.rounding:
            described["rounding"] = self.rounding.to_json()
        if self.selection is not None and self.selection != EVERYTHING:
            described["selection"] = asdict(self.selection)
        if self.recognition.filled:
            described["filled"] = self.recognition.filled
        return described

    def without_auxiliary(self) -> Source:
        """The source without the branches that the network's output does not need, as programs are."""
        network = self.network.without_auxiliary()
        kept = network.variables()
        return replace(
            self,
            recognition=replace(self.recognition, network=network),
            dtypes={name: dtype for name, dtype in self.dtypes.items() if name in kept},
            assignments={name: assignment for name, assignment in self.assignments.items() if name in kept},
            stream=lambda: ((name, array) for name, array in self.stream() if name in kept),
        )

    def arrays(self) -> dict[str, Array]:
        """All variables at once, by slim's name relative to the scope."""
        return {name: array.copy() for name, array in self.stream()}

    def in_dtype(self, name: str) -> Source:
        """The source with its variables in another dtype; `rounding` has the errors.

        A source that is in this dtype already is returned as it is.

        Raises:
          InputError: no such dtype, or one in which a value overflows.
        """
        dtype = numpy_dtype(name)
        if set(self.dtypes.values()) == {dtype}:
            return self
        losses = {}
        for variable, array in self.stream():
            losses[variable], overflows = loss(array, dtype)
            if overflows:
                raise InputError(
                    f"{self.path}: {overflows} of the {array.size} values of {scoped(self.scope, variable)} are "
                    f"too large for {name}, the largest {np.abs(array.astype(np.float64)).max():.3g}: "
                    f"{'--dtype bfloat16 has the range of float32' if name == 'float16' else 'keep its dtype'}"
                )

        def stream() -> Iterator[tuple[str, Array]]:
            for variable, array in self.stream():
                yield variable, array.astype(dtype)

        before = tuple(sorted({one.name for one in self.dtypes.values()}))
        dtypes = dict.fromkeys(self.dtypes, dtype)
        return replace(self, dtypes=dtypes, stream=stream, rounding=Rounding(before, name, losses))


@contextmanager
def open_source(
    path: PathLike,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
) -> Iterator[Source]:
    """Opens a checkpoint, or a converted file or folder, and finds the network in it.

    Args:
      path: the file, or a folder of `--to huggingface`, or whatever else `open_checkpoint` takes, or what
        `remote.fetch` takes: a URL, a name of the zoo.
      scope: which network to take from a checkpoint that holds several. A converted file holds one, without a scope of
        slim's; then `scope` is the one to give it, and None takes what the file remembers, or the network's name.
      step: which checkpoint of a training run's directory; None is the newest.
      selection: what to take of it.
      graph: the user's own graph, which decides on what the variables do not say.

    Raises:
      InputError: it cannot be read, or holds no network or one that is not whole, or nothing that is selected.
    """
    with open_with_graph(path, step, graph) as (file, found):
        yield _source(file, found, scope, selection)


@contextmanager
def open_with_graph(path: PathLike, step: int | None, options: GraphOptions) -> Iterator[tuple[OpenFile, FoundGraph]]:
    """A file and the user's graph that goes with it."""
    here = local_path(path)
    if is_graph(here):
        yield open_alone(here, options)
        return
    with open_file(here, step) as file:
        yield file, graph_of(file, options)


def selected(file: OpenFile, selection: Selection) -> dict[str, str]:
    """The names in a file of the selected variables, by slim's names."""
    return {seen: file.variables[name].name for seen, name in select(file.variables, selection).items()}


def shapes_of(file: OpenFile, names: Mapping[str, str]) -> dict[str, Shape]:
    """The shapes of variables by the keys of `names`, whose values are their names in the file."""
    by_name = {variable.name: variable.shape for variable in file.variables.values()}
    return {seen: by_name[name] for seen, name in names.items()}


def networks_in(file: OpenFile, graph: FoundGraph, names: Mapping[str, str], selection: Selection) -> list[Recognition]:
    """Every network in the selected variables.

    The one that the user's graph or the file's description says, which is the first, and those that are recognised. A
    description is of no use where scopes are left out.
    """
    shapes = shapes_of(file, names)
    network = None if selection.exclude_scopes else file.network
    under = file.description.get("scope", "") if file.checkpoint is not None else ""
    if file.checkpoint is not None and isinstance(network, GraphNetwork):
        found = [recognised_by_description(network, under, shapes)]
    else:
        found = networks(shapes) if network is None else [compared(network, shapes, under)]
    if file.checkpoint is None:
        # A converted file has all variables: here a missing one was lost.
        found = [replace(one, missing=(*one.missing, *one.filled), filled={}) for one in found]
    settled = network is not None or file.checkpoint is None
    trouble = () if graph.trouble is None else (graph.trouble,)
    known = [replace(one, settled=settled, assumptions=trouble) for one in found]
    if graph.user is None:
        return known
    by_graph = recognised_by_graph(graph.user, names, shapes, found)
    return [by_graph, *(one for one in known if one.scope != by_graph.scope)]


def choose_network(
    file: OpenFile, graph: FoundGraph, found: Sequence[Recognition], names: Mapping[str, str], scope: str | None
) -> Recognition:
    """The one network under a scope; without a scope, that of the user's graph.

    Arguments as of `networks_in`, which found the networks.

    Raises:
      InputError: there is none, or there are several.
    """
    if graph.user is not None and scope is None:
        return found[0]
    if not found and graph.trouble is not None:
        raise InputError(graph.trouble)
    return choose(found, shapes_of(file, names), str(file.path), scope)


def _source(file: OpenFile, graph: FoundGraph, scope: str | None, selection: Selection) -> Source:
    names = selected(file, selection)
    # A converted file's variables are under no scope of slim's.
    described = file.checkpoint is None and graph.user is None
    every = networks_in(file, graph, names, selection)
    found = choose_network(file, graph, every, names, "" if described else scope)
    assigned = assign(found, names, selection, str(file.path))
    recognition, assignments = assigned.recognition, assigned.assignments
    if described:
        given = file.description.get("scope", recognition.network.default_scope) if scope is None else scope.strip("/")
        recognition = replace(recognition, scope=given)
    dtypes_of = {variable.name: variable.dtype for variable in file.variables.values()}
    relative: dict[str, list[str]] = {}
    for name, assignment in assignments.items():
        if assignment.stored is not None:
            relative.setdefault(assignment.stored, []).append(name)
    # In the file's order, so that it is read from front to back.
    order = [name for name in dtypes_of if name in relative]
    dtypes = {name: dtypes_of[stored] for stored in order for name in relative[stored]}
    _check_floating_point(file.path, dtypes)
    filled = [name for name in assignments if name not in dtypes]
    dtypes |= dict.fromkeys(filled, next(iter(dtypes.values())))

    def stream() -> Iterator[tuple[str, Array]]:
        for stored, array in file.read(order):
            for name in relative[stored]:
                yield name, assignments[name].array(array)
        for name in filled:
            yield name, assignments[name].filled(dtypes[name])

    return Source(
        file,
        recognition,
        dtypes,
        stream,
        arguments={**file.description.get("arguments", {}), **recognition.arguments},
        names=names,
        assignments=assignments,
        selection=_selection(file, selection),
    )


def _selection(file: OpenFile, selection: Selection) -> Selection | None:
    """The selection from the original network; None if it is not known."""
    # Earlier versions wrote "view".
    described = file.description.get("selection", file.description.get("view"))
    if described is not None:
        return selection.after(Selection.from_json(described))
    return None if selection == EVERYTHING else selection


def _check_floating_point(path: Path, dtypes: Mapping[str, np.dtype[Any]]) -> None:
    for name, dtype in dtypes.items():
        if dtype.name not in FLOATING_POINT:
            raise InputError(f"{path}: {name} is of dtype {dtype}, not floating point; slimport converts weights only")
