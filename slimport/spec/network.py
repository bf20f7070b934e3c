"""What every family's description has, and the variables of slim's layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

Shape = tuple[int, ...]
Preprocessing = Literal["inception", "vgg"]
T = TypeVar("T", bound="Network")

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_DECAY = 0.997
VARIABLE_LEAVES = ("weights", "biases", "gamma", "beta", "moving_mean", "moving_variance")


class Network(ABC):
    """A network as data; a family is a frozen dataclass over this.

    Its fields are what the variables and their shapes depend on. What leaves no trace in the variables is an argument
    of the functions that build the network, `arguments`.
    """

    family: ClassVar[str]
    """Its name here, and that of its modules in `slimport.nets`, `slimport.pytorch` and `slimport.keras`."""
    title: ClassVar[str]
    """Its name in a sentence."""
    landmark: ClassVar[str]
    """What it is recognised by, in a sentence."""
    arguments: ClassVar[Mapping[str, Any]]
    """The builders' arguments beside the description, with their defaults."""
    classifier: ClassVar[str]
    """The scope of the layer that makes the logits."""
    background: ClassVar[bool]
    """Whether class 0 of its ImageNet releases is the background, so that they have 1001 classes."""

    num_classes: int | None
    """None means no logits."""
    in_channels: int

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in `named`, or the family's for any other network."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Slim's preprocessing of its ImageNet releases: RGB scaled to [-1, 1], or RGB less its means on ImageNet."""

    @property
    def default_image_size(self) -> int:
        """Slim's, the side of the images that it was made for."""
        return 224

    @property
    def default_scope(self) -> str:
        """The scope that slim gives it, if not told another."""
        return self.name

    @classmethod
    @abstractmethod
    def named(cls: type[T]) -> dict[str, T]:
        """The networks that have a name in slim, as released on ImageNet."""

    @abstractmethod
    def _variables(self) -> Iterator[tuple[str, Shape]]:
        """`variables`, one after the other."""

    @abstractmethod
    def end_points(self, scope: str, **arguments: Any) -> list[str]:
        """The names of slim's `end_points`, in slim's order, where the network stands under `scope`."""

    @classmethod
    @abstractmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """The scopes under which variables of this family stand, sorted."""

    @classmethod
    @abstractmethod
    def infer(cls: type[T], shapes: Mapping[str, Shape]) -> T:
        """The network whose variables these are (names relative to its scope, shapes HWIO).

        Where variables are missing, it is the network that they are missing from, so that comparing with `variables`
        names them.

        Raises:
          ValueError: the shapes are not those of this family, whatever its numbers and depths.
        """

    def variables(self) -> dict[str, Shape]:
        """Every model variable with its shape (kernels HWIO), in the order in which slim creates them."""
        return dict(self._variables())

    def with_classes(self: T, num_classes: int | None) -> T:
        """The same network with as many classes, or without logits for None or 0."""
        return replace(self, num_classes=num_classes or None)  # type: ignore[type-var]

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All of the builders' arguments, from those that are not the defaults.

        Raises:
          ValueError: the family's builders take no such argument.
        """
        for name in arguments:
            if name not in self.arguments:
                raise ValueError(f"{self.name} takes {', '.join(self.arguments)}; it has no {name}")
        return {**self.arguments, **arguments}

    def to_json(self) -> dict[str, Any]:
        """What is needed to build the network again, as plain JSON values."""
        described = zip((field.name for field in fields(self)), astuple(self), strict=True)  # type: ignore[arg-type,call-overload]
        return {"family": self.family, "name": self.name, **dict(described)}

    @classmethod
    def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
        """The inverse of `to_json`."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})  # type: ignore[arg-type]


def scoped(scope: str, name: str) -> str:
    """`name` under `scope`; an empty scope adds nothing."""
    return f"{scope}/{name}" if scope else name


def conv(
    scope: str, kernel_size: int, depth_in: int, depth: int, *, normalized: bool = False
) -> Iterator[tuple[str, Shape]]:
    """The variables of `slim.conv2d`: a kernel, and biases or a BatchNorm."""
    yield f"{scope}/weights", (kernel_size, kernel_size, depth_in, depth)
    if normalized:
        yield from batch_norm(f"{scope}/BatchNorm", depth)
    else:
        yield f"{scope}/biases", (depth,)


def batch_norm(scope: str, depth: int) -> Iterator[tuple[str, Shape]]:
    """The variables of `slim.batch_norm` with a gamma."""
    for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"{scope}/{leaf}", (depth,)


def depth_in(shapes: Mapping[str, Shape], kernel: str) -> int:
    """The channels that a convolution's kernel takes; 3, those of an image, where it is missing."""
    shape = shapes.get(kernel, ())
    return shape[2] if len(shape) == 4 else 3
