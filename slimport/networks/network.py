"""Base class of the families' descriptions."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, fields, replace
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, TypeVar

from slimport.graph import Graph, Input, Shape, Tensor, record

Preprocessing = Literal["inception", "vgg", "deeplab", "cifarnet", "lenet", "facenet", "none"]
T = TypeVar("T", bound="Network")


class Network(ABC):
    """A network as data; a family is a frozen dataclass over this.

    Its fields are what the variables and their shapes depend on. What leaves no trace in the variables is an argument
    of its definition.
    """

    family: ClassVar[str]
    """Its name here, and that of the module in `slimport.nets` that is its judge."""
    title: ClassVar[str]
    """Its name in a sentence."""
    signature: ClassVar[str]
    """The signature that it is recognised by, in a sentence."""
    classifier: ClassVar[str]
    """The scope of the layer that makes the logits."""
    background: ClassVar[bool]
    """Whether class 0 of its ImageNet releases is the background, so that they have 1001 classes."""
    chosen: ClassVar[tuple[str, ...]] = ("num_classes", "in_channels", "final_endpoint")
    """The fields that users choose anew for a network that has a name; the others make it what it is."""
    arguments: ClassVar[Mapping[str, Any]]
    """The definition's arguments with their defaults."""

    num_classes: int | None
    """None means no logits."""
    in_channels: int
    final_endpoint: str | None = None
    """The end point at which the network ends (slim's argument), its name without the scope; None is its own end."""

    define: Callable[..., Tensor]
    """The definition, in the words of `slimport.graph`: from images, and `arguments` by name, to the output.

    Raises ValueError for an argument that the network cannot be built with.
    """

    def __post_init__(self) -> None:
        """Settles the number of classes: None where the network ends before its logits."""
        settled = None if self.final_endpoint is not None else classes(self.num_classes)
        object.__setattr__(self, "num_classes", settled)

    def __init_subclass__(cls) -> None:
        parameters = inspect.signature(cls.define).parameters.values() if hasattr(cls, "define") else ()
        cls.arguments = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in `named`, or the family's for any other network."""

    def __str__(self) -> str:
        """The name, and where the network ends, if before its own end."""
        return self.name if self.final_endpoint is None else f"{self.name} to {self.final_endpoint}"

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its releases, a name in `slimport.preprocessing`; `none` where it is not known."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes, in its order: images alone, of any size, but for networks of a user's graph."""
        return (Input("images", (None, None, None, self.in_channels)),)

    @property
    def takes_images(self) -> bool:
        """Whether images are its only input."""
        return len(self.inputs) == 1 and self.inputs[0].is_images

    @property
    def default_image_size(self) -> int:
        """Slim's, the side of the images that it was made for."""
        return 224

    @property
    def evaluation_size(self) -> int:
        """The side of the images that its releases were evaluated with."""
        return self.default_image_size

    @property
    def default_scope(self) -> str:
        """The scope that slim gives it, if not told another."""
        return self.name

    @classmethod
    @abstractmethod
    def named(cls: type[T]) -> dict[str, T]:
        """The networks that have a name in slim, as released on ImageNet."""

    @classmethod
    @abstractmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """The scopes under which variables of this family are, sorted."""

    @classmethod
    @abstractmethod
    def infer(cls: type[T], shapes: Mapping[str, Shape]) -> T:
        """The network whose variables these are (names relative to its scope, shapes HWIO).

        Where variables are missing, it is the network that they are missing from, so that comparing with `variables`
        names them.

        Raises:
          ValueError: the shapes are not those of this family, whatever its numbers and depths.
        """

    @classmethod
    def recognised(cls: type[T], shapes: Mapping[str, Shape]) -> T:
        """The network whose variables these are, as of `infer`, or the part of one, if they end at an end point.

        Raises:
          ValueError: the shapes are not those of this family.
        """
        inferred = cls.infer(shapes)
        named = cls.named().values() if inferred.name == cls.family else ()
        trunks = (network.with_classes(inferred.num_classes).trunk(shapes) for network in named)
        # Depths are inferred, but those of a named network are its own.
        fitting = [trunk for trunk in trunks if trunk and trunk.variables().items() <= shapes.items()]
        found = inferred.trunk(shapes) or inferred
        present = sum(shapes.get(name) == shape for name, shape in found.variables().items())
        # The variables of a deep network's first blocks are a part of those of a deeper one's.
        return max((one for one in fitting if len(one.variables()) >= present), key=_size, default=found)

    def trunk(self: T, shapes: Mapping[str, Shape]) -> T | None:
        """The network up to the end point at which the layers end that have variables in `shapes`.

        None if all layers are there, or one is missing that others come behind.
        """
        there = {name.rpartition("/")[0] for name in shapes}
        layers = {name.rpartition("/")[0] for name in self.variables()}
        found = layers & there
        if found in (layers, set()):
            return None
        headless = self.with_classes(None)
        graph = headless.graph()
        ends = {point.name: point.node for point in graph.end_points if graph.scopes_needed[point.node] == found}
        last = max(ends.values(), default=None)
        names = [name for name, node in ends.items() if node == last]
        return replace(headless, final_endpoint=min(names, key=len)) if names else None  # type: ignore[type-var]

    def graph(self, **arguments: Any) -> Graph:
        """The network as a graph, its definition run with these arguments and the defaults of the others.

        Raises:
          ValueError: the definition has no such argument, or cannot be built with it.
        """
        settings = self.with_defaults(arguments)
        return _graph(self, tuple((name, _hashable(value)) for name, value in settings.items()))

    def variables(self) -> dict[str, Shape]:
        """Every model variable with its shape (kernels HWIO), in the order in which slim creates them."""
        return dict(self.graph().variables)

    def end_points(self, scope: str, **arguments: Any) -> list[str]:
        """The names of slim's `end_points`, in slim's order, where the network is under `scope`."""
        return list(self.graph(**arguments).end_point_names(scope))

    def with_classes(self: T, num_classes: int | None) -> T:
        """The same network with as many classes, or without logits for None or 0.

        Raises:
          ValueError: not a number of classes, or the network ends before its logits.
        """
        if num_classes and self.final_endpoint is not None:
            raise ValueError(f"{self} has no logits")
        return replace(self, num_classes=classes(num_classes))  # type: ignore[type-var]

    def without_auxiliary(self: T) -> T:
        """The same network without the branches that its output does not need, such as auxiliary heads."""
        return self

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All of the definition's arguments, from those that are not the defaults.

        Raises:
          ValueError: the definition has no such argument.
        """
        for name in arguments:
            if name not in self.arguments:
                raise ValueError(f"{self.name} takes {', '.join(self.arguments)}; it has no {name}")
        return {**self.arguments, **arguments}

    def to_json(self) -> dict[str, Any]:
        """The description of the network, as plain JSON values."""
        described = dict(zip((field.name for field in fields(self)), astuple(self), strict=True))  # type: ignore[arg-type,call-overload]
        if self.final_endpoint is None:
            described.pop("final_endpoint", None)
        return {"family": self.family, "name": self.name, **described}

    @classmethod
    def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
        """The inverse of `to_json`."""
        given = {"final_endpoint": None, **data}
        return cls(**{field.name: given[field.name] for field in fields(cls)})  # type: ignore[arg-type]


def classes(num_classes: int | None) -> int | None:
    """The number of classes as descriptions have it: slim treats 0 like None.

    Raises:
      ValueError: not a number of classes.
    """
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, int)):
        raise ValueError(f"num_classes {num_classes!r}: must be a whole number, or None for no logits")
    if num_classes is not None and num_classes < 0:
        raise ValueError(f"num_classes {num_classes}: must not be negative")
    return num_classes or None


def depth_in(shapes: Mapping[str, Shape], kernel: str) -> int:
    """The channels that a convolution's kernel takes; 3, those of an image, where it is missing."""
    shape = shapes.get(kernel, ())
    return shape[2] if len(shape) == 4 else 3


def depth_out(shapes: Mapping[str, Shape], scope: str) -> int | None:
    """The channels that the layer of a scope makes, by its weights or its biases; None where both are missing."""
    shape = shapes.get(f"{scope}/weights") or shapes.get(f"{scope}/biases")
    return shape[-1] if shape and math.prod(shape) else None


def infer_depth_multiplier(depths: Iterable[tuple[int, int]], min_depth: int) -> tuple[float, int]:
    """The multiplier, and the least depth, that make of nominal depths those that are found.

    A depth is `max(int(nominal * multiplier), min_depth)`. Of the multipliers that fit, the one with fewest decimals.

    Args:
      depths: (nominal, found).
      min_depth: slim's, which is taken where no depth is smaller.

    Raises:
      ValueError: no multiplier fits.
    """
    depths = list(depths)
    smallest = min((found for _, found in depths), default=min_depth)
    for least in dict.fromkeys((min(min_depth, smallest), smallest)):
        low = max((found / nominal for nominal, found in depths if found > least), default=0.0)
        for digits in range(10):
            multiplier = math.ceil(round(low * 10**digits, 6)) / 10**digits or 10.0**-digits
            if all(max(int(nominal * multiplier), least) == found for nominal, found in depths):
                return multiplier, least
    raise ValueError("its depths are not those of one depth multiplier")


def _size(network: Network) -> int:
    return len(network.variables())


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=256)
def _graph(network: Network, arguments: tuple[tuple[str, Any], ...]) -> Graph:
    definition = partial(network.define, **dict(arguments))
    if network.final_endpoint is not None:
        return record(definition, network.in_channels).up_to(network.final_endpoint)
    return record(definition, network.in_channels, network.classifier if network.num_classes else None)
