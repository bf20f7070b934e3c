"""The selection of variables in a file: moving averages, excluded scopes, the background class, the head.

First `select` maps slim's names to the file's. Once the network is recognised, `assign` gives each of its variables an
`Assignment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.variables import Array
from converters.weights import training_state
from converters.weights.recognize import Recognition, check_whole
from slimport.graph import Shape, scoped
from slimport.networks import Network

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Selection:
    """The selected variables; the defaults select the unchanged network.

    ema: use moving averages (`tf.train.ExponentialMovingAverage`) instead of the variables that have one.
    exclude_scopes: leave out variables whose names start with one of these, like slim's `checkpoint_exclude_scopes`.
    drop_background: leave out the first class, which is the background in networks of 1001 classes.
    head: keep the layer of the logits; without it, the network returns features.
    """

    ema: bool = False
    exclude_scopes: tuple[str, ...] = ()
    drop_background: bool = False
    head: bool = True

    def __str__(self) -> str:
        """The command's options; empty for the unchanged network."""
        options = ["--ema"] if self.ema else []
        options += [f"--exclude-scope {','.join(self.exclude_scopes)}"] if self.exclude_scopes else []
        options += ["--drop-background"] if self.drop_background else []
        return " ".join(options + ([] if self.head else ["--no-head"]))

    def after(self, earlier: Selection) -> Selection:
        """The selection that is `earlier` followed by this one."""
        return Selection(
            self.ema or earlier.ema,
            tuple(dict.fromkeys(earlier.exclude_scopes + self.exclude_scopes)),
            self.drop_background or earlier.drop_background,
            self.head and earlier.head,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**data, "exclude_scopes": tuple(data["exclude_scopes"])})


EVERYTHING = Selection()


@dataclass(frozen=True)
class Assignment:
    """The source of a variable of the network.

    shape: as the network has it.
    stored: its name in the file; None if it is missing there and its value is `fill`.
    skipped: classes at the start of the last axis that are left out.
    permutation: of the axes of the stored array to the network's order.
    constant: the value, if it is in the user's graph and not in the file.
    """

    shape: Shape
    stored: str | None
    fill: float = 0.0
    skipped: int = 0
    permutation: tuple[int, ...] | None = None
    constant: Array | None = field(default=None, repr=False, compare=False)

    def array(self, stored: Array) -> Array:
        """The network's variable from the file's."""
        stored = stored if self.permutation is None else stored.transpose(self.permutation)
        return stored if stored.shape == self.shape else stored[..., self.skipped :].reshape(self.shape)

    def filled(self, dtype: np.dtype[Any]) -> Array:
        """The network's variable, if the file has none."""
        return np.full(self.shape, self.fill, dtype) if self.constant is None else self.array(self.constant)


@dataclass(frozen=True)
class Assigned:
    """The selected network, and the assignments of its variables by name relative to the scope."""

    recognition: Recognition
    assignments: Mapping[str, Assignment] = field(default_factory=dict)


def select(stored: Iterable[str], selection: Selection) -> dict[str, str]:
    """The selected variables: names in the file by slim's names.

    Raises:
      InputError: no variable is in a scope that is to be left out.
    """
    stored = list(stored)
    for scope in selection.exclude_scopes:
        if not any(name.startswith(scope) for name in stored):
            raise InputError(f"--exclude-scope {scope}: no variable's name begins so; 'inspect --all' lists them")
    # Who saves variables by the names of their tensors has `weights:0`.
    taken = set(stored)
    plain = {name: name.removesuffix(":0") for name in stored if name.removesuffix(":0") not in taken}
    seen = {plain.get(name, name): name for name in stored if not name.startswith(selection.exclude_scopes)}
    if selection.ema:
        for shadow in list(seen):
            if variable := training_state.averaged(shadow, seen):
                seen[variable] = seen.pop(shadow)
    return seen


def assign(recognition: Recognition, stored: Mapping[str, str], selection: Selection, source: str) -> Assigned:
    """The selected network and its assignments.

    Args:
      recognition: of the names from `select`.
      stored: the result of `select`.
      selection: the selection.
      source: for messages.

    Raises:
      InputError: the network is not complete, or the selection does not fit it.
    """
    network, scope = recognition.network, recognition.scope
    lacking = [
        name for name in (*recognition.missing, *recognition.filled) if name.startswith(selection.exclude_scopes)
    ]
    if lacking:
        raise InputError(
            f"{source}: a {network.name} needs {lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}, "
            f"which --exclude-scope leaves out; exclude its whole head ({scoped(scope, network.classifier)}), or "
            f"other layers"
        )
    check_whole(recognition, source)
    assignments = {}
    for name, shape in network.variables().items():
        full = recognition.full_name(name)
        source_of, graph = recognition.sources.get(name), recognition.graph
        assignments[name] = Assignment(
            shape,
            stored.get(full),
            recognition.filled.get(full, 0.0),
            permutation=source_of and source_of.permutation,
            constant=graph.constants.get(full) if graph and source_of and full not in stored else None,
        )
    if selection.ema:
        recognition = _averaged(recognition, assignments, source)
    if selection.drop_background:
        network = _without_background(network, source)
        for name, shape in network.variables().items():
            if shape != assignments[name].shape:
                assignments[name] = replace(assignments[name], shape=shape, skipped=1)
    if not selection.head:
        network = network.with_classes(None)
        head = tuple(recognition.full_name(name) for name in assignments if name not in network.variables())
        if head:
            recognition = replace(recognition, extras={**recognition.extras, training_state.HEAD: head})
    kept = {name: assignments[name] for name in network.variables()}
    full_names = {recognition.full_name(name) for name in kept}
    filled = {name: value for name, value in recognition.filled.items() if name in full_names}
    reshaped = {name: shape for name, shape in recognition.reshaped.items() if name in full_names}
    return Assigned(replace(recognition, network=network, filled=filled, reshaped=reshaped), kept)


def _averaged(recognition: Recognition, assignments: Mapping[str, Assignment], source: str) -> Recognition:
    full = {name: recognition.full_name(name) for name in assignments}
    averaged = tuple(
        full[name] for name, assignment in assignments.items() if assignment.stored not in (None, full[name])
    )
    if not averaged:
        raise InputError(
            f"{source}: no variable of {recognition.network.name} has a moving average "
            f"(.../{training_state.SHADOW}); leave --ema out"
        )
    return replace(recognition, averaged=averaged)


def _without_background(network: Network, source: str) -> Network:
    classes = network.num_classes or 0
    if classes < 2 or classes == IMAGENET_CLASSES:
        why = {0: "it has no logits", 1: "that is its only class"}.get(
            classes, "these are ImageNet's without it already"
        )
        raise InputError(f"{source}: {network.name} with {classes or 'no'} classes has no background to drop: {why}")
    return network.with_classes(classes - 1)
