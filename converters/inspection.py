"""`inspect`: what a checkpoint or a converted file holds, from its index alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import leftovers, remote, views
from converters.checkpoint import Variable, open_checkpoint
from converters.errors import InputError
from converters.recognize import Recognition, Resemblance, UnknownNetworkError, choose, networks
from converters.sources import CONVERTED_SUFFIXES, checkpoint_names, is_converted, open_converted, weights_file
from converters.views import AS_IT_IS, View

if TYPE_CHECKING:
    from converters.sources import PathLike


@dataclass(frozen=True)
class Inspection:
    """A file's variables, and the network among them.

    format: `v1` or `v2` of a checkpoint, or a converted file's suffix without the dot.
    view: what is taken.
    description: what a converted file remembers of how it was made; empty where it does not, and for a checkpoint.
    names: the variables' names in the file by those that slim gave them, as the view has them; they differ in
      object-based checkpoints, and where moving averages stand in the variables' places.
    recognition: None where there is no network that slimport knows, or more than one.
    networks: all that there are.
    doubt: why `recognition` is None.
    nearest: the known network that comes closest, where there is none.
    extras: what is not the network's, or where there is none, everything, in groups.
    """

    path: Path
    format: str
    variables: tuple[Variable, ...]
    view: View
    names: Mapping[str, str]
    recognition: Recognition | None
    networks: tuple[Recognition, ...] = ()
    doubt: str | None = None
    nearest: Resemblance | None = None
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Numbers in all variables together."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    def to_json(self) -> dict[str, Any]:
        near = self.nearest
        return {
            "format": self.format,
            "variables": [{"name": v.name, "shape": list(v.shape), "dtype": dtype_name(v)} for v in self.variables],
            "model": self.recognition and _model_json(self.recognition),
            "models": [_model_json(network) for network in self.networks],
            "extras": {group: list(names) for group, names in self.extras.items()},
            "doubt": self.doubt,
            "nearest": near
            and {"name": near.network.name, "scope": near.scope, "alike": near.alike, "difference": near.different},
        }


def inspect(path: PathLike, scope: str | None = None, step: int | None = None, view: View = AS_IT_IS) -> Inspection:
    """What a checkpoint or a converted file holds. No tensor is read.

    Args:
      path: what `open_source` takes.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of it.

    Raises:
      InputError: it cannot be read, or the network has nothing of what the view takes.
    """
    file_format, variables, names, description = _variables(weights_file(remote.local(path)), step)
    by_name = {variable.name: variable for variable in variables}
    names = {seen: names[name] for seen, name in views.names(names, view).items()}
    shapes = {name: by_name[key].shape for name, key in names.items()}
    every = networks(shapes)
    found, doubt, nearest = None, None, None
    try:
        found = choose(every, shapes, str(path), scope)
    except UnknownNetworkError as error:
        doubt, nearest = str(error), error.nearest
    except InputError as error:
        doubt = str(error)
    if found and found.complete:
        found = views.take(found, names, view, str(path)).recognition
    return Inspection(
        path=Path(path),
        format=file_format,
        variables=variables,
        view=view,
        names=names,
        recognition=found,
        networks=tuple(every),
        doubt=doubt,
        nearest=nearest,
        extras=found.extras if found else leftovers.grouped(shapes, shapes),
        description=description,
    )


def _variables(path: Path, step: int | None) -> tuple[str, tuple[Variable, ...], dict[str, str], Mapping[str, Any]]:
    """The file's format, its variables, their names in it by those that slim gave them, and what it remembers."""
    if is_converted(path):
        with open_converted(path) as (variables, _, description):
            found = tuple(Variable(name, shape, dtype) for name, (shape, dtype) in variables.items())
        suffix = next(suffix for suffix in CONVERTED_SUFFIXES if path.name.endswith(suffix))
        return suffix.removeprefix("."), found, {variable.name: variable.name for variable in found}, description
    with open_checkpoint(path, step) as checkpoint:
        return checkpoint.format, tuple(checkpoint.variables.values()), checkpoint_names(checkpoint), {}


def _model_json(found: Recognition) -> dict[str, Any]:
    return {
        "name": found.network.name,
        "scope": found.scope,
        "num_classes": found.network.num_classes,
        "missing": list(found.missing),
        "misshapen": {name: list(shape) for name, shape in found.misshapen.items()},
        "unexpected": list(found.unexpected),
        "filled": found.filled,
        "reshaped": {name: list(shape) for name, shape in found.reshaped.items()},
        "averaged": None if found.averaged is None else list(found.averaged),
    }


def dtype_name(variable: Variable) -> str:
    """NumPy's name of the dtype; strings are objects in NumPy."""
    return "string" if variable.dtype.kind == "O" else str(variable.dtype.name)
