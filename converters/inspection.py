"""`inspect`: what a checkpoint holds, from its index alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import remote
from converters.checkpoint import Variable, open_checkpoint
from converters.errors import InputError
from converters.recognize import Recognition, recognize

if TYPE_CHECKING:
    from converters.sources import PathLike


@dataclass(frozen=True)
class Inspection:
    """A checkpoint's variables, and the network among them.

    recognition: None where there is no network that slimport knows, or more than one.
    doubt: why `recognition` is None.
    """

    path: Path
    format: str
    variables: tuple[Variable, ...]
    recognition: Recognition | None
    doubt: str | None = None

    @property
    def parameters(self) -> int:
        """Numbers in all variables together."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    def to_json(self) -> dict[str, Any]:
        found = self.recognition
        return {
            "format": self.format,
            "variables": [{"name": v.name, "shape": list(v.shape), "dtype": dtype_name(v)} for v in self.variables],
            "model": found
            and {
                "name": found.network.name,
                "scope": found.scope,
                "num_classes": found.network.num_classes,
                "missing": list(found.missing),
                "misshapen": {name: list(shape) for name, shape in found.misshapen.items()},
            },
            "extras": (
                {group: list(names) for group, names in found.extras.items()}
                if found
                else {"other": [v.name for v in self.variables]}
            ),
        }


def inspect(path: PathLike, scope: str | None = None, step: int | None = None) -> Inspection:
    """What a checkpoint holds. No tensor is read.

    Args:
      path: what `open_checkpoint` takes, or what `remote.fetch` takes: a URL, a name of the zoo.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.

    Raises:
      CheckpointError: it is not a checkpoint, or damaged.
    """
    with open_checkpoint(remote.local(path), step) as checkpoint:
        variables = tuple(checkpoint.variables.values())
        try:
            found, doubt = recognize({v.name: v.shape for v in variables}, str(path), scope), None
        except InputError as error:
            found, doubt = None, str(error)
        return Inspection(Path(path), checkpoint.format, variables, found, doubt)


def dtype_name(variable: Variable) -> str:
    """NumPy's name of the dtype; strings are objects in NumPy."""
    return "string" if variable.dtype.kind == "O" else str(variable.dtype.name)
