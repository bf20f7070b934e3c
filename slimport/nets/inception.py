"""Shared by the Inception networks' builders: slim's own modules, as a network description wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import tf_slim as slim
from tf_slim.ops.arg_scope import arg_scope_func_key, current_arg_scope

Layer = Callable[..., Any]


def arg_scope_of(slims: Callable[..., Any]) -> Callable[..., Any]:
    """An arg scope of tf_slim's, which lacks `batch_norm_scale`: `normalized` says whether there is a gamma."""

    def arg_scope(weight_decay: float = 0.00004, batch_norm_scale: bool = False, **settings: Any) -> Any:  # noqa: ARG001
        return slims(weight_decay=weight_decay, **settings)

    return arg_scope


@contextmanager
def normalized(network: Any) -> Iterator[dict[str, Any]]:
    """The arg scope that is open, with BatchNorms that have a gamma if the network's have.

    Slim's scope for Inception asks for the fused BatchNorm by name, which has no float64 kernel; here, the arg scope of
    `slim.batch_norm` decides. It yields the settings of `slim.conv2d`.
    """
    scope = dict(current_arg_scope())
    for key in map(arg_scope_func_key, (slim.conv2d, slim.fully_connected)):
        given = scope.get(key, {})
        if params := given.get("normalizer_params"):
            params = {**params, "scale": network.batch_norm_scale}
            params.pop("fused", None)
            scope[key] = {**given, "normalizer_params": params}
    with slim.arg_scope(scope):
        yield scope.get(arg_scope_func_key(slim.conv2d), {})


@contextmanager
def replaced(module: ModuleType, **objects: Any) -> Iterator[None]:
    """A module with other objects by some of its names."""
    before = {name: getattr(module, name) for name in objects}
    vars(module).update(objects)
    try:
        yield
    finally:
        vars(module).update(before)


def changed(namespace: Any, layers: Mapping[str, Layer]) -> SimpleNamespace:
    """The namespace that a module of slim's calls `slim`, with some layers replaced."""
    return SimpleNamespace(**{**vars(namespace), **layers})


def with_depths(network: Any) -> dict[str, Layer]:
    """`slim.conv2d` that makes of a depth, which is written into slim's code, that of the network's multiplier."""

    @wraps(slim.conv2d)
    def conv2d(inputs: Any, num_outputs: Any, *args: Any, **settings: Any) -> Any:
        # Logits, and what is added to a map, are told apart by having no BatchNorm.
        depth = num_outputs if "normalizer_fn" in settings else network.depth(num_outputs)
        return slim.conv2d(inputs, depth, *args, **settings)

    return {} if network.depth_multiplier == 1 else {"conv2d": conv2d}


def with_blocks(network: Any, scales: Sequence[float] | None = None) -> dict[str, Layer]:
    """`slim.repeat` that makes as many of each residual block as the network has.

    Args:
      network: has `repeats` of `block35`, `block17` and `block8`.
      scales: of their residuals; None is slim's.
    """

    def repeat(inputs: Any, _: int, layer: Layer, **settings: Any) -> Any:
        stage = ("block35", "block17", "block8").index(layer.__name__)
        if scales is not None:
            settings["scale"] = scales[stage]
        return slim.repeat(inputs, network.repeats[stage], layer, **settings)

    return {"repeat": repeat}
