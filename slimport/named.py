"""The networks as functions: one rule for every family and framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter
from typing import Any, TypeVar

from slimport import spec

T = TypeVar("T")

# What users choose anew for a network that has a name; its other fields make it what it is.
_CHOSEN = ("num_classes", "in_channels")


def generator(build: Callable[..., T], described: type[spec.Network]) -> Callable[..., T]:
    """The function of a family's name: it takes what describes a network and what `build` takes, and builds it.

    What describes the network without a default, `num_classes` and the family's `arguments` can be given by position.
    """
    description = inspect.signature(described).parameters
    arguments = inspect.signature(build).parameters
    required = [p for p in description.values() if p.default is Parameter.empty]
    positional = [*required, description["num_classes"], *(arguments[name] for name in described.arguments)]
    by_name = [p for p in description.values() if p not in positional]
    by_name += [arguments[name] for name in ("scope", "dtype") if name in arguments]
    signature = inspect.Signature(
        [p.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for p in positional]
        + [p.replace(kind=Parameter.KEYWORD_ONLY) for p in by_name]
    )

    def function(**given: Any) -> T:
        network = described(**{name: given.pop(name) for name in description})
        return build(network, **given)

    doc = f"Any {described.title}: `slimport.spec.{described.__name__}` describes it, `build` has the other arguments."
    return _signed(described.family, doc, signature, function)


def named(name: str, generator: Callable[..., T]) -> Callable[..., T]:
    """The function of a network's name, with as many classes as its ImageNet release by default."""
    network = spec.NETWORKS[name]
    fixed = {f.name: getattr(network, f.name) for f in fields(network) if f.name not in _CHOSEN}  # type: ignore[arg-type]
    return given(name, generator, fixed, num_classes=network.num_classes)


def given(name: str, function: Callable[..., T], fixed: dict[str, Any], **defaults: Any) -> Callable[..., T]:
    """A function with some arguments given and gone from its signature, and with other defaults.

    Args:
      name: of the new function.
      function: every argument of it can be given by name.
      fixed: the arguments that are given.
      defaults: that differ from the function's.
    """
    signature = inspect.signature(function)
    parameters = [
        p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values() if p.name not in fixed
    ]
    doc = f"{name}. See `{function.__name__}` for the arguments."
    new = _signed(name, doc, signature.replace(parameters=parameters), lambda **given: function(**given, **fixed))
    # Slim's `default_image_size`.
    vars(new).update({key: value for key, value in vars(function).items() if not key.startswith("__")})
    return new


def _signed(name: str, doc: str, signature: inspect.Signature, function: Callable[..., T]) -> Callable[..., T]:
    def signed(*args: Any, **kwargs: Any) -> T:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return function(**bound.arguments)

    signed.__name__ = signed.__qualname__ = name
    signed.__doc__ = doc
    signed.__signature__ = signature  # type: ignore[attr-defined]
    return signed
