"""The networks as functions: one rule for every family and framework, and their signatures for type checkers."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter
from typing import Any, Literal, Protocol, TypeVar

from slimport.networks import FAMILIES, NETWORKS
from slimport.networks.network import Network
from slimport.networks.resnet import Block
from slimport.networks.vgg import ConvBlock

T_co = TypeVar("T_co", covariant=True)
ANY = (*NETWORKS, *(family for family in FAMILIES if family not in NETWORKS))
"""The names of functions: of the networks, and of families whose networks may have any blocks and depths."""


def list_models(pattern: str = "*") -> list[str]:
    """The names of the networks, those that match a pattern such as `resnet*`."""
    return fnmatch.filter(NETWORKS, pattern)


def function(name: str, build: Callable[..., Any]) -> Any:
    """The function of a network's name, or of a family's for a network of any blocks and depths.

    It takes what describes the network and is not settled by the name, by name or, for the required ones and
    `num_classes`, by position; then the arguments of its definition, by position too; `scope`, and `dtype`.

    Args:
      name: of `NETWORKS` or `FAMILIES`; it has the number of classes of the ImageNet release by default.
      build: from a description, the arguments, `scope` and `dtype` to a model.
    """
    network = NETWORKS.get(name)
    described = FAMILIES[name] if network is None else type(network)
    chosen = [
        p for p in inspect.signature(described).parameters.values() if network is None or p.name in network.chosen
    ]
    settled = {f.name: getattr(network, f.name) for f in fields(described) if f.name not in {p.name for p in chosen}}  # type: ignore[arg-type]
    if network is not None:
        chosen = [p.replace(default=getattr(network, p.name)) for p in chosen]
    positional = [p for p in chosen if p.default is Parameter.empty or p.name == "num_classes"]
    by_name = [p for p in chosen if p not in positional]
    arguments = [p for p in inspect.signature(described.define).parameters.values() if p.kind is p.KEYWORD_ONLY]
    more = [Parameter(key, Parameter.KEYWORD_ONLY, default=None) for key in ("scope", "dtype")]
    signature = inspect.Signature(
        [p.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for p in (*positional, *arguments)]
        + [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*by_name, *more)]
    )

    def model(*args: Any, **kwargs: Any) -> Any:
        if any(kwargs.pop(word, None) for word in ("pretrained", "weights")):
            raise TypeError(
                f"{name}: slimport ships no weights: converters.load_pytorch and load_keras take a checkpoint, its URL "
                f"or its name from 'slimport zoo'"
            )
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        return build(described(**settled, **{p.name: given.pop(p.name) for p in chosen}), **given)

    model.__name__ = model.__qualname__ = name
    model.__doc__ = _documentation(name, described)
    model.__signature__ = signature  # type: ignore[attr-defined]
    return model


def without_classes(
    network: Network, arguments: Mapping[str, Any], where: str, instead: str, error: type[ValueError] = ValueError
) -> dict[str, Any]:
    """The arguments for a file's network without `num_classes`, which must be the file's.

    Args:
      network: in the file.
      arguments: of its definition, and `num_classes`.
      where: the file.
      instead: what makes another layer of logits.
      error: the type of the error.

    Raises:
      ValueError: `num_classes` is another one.
    """
    others = dict(arguments)
    asked = others.pop("num_classes", network.num_classes)
    if asked != network.num_classes:
        raise error(
            f"{where}: has {network.num_classes or 'no'} classes, not {asked}: load it without num_classes; then "
            f"{instead} makes a new layer of logits, to be trained"
        )
    return others


def create_model(name: str, build: Callable[..., Any], **given: Any) -> Any:
    """The model of a network's name.

    Raises:
      ValueError: no network has the name; the message has the nearest.
      TypeError: it takes no such argument.
    """
    if name not in NETWORKS:
        nearest = difflib.get_close_matches(name, NETWORKS, cutoff=0.3) or list(NETWORKS)
        raise ValueError(f"no network is named {name!r}; the nearest: {', '.join(nearest[:3])}")
    return function(name, build)(**given)


def _documentation(name: str, described: type[Network]) -> str:
    """The text of `help`: the description's fields and the definition's arguments."""
    parts = [f"{described.title}: {name}."]
    for family in described.__mro__:
        for documented in (vars(family).get("__doc__"), getattr(vars(family).get("define"), "__doc__", None)):
            if issubclass(family, Network) and family is not Network and documented:
                parts.append(inspect.cleandoc(documented))
    return "\n\n".join(parts)


class NetworkFunction(Protocol[T_co]):
    """Any network's; `help` has its own arguments."""

    def __call__(
        self,
        num_classes: int | None = ...,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        scope: str | None = None,
        dtype: Any = None,
        **arguments: Any,
    ) -> T_co: ...


class ResNetFunction(Protocol[T_co]):
    """`resnet_v2_50` and its like."""

    def __call__(
        self,
        num_classes: int | None = ...,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class AnyResNetFunction(Protocol[T_co]):
    """`resnet_v2`, of any blocks, and its like."""

    def __call__(
        self,
        blocks: Sequence[Block],
        num_classes: int | None = None,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        include_root_block: bool = True,
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class DeepLabFunction(Protocol[T_co]):
    """`resnet_v1_50_beta` and its like."""

    def __call__(
        self,
        num_classes: int | None = None,
        global_pool: bool = False,
        output_stride: int | None = None,
        spatial_squeeze: bool = False,
        multi_grid: Sequence[int] | None = None,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class AnyDeepLabFunction(Protocol[T_co]):
    """`resnet_v1_beta`, of any blocks."""

    def __call__(
        self,
        blocks: Sequence[Block],
        num_classes: int | None = None,
        global_pool: bool = False,
        output_stride: int | None = None,
        spatial_squeeze: bool = False,
        multi_grid: Sequence[int] | None = None,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        root_depths: Sequence[int] = (64, 64, 128),
        lite: bool = False,
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class VGGFunction(Protocol[T_co]):
    """`vgg_16` and its like."""

    def __call__(
        self,
        num_classes: int | None = 1000,
        dropout_keep_prob: float = 0.5,
        spatial_squeeze: bool = True,
        fc_conv_padding: Literal["VALID", "SAME"] = "VALID",
        global_pool: bool = False,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class AnyVGGFunction(Protocol[T_co]):
    """`vgg`, of any blocks."""

    def __call__(
        self,
        blocks: Sequence[ConvBlock | tuple[int, int]],
        num_classes: int | None = None,
        dropout_keep_prob: float = 0.5,
        spatial_squeeze: bool = True,
        fc_conv_padding: Literal["VALID", "SAME"] = "VALID",
        global_pool: bool = False,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        fc_depths: tuple[int, int] = (4096, 4096),
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...


class InceptionV3Function(Protocol[T_co]):
    """`inception_v3`."""

    def __call__(
        self,
        num_classes: int | None = 1001,
        global_pool: bool = False,
        spatial_squeeze: bool = True,
        dropout_keep_prob: float = 0.8,
        *,
        in_channels: int = 3,
        final_endpoint: str | None = None,
        depth_multiplier: float = 1.0,
        min_depth: int = 16,
        create_aux_logits: bool = True,
        aux_kernel_size: tuple[int, int] = (5, 5),
        scope: str | None = None,
        dtype: Any = None,
    ) -> T_co: ...
