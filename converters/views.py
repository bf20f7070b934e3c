"""What a user takes of a network in a file: a transformation of its variables, which every target and `verify` see.

First names: which variables of the file stand under which names of slim's. Then, with the network recognised, for each
of its variables where it comes from, its `Origin`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters import leftovers
from converters.errors import InputError
from converters.mapping import Array
from converters.recognize import Recognition, check_whole
from slimport.graph import Shape, scoped
from slimport.networks import Network

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class View:
    """What is taken; the defaults take the network as it is.

    ema: the moving averages in the variables' places (`tf.train.ExponentialMovingAverage`), where there are any.
    exclude_scopes: what begins with one of these is not there, as with slim's `checkpoint_exclude_scopes`.
    drop_background: without the first class, which is the background in networks of 1001 classes.
    head: with the layer of the logits; without it, the network gives features.
    """

    ema: bool = False
    exclude_scopes: tuple[str, ...] = ()
    drop_background: bool = False
    head: bool = True

    def __str__(self) -> str:
        """The command's options; empty for the network as it is."""
        options = ["--ema"] if self.ema else []
        options += [f"--exclude-scope {','.join(self.exclude_scopes)}"] if self.exclude_scopes else []
        options += ["--drop-background"] if self.drop_background else []
        return " ".join(options + ([] if self.head else ["--no-head"]))

    def after(self, earlier: View) -> View:
        """What is seen when this is taken of what `earlier` took."""
        return View(
            self.ema or earlier.ema,
            tuple(dict.fromkeys(earlier.exclude_scopes + self.exclude_scopes)),
            self.drop_background or earlier.drop_background,
            self.head and earlier.head,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> View:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**data, "exclude_scopes": tuple(data["exclude_scopes"])})


AS_IT_IS = View()


@dataclass(frozen=True)
class Origin:
    """Where a variable of the network comes from.

    shape: as the network has it.
    stored: its name in the file; None where the file has none, and `fill` is its value.
    skipped: classes at the start of the last axis that are left out.
    """

    shape: Shape
    stored: str | None
    fill: float = 0.0
    skipped: int = 0

    def array(self, stored: Array) -> Array:
        """The network's variable from the file's."""
        return stored if stored.shape == self.shape else stored[..., self.skipped :].reshape(self.shape)

    def filled(self, dtype: np.dtype[Any]) -> Array:
        """The network's variable where the file has none."""
        return np.full(self.shape, self.fill, dtype)


@dataclass(frozen=True)
class Taken:
    """What a view takes of a file: the network, and the origins of its variables by name relative to the scope."""

    recognition: Recognition
    origins: Mapping[str, Origin] = field(default_factory=dict)


def names(stored: Iterable[str], view: View) -> dict[str, str]:
    """The names in a file by the names under which the view shows them."""
    seen = {name: name for name in stored if not name.startswith(view.exclude_scopes)}
    if view.ema:
        for shadow in list(seen):
            if variable := leftovers.averaged(shadow, seen):
                seen[variable] = seen.pop(shadow)
    return seen


def take(recognition: Recognition, stored: Mapping[str, str], view: View, source: str) -> Taken:
    """The network as the view has it.

    Args:
      recognition: of the names that `names` gave.
      stored: what `names` gave.
      view: the view.
      source: for messages.

    Raises:
      InputError: the network is not whole, or there is nothing of the kind that the view takes or leaves out.
    """
    network, scope = recognition.network, recognition.scope
    lacking = [name for name in (*recognition.missing, *recognition.filled) if name.startswith(view.exclude_scopes)]
    if lacking:
        raise InputError(
            f"{source}: a {network.name} needs {lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}, "
            f"which --exclude-scope leaves out; exclude its whole head ({scoped(scope, network.classifier)}), or "
            f"what is beside it"
        )
    check_whole(recognition, source)
    origins = {}
    for name, shape in network.variables().items():
        full = scoped(scope, name)
        origins[name] = Origin(shape, stored.get(full), recognition.filled.get(full, 0.0))
    if view.ema:
        recognition = _averaged(recognition, origins, source)
    if view.drop_background:
        network = _without_background(network, source)
        for name, shape in network.variables().items():
            if shape != origins[name].shape:
                origins[name] = replace(origins[name], shape=shape, skipped=1)
    if not view.head:
        network = network.with_classes(None)
        head = tuple(scoped(scope, name) for name in origins if name not in network.variables())
        if head:
            recognition = replace(recognition, extras={**recognition.extras, leftovers.HEAD: head})
    kept = {name: origins[name] for name in network.variables()}
    full_names = {scoped(scope, name) for name in kept}
    filled = {name: value for name, value in recognition.filled.items() if name in full_names}
    reshaped = {name: shape for name, shape in recognition.reshaped.items() if name in full_names}
    return Taken(replace(recognition, network=network, filled=filled, reshaped=reshaped), kept)


def _averaged(recognition: Recognition, origins: Mapping[str, Origin], source: str) -> Recognition:
    full = {name: scoped(recognition.scope, name) for name in origins}
    averaged = tuple(full[name] for name, origin in origins.items() if origin.stored not in (None, full[name]))
    if not averaged:
        raise InputError(
            f"{source}: no variable of {recognition.network.name} has a moving average "
            f"(.../{leftovers.SHADOW}); leave --ema out"
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
