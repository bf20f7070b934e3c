"""The inputs of a comparison: random numbers that show mistakes, or image files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.errors import InputError
from converters.formats.programs import SIDE
from converters.prediction import preprocessed
from converters.variables import Array, PathLike, listed
from slimport.graph import Graph, Node, Sides
from slimport.graph import Input as GraphInput
from slimport.map_sides import map_sides, pooled_whole
from slimport.networks import GraphNetwork, Network
from slimport.preprocessing import PREPROCESSINGS, Size, sides

Bounds = NDArray[np.float64]
BATCH = 2
SIZE = (97, 128)
"""In a network of strides that keep SAME's sides, every map's height is odd and every map's width even."""
_FLOATS: Mapping[str, Any] = {}
_CHANNELS = 3


class Input(NamedTuple):
    """The input that is asked for.

    size: height and width; None is the network's `default_size`, or the trace's.
    batch: number of images; None is `BATCH`, or the trace's.
    seed: of the random numbers; None is 0, or the trace's.
    files: images that Pillow reads, in place of random numbers.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None
    seed: int | None = None
    files: tuple[PathLike, ...] = ()

    @classmethod
    def of(cls, size: Size | None, batch: int | None, seed: int | None, files: PathLike | Sequence[PathLike]) -> Input:
        """The input by the arguments of `verify`: a side for both, and one file for a list of it, are taken."""
        return cls(None if size is None else sides(size), batch, seed, tuple(listed(files)))


class Inputs(NamedTuple):
    """The inputs of a network in its order, those of whole numbers in their dtype; others as of `Images`."""

    arrays: tuple[Array, ...]
    seed: int | None
    files: tuple[str, ...] = ()


class Images(NamedTuple):
    """An input: float32 [batch, height, width, channels], and the seed, or the names of the files, that it is from."""

    array: Array
    seed: int | None
    files: tuple[str, ...] = ()


def make_inputs(
    network: Network, arguments: Mapping[str, Any], asked: Input, dtypes: Mapping[str, Any] = _FLOATS
) -> Inputs:
    """The inputs of a comparison; arguments and errors as of `make_images`.

    Args:
      dtypes: those of inputs of whole numbers or bools, by the inputs' names.
    """
    check_asked(network, asked)
    first = network.inputs[0]
    if network.takes_images and (asked.files or (network.in_channels and not dtypes)):
        images = make_images(network, arguments, asked)
        array = np.rint(images.array).astype(dtypes[first.name]) if dtypes else images.array
        return Inputs((array,), images.seed, images.files)
    usual = default_size(network, arguments) if network.takes_images else SIZE
    seed = asked.seed or 0
    rng = np.random.default_rng(seed=seed)
    shaped = ((one.name, _shape(one, asked.batch or BATCH, asked.size, usual)) for one in network.inputs)
    return Inputs(tuple(_random(rng, shape, dtypes.get(name)) for name, shape in shaped), seed)


def check_asked(network: Network, asked: Input) -> None:
    """Checks that the input that is asked for is one of the network's kind.

    Raises:
      InputError: it is of images, and the network takes others.
    """
    if asked.size is not None and not any(one.is_images for one in network.inputs):
        raise InputError(f"--size: is of images, and {network.name} takes {described(network)}: leave it out")
    if asked.files and not network.takes_images:
        raise InputError(
            f"--image: is the whole input, and {network.name} takes {described(network)}: leave it out, and the "
            f"inputs are random numbers"
        )


def described(network: Network) -> str:
    """A network's inputs in words: `x [20]`, `images [height, width, 3] and ids [20]`."""
    return " and ".join(f"{one.name} {_sides(one)}" for one in network.inputs)


def _sides(one: GraphInput) -> str:
    names = ("height", "width", "channels") if one.is_images else ("any",) * len(one.shape)
    sides = (name if side is None else str(side) for name, side in zip(names, one.shape[1:], strict=False))
    return f"[{', '.join(sides)}]"


def _shape(one: GraphInput, batch: int, size: Sides | None, usual: Sides) -> tuple[int, ...]:
    """The shape for an input.

    Args:
      size: of images, the one that is asked for; None is the one that the graph has.
      usual: of images, where neither is.
    """
    own = (*size, one.shape[-1]) if size is not None and one.is_images else one.shape[1:]
    others = (*usual, _CHANNELS) if one.is_images else (SIDE,) * len(own)
    return (batch, *(side or other for side, other in zip(own, others, strict=True))) if one.shape else ()


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Random numbers: uniform in [-1, 1], or of a dtype of whole numbers, pixels of images, and otherwise 0 and 1."""
    if dtype is None:
        return np.asarray(rng.uniform(-1, 1, shape), np.float32)
    pixels = len(shape) == 4 and np.dtype(dtype).kind in "iu"
    return np.asarray(rng.integers(0, min(256, np.iinfo(dtype).max + 1) if pixels else 2, shape), dtype)


def as_floats(inputs: Sequence[Array]) -> list[Array]:
    """Inputs as a converted network takes them: whole numbers are floating-point ones there."""
    return [array if array.dtype.kind == "f" else array.astype(np.float32) for array in inputs]


def shapes(inputs: Sequence[Array]) -> str:
    """The shapes of inputs in words: `images of 97x128`, `inputs of 2x20 and 2x97x128x3`."""
    if len(inputs) == 1 and inputs[0].ndim == 4:
        return "images of {}x{}".format(*inputs[0].shape[1:3])
    return f"inputs of {' and '.join('x'.join(map(str, array.shape)) or 'one number' for array in inputs)}"


def make_images(network: Network, arguments: Mapping[str, Any], asked: Input) -> Images:
    """The input of a comparison.

    Args:
      arguments: of the network, all of them.

    Raises:
      InputError: a file is no image, or the network takes none, or images and random numbers are asked for.
    """
    if asked.files:
        if (asked.batch, asked.seed) != (None, None):
            raise InputError("--image: is the whole input; --batch and --seed are for one of random numbers")
        size = asked.size or (network.image_size if isinstance(network, GraphNetwork) else None)
        return Images(preprocessed(network, asked.files, size), None, tuple(os.fspath(path) for path in asked.files))
    size, seed = asked.size or default_size(network, arguments), asked.seed or 0
    return Images(seeded_images(network, (asked.batch or BATCH, *size), seed), seed)


def seeded_images(network: Network, shape: tuple[int, int, int], seed: int) -> Array:
    """Random images, uniform in the range that the network's preprocessing gives, or that its own graph undoes.

    It is [-1, 1] where neither is known.

    They are of float32 values, so that a float32 graph and a float64 graph see the same numbers.

    Args:
      shape: [batch, height, width].
    """
    low, high = value_range(network)
    return np.random.default_rng(seed).uniform(low, high, (*shape, network.in_channels)).astype(np.float32)


def value_range(network: Network) -> tuple[Bounds, Bounds]:
    """The least and the greatest value of each channel that the preprocessing gives."""
    preprocessing = PREPROCESSINGS[network.preprocessing]
    if isinstance(network, GraphNetwork) and network.takes_pixels:
        return np.zeros(network.in_channels), np.full(network.in_channels, 255.0)
    if preprocessing.name == "none" or preprocessing.standardizes:
        # Uniform numbers of variance 1 reach the square root of 3.
        bound = np.full(network.in_channels, 3**0.5 if preprocessing.standardizes else 1.0)
        return -bound, bound
    numbers = preprocessing.numbers(network.in_channels)
    mean, std = np.array(numbers["mean"]), np.array(numbers["std"])
    return -mean / std, (1 - mean) / std


def default_size(network: Network, arguments: Mapping[str, Any]) -> Sides:
    """An odd height and an even width where the network takes them, or else the size that it was made for."""
    side = network.default_image_size
    if isinstance(network, GraphNetwork) and network.image_size is not None:
        return network.image_size
    # Layers without padding, and fully connected ones, take a few sizes only.
    near = ((side, side - 1), (side, side + 1)) if side % 2 else ((side + 1, side), (side - 1, side))
    graph, candidates = network.graph(**arguments), (SIZE, *near) if side >= max(SIZE) else near
    return next((size for size in candidates if _takes(graph, size)), (side, side))


def _takes(graph: Graph, size: Sides) -> bool:
    """Whether every layer of a graph surely takes images of a size."""
    sides, flat, whole = map_sides(graph, size), set[int](), pooled_whole(graph)
    for index, node in enumerate(graph.nodes):
        inputs = [sides[number] for number in node.inputs]
        if node.op in ("squeeze", "flatten") or (node.inputs and flat.issuperset(node.inputs)):
            flat.add(index)
            if not _flattens(node, inputs[0], graph):
                return False
            continue
        found = sides[index]
        joined = node.op != "resize" and len(set(inputs) - {(1, 1)}) > 1
        if found is None or min(found) < 1 or joined:
            return False
        if node.attributes.get("clipped"):
            # Slim's kernel shrinks with the map. A Keras model of any size has the whole map, or the whole kernel.
            wanted = inputs[0] if index in whole else node.attributes["kernel_size"]
            if inputs[0] is None or node.window(inputs[0]) != wanted:
                return False
    return True


def _flattens(node: Node, sides: Sides | None, graph: Graph) -> bool:
    """Whether a layer behind which there is no map takes one of these sides."""
    if node.op == "flatten":
        channels = graph.nodes[node.inputs[0]].channels
        return sides is not None and sides[0] * sides[1] * channels == node.channels
    return node.op != "squeeze" or sides == (1, 1)
