"""Compares the ports with the TF-Slim graph in every pair of settings, and prints a Markdown table.

    python -m scripts.studies.parity_matrix [--networks resnet_v2_50 resnet_v2_101 ...] [--each] [--rows 1 2 ...]

The settings: network, input size, `num_classes`, `global_pool`, `output_stride`, `spatial_squeeze`, batch, and those
that only one family has. All of their combinations would be thousands of rows. The rows here are chosen so that any two
settings that are possible together are together in one of them: what goes wrong in a network goes wrong in one setting,
or in two together. With --each, every setting is with every network in some row, and no more: fewer rows.

The ports: PyTorch, and Keras on TensorFlow, JAX and PyTorch. Weights are random, and so are BatchNorm's statistics.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from itertools import chain, combinations, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = os.environ.get("SLIMPORT_MATRIX_BACKEND", "tensorflow")

import numpy as np

from converters import frameworks
from converters.formats import models
from converters.parity import ports
from converters.parity.compare import Row
from converters.parity.reference import Reference
from scripts.make_checkpoint import random_variables
from slimport import networks

Recorder = Callable[[str, Any], Mapping[str, Any]]
"""A port: from a dtype and images to its end points."""

LEVELS: dict[str, tuple[Any, ...]] = {
    "size": ((64, 64), (97, 97), (224, 224), (299, 299), (321, 321), (120, 161)),
    "num_classes": (1001, 21, 7, None, 0),
    "global_pool": (True, False),
    "output_stride": (None, 4, 8, 16, 32),
    "spatial_squeeze": (True, False),
    "batch": (1, 5),
}
FAMILY_LEVELS: dict[str, dict[str, tuple[Any, ...]]] = {
    "vgg": {"size": ((224, 224), (299, 299), (321, 321)), "output_stride": (None,)},
    "inception_v3": {
        "size": ((299, 299), (225, 301)),
        "num_classes": (1001, 7, None),
        "output_stride": (None,),
        "depth_multiplier": (1.0, 0.5),
        "create_aux_logits": (True, False),
    },
}
"""Where a family's are others, or more."""
COLUMNS = {
    "num_classes": "classes",
    "global_pool": "global_pool",
    "output_stride": "output_stride",
    "spatial_squeeze": "squeeze",
    "depth_multiplier": "depth_multiplier",
    "create_aux_logits": "aux logits",
}
"""The settings that have a column of their own in the table, with its title."""
LISTED = [name for name in networks.NETWORKS if name.startswith(("resnet", "vgg", "inception_v3"))]
"""The networks of the published matrix; `scripts.studies.networks` compares all."""
# Slim shrinks the kernel of the auxiliary head to the map that it sees.
AUX_KERNEL_SIZES = {(225, 301): (3, 5)}
# Rows with more numbers than this in their end points would need many gigabytes.
MOST_NUMBERS = 155_000_000
OTHER_KERAS_BACKENDS = ("jax", "torch")


@dataclass(frozen=True)
class Setting:
    """One row of the matrix."""

    network: str
    size: tuple[int, int]
    num_classes: int | None
    global_pool: bool
    output_stride: int | None
    spatial_squeeze: bool
    batch: int
    depth_multiplier: float = 1.0
    create_aux_logits: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's definition, those that it has."""
        return {name: value for name, value in vars(self).items() if name in self.described.arguments}

    @property
    def described(self) -> networks.Network:
        network = networks.NETWORKS[self.network].with_classes(self.num_classes)
        if isinstance(network, networks.InceptionV3):
            return replace(
                network,
                depth_multiplier=self.depth_multiplier,
                create_aux_logits=self.create_aux_logits,
                aux_kernel_size=AUX_KERNEL_SIZES.get(self.size, network.aux_kernel_size),
            )
        return network

    def weights(self) -> dict[str, Any]:
        """The same in every process."""
        return random_variables(self.described, sum(map(ord, self.network)))

    def images(self) -> Any:
        """[batch, height, width, 3], float32 in [-1, 1]."""
        shape = (self.batch, *self.size, 3)
        return np.random.default_rng(sum(self.size)).uniform(-1, 1, shape).astype(np.float32)

    @cached_property
    def numbers(self) -> int:
        """About how many numbers its end points have."""
        (height, width), maps = self.size, maps_of(self.network, self.output_stride)
        return self.batch * sum(channels * -(-height // down) * -(-width // across) for channels, down, across in maps)

    @property
    def possible(self) -> bool:
        """Whether TF-Slim can run it, and this machine."""
        # Only a 1x1 map can be squeezed. One that is not pooled is larger, but for Inception's, whose pool is fixed.
        squeezable = self.global_pool or self.network == "inception_v3"
        return (squeezable or not self.spatial_squeeze) and self.numbers <= MOST_NUMBERS


def settings(names: Sequence[str], *, each: bool = False) -> list[Setting]:
    """Rows that have every possible pair of settings at least once, the cheapest such rows.

    With `each`, only the pairs of a network and another setting count.
    """
    rows = []
    for name in names:
        levels = LEVELS | FAMILY_LEVELS.get(networks.NETWORKS[name].family, {})
        found = (Setting(name, **dict(zip(levels, values, strict=True))) for values in product(*levels.values()))
        rows += [row for row in found if row.possible]
    # What is the same everywhere tells no row from another.
    values = {f.name: {getattr(row, f.name) for row in rows} for f in fields(Setting)}
    varied = [name for name in values if name == "network" or len(values[name]) > 1]
    pairs = {row: set(combinations([(name, getattr(row, name)) for name in varied], 2)) for row in rows}
    if each:
        pairs = {row: {pair for pair in found if pair[0][0] == "network"} for row, found in pairs.items()}
    open_pairs = set().union(*pairs.values())
    chosen = []
    while open_pairs:
        best = max(rows, key=lambda row: (len(pairs[row] & open_pairs), -row.numbers))
        open_pairs -= pairs[best]
        chosen.append(best)
    return sorted(chosen, key=lambda row: (names.index(row.network), row.size, row.numbers))


@cache
def maps_of(network: str, output_stride: int | None) -> list[tuple[int, int, int]]:
    """Channels and stride of the end points that are maps."""
    described = networks.NETWORKS[network]
    graph = described.graph(**{"output_stride": output_stride} if "output_stride" in described.arguments else {})
    nodes = (graph.nodes[point.node] for point in graph.end_points)
    return [(node.channels, *node.stride) for node in nodes if node.stride is not None]


def keras_recorder(row: Setting) -> Recorder:
    """Keras on the backend of this process."""
    network = row.described
    clipped = any(node.attributes.get("clipped") for node in network.graph(**row.arguments).nodes)
    # Keras, as slim, shrinks a pool to a small map where it knows the map's size.
    size = {"image_size": row.size} if clipped else {}
    model = models.keras_port(network, row.weights().items(), **size, **row.arguments)
    return lambda dtype, images: ports.record_keras(model, network.default_scope, images, dtype, "cpu")


def record_keras_to(row: Setting, images: Any, path: str) -> None:
    """Keras's end points in float32, for another process to read."""
    warnings.filterwarnings("ignore")
    recording = keras_recorder(row)("float32", images)
    np.savez(path, **{name.replace("/", "|"): value for name, value in recording.items()})


def read_recording(path: Path) -> dict[str, Any]:
    """What `record_keras_to` wrote; the file is then removed."""
    with np.load(path) as file:
        recording = {name.replace("|", "/"): file[name] for name in file.files}
    path.unlink()
    return recording


class KerasElsewhere:
    """Keras on another backend, which needs a process of its own; a context manager."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._folder = tempfile.TemporaryDirectory()
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))

    def record(self, row: Setting, dtype: str, images: Any) -> dict[str, Any]:
        """Its end points in float32, which is the only `dtype`."""
        assert dtype == "float32"
        path = Path(self._folder.name) / "end_points.npz"
        # The process begins with its first job and takes the backend from the environment.
        os.environ["SLIMPORT_MATRIX_BACKEND"] = self._backend
        self._pool.submit(record_keras_to, row, images, str(path)).result()
        return read_recording(path)

    def __enter__(self) -> KerasElsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._folder.cleanup()


@dataclass(frozen=True)
class Result:
    """One port in one row.

    float64: the worst rel_l2, where the port computes in this dtype.
    float32: the largest ratio of the port's error to TF-Slim's own rounding.
    """

    float64: float | None
    float32: float
    end_points: int
    different: tuple[Row, ...]


def run(row: Setting, elsewhere: Mapping[str, KerasElsewhere]) -> dict[str, Result]:
    """Every port in one row, by the port's name."""
    network, images, weights = row.described, row.images(), row.weights()
    reference = Reference(network, network.default_scope, weights, images, **row.arguments)

    def result(record: Recorder, *dtypes: str) -> Result:
        # One recording at a time: each can take gigabytes.
        rows = {dtype: reference.compare(record(dtype, images), dtype) for dtype in dtypes}
        return Result(
            float64=max(row.rel_l2 for row in rows["float64"]) if "float64" in rows else None,
            float32=max(row.ratio or 0.0 for row in rows["float32"]),
            end_points=len(rows["float32"]),
            different=tuple(row for row in chain(*rows.values()) if not row.ok),
        )

    # float32 first, as the weights are: float64 has them as they are.
    both = ("float32", "float64")
    model = models.pytorch_port(network, weights.items(), **row.arguments)
    results = {"pytorch": result(lambda dtype, images: ports.record_pytorch(model, images, dtype, "cpu"), *both)}
    results["tensorflow"] = result(keras_recorder(row), *both)
    for backend, keras in elsewhere.items():
        results[backend] = result(partial(keras.record, row), "float32")
    return results


def line(number: int, row: Setting, columns: Iterable[str], results: Mapping[str, Result]) -> str:
    """The row in Markdown."""
    cells = [str(number), row.network, f"{row.batch}x{row.size[0]}x{row.size[1]}"]
    cells += [_text(getattr(row, name)) for name in columns]
    cells.append(str(results["pytorch"].end_points))
    for result in results.values():
        cells += [f"{result.float64:.1e}"] if result.float64 is not None else []
        cells.append(f"{result.float32:.2f}")
    verdict = "DIFFERENT" if any(result.different for result in results.values()) else "equal"
    return f"| {' | '.join([*cells, verdict])} |"


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def main() -> None:
    """The command line; exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=LISTED)
    parser.add_argument("--each", action="store_true", help="every setting with every network, not every pair")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="only these, by their number in the table")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = settings(arguments.networks, each=arguments.each)
    families = {networks.NETWORKS[name].family for name in arguments.networks}
    columns = [name for name in COLUMNS if name in LEVELS or any(name in FAMILY_LEVELS.get(f, ()) for f in families)]
    titles = ["row", "network", "input", *(COLUMNS[name] for name in columns), "end points"]
    titles += ["PyTorch float64", "PyTorch float32", "Keras/TF float64", "Keras/TF float32"]
    titles += [f"Keras/{backend} float32" for backend in OTHER_KERAS_BACKENDS] + ["verdict"]
    torch, keras = frameworks.require("torch"), frameworks.require("keras")
    print(f"PyTorch {torch.__version__}, Keras {keras.__version__}\n")
    print(f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", sep="\n")
    all_equal = True
    with ExitStack() as stack:
        elsewhere = {backend: stack.enter_context(KerasElsewhere(backend)) for backend in OTHER_KERAS_BACKENDS}
        for number, row in enumerate(rows, start=1):
            if arguments.rows is None or number in arguments.rows:
                results = run(row, elsewhere)
                print(line(number, row, columns, results), flush=True)
                for port, result in results.items():
                    all_equal &= not result.different
                    for different in result.different:
                        print(f"row {number}, {port}: {different}", file=sys.stderr, flush=True)
    sys.exit(not all_equal)


if __name__ == "__main__":
    main()
