"""Compares the ports with the TF-Slim graph in every pair of settings, and prints a Markdown table.

    python scripts/parity_matrix.py [--networks resnet_v2_50 resnet_v2_101 ...] [--each] [--rows 1 2 ...]

The settings: network, input size, `num_classes`, `global_pool`, `output_stride`, `spatial_squeeze`, batch. All of their
combinations would be thousands of rows. The rows here are chosen so that any two settings that can stand together do
stand together in one of them: what goes wrong in a network goes wrong in one setting, or where two meet. With --each,
every setting stands with every network, and that is all: fewer rows.

The ports: PyTorch, and Keras on TensorFlow, JAX and PyTorch. Weights are random, and so are BatchNorm's statistics.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from itertools import chain, combinations, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = os.environ.get("SLIMPORT_MATRIX_BACKEND", "tensorflow")

import numpy as np
from make_checkpoint import random_value

from converters import frameworks, models
from converters.parity import ports
from converters.parity.compare import FLOAT32_RATIO, Row
from converters.parity.reference import Reference
from slimport import spec

Recorder = Callable[[str, Any], Mapping[str, Any]]
"""A port: from a dtype and images to its end points."""

SIZES = ((64, 64), (97, 97), (224, 224), (299, 299), (321, 321), (120, 161))
NUM_CLASSES = (1001, 21, 7, None, 0)
OUTPUT_STRIDES = (None, 4, 8, 16, 32)
# Rows with more numbers than this in their end points would need many gigabytes.
MOST_NUMBERS = 125_000_000
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

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the networks' functions, those that the network has."""
        names = ("global_pool", "output_stride", "spatial_squeeze")
        return {name: getattr(self, name) for name in names if name in self.described.arguments}

    @property
    def described(self) -> spec.Network:
        return replace(spec.NETWORKS[self.network], num_classes=self.num_classes)

    def weights(self) -> dict[str, Any]:
        """The same in every process."""
        generator = np.random.default_rng(sum(map(ord, self.network)))
        return {name: random_value(name, shape, generator) for name, shape in self.described.variables().items()}

    def images(self) -> Any:
        """[batch, height, width, 3], float32 in [-1, 1]."""
        shape = (self.batch, *self.size, 3)
        return np.random.default_rng(sum(self.size)).uniform(-1, 1, shape).astype(np.float32)

    @property
    def numbers(self) -> int:
        """About how many numbers its end points have."""
        height, width = self.size
        maps = maps_of(self.network, self.output_stride)
        return self.batch * sum(channels * -(-height // stride) * -(-width // stride) for stride, channels in maps)

    @property
    def possible(self) -> bool:
        """Whether TF-Slim can run it, and this machine."""
        network = spec.NETWORKS[self.network]
        if isinstance(network, spec.VGG) and (
            self.output_stride is not None or min(self.size) < network.default_image_size
        ):
            return False
        # Only a 1x1 map can be squeezed, and a map that is not pooled is larger.
        return (self.global_pool or not self.spatial_squeeze) and self.numbers <= MOST_NUMBERS


def settings(networks: Sequence[str], *, each: bool = False) -> list[Setting]:
    """Rows in which every possible pair of settings stands at least once, of the cheapest that do.

    With `each`, only the pairs of a network and another setting count.
    """
    levels = (networks, SIZES, NUM_CLASSES, (True, False), OUTPUT_STRIDES, (True, False), (1, 5))
    rows = [setting for values in product(*levels) if (setting := Setting(*values)).possible]
    pairs = {row: {pair for pair in pairs_of(row) if not each or pair[0][0] == "network"} for row in rows}
    open_pairs = set().union(*pairs.values())
    chosen = []
    while open_pairs:
        best = max(rows, key=lambda row: (len(pairs[row] & open_pairs), -row.numbers))
        open_pairs -= pairs[best]
        chosen.append(best)
    return sorted(chosen, key=lambda row: (networks.index(row.network), row.size, row.numbers))


@cache
def maps_of(network: str, output_stride: int | None) -> list[tuple[int, int]]:
    """(stride, channels) of the end points, a unit's taken together."""
    described = spec.NETWORKS[network]
    if isinstance(described, spec.VGG):
        return [(1 << n, block.depth * block.repetitions) for n, block in enumerate(described.blocks)]
    assert isinstance(described, spec.ResNet)
    maps, stride = [], 4
    for unit in described.units(output_stride):
        stride *= unit.stride
        maps.append((stride, 2 * unit.depth + 2 * unit.depth_bottleneck))
    return maps


def pairs_of(row: Setting) -> Iterator[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Every two settings of a row, by name and value."""
    return combinations([(field.name, getattr(row, field.name)) for field in fields(row)], 2)


def keras_recorder(row: Setting) -> Recorder:
    """Keras on the backend of this process."""
    network = row.described
    model = models.keras_port(network, row.weights().items(), **row.arguments)
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

    def record(self, row: Setting, images: Any) -> dict[str, Any]:
        """Its end points in float32."""
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
    """One port in one row: float64's worst rel_l2, where the port computes in it, and float32's worst ratio."""

    float64: float | None
    float32: float
    end_points: int
    different: tuple[Row, ...]


def run(row: Setting, elsewhere: Mapping[str, KerasElsewhere]) -> dict[str, Result]:
    """Every port in one row, by the port's name."""
    network, images, weights = row.described, row.images(), row.weights()
    with Reference(network, network.default_scope, weights, images, **row.arguments) as reference:

        def result(record: Recorder, *dtypes: str) -> Result:
            # One recording at a time: each can take gigabytes.
            rows = {dtype: reference.compare(partial(record, dtype), dtype) for dtype in dtypes}
            return Result(
                float64=max(row.rel_l2 for row in rows["float64"]) if "float64" in rows else None,
                float32=max(ratio(row) for row in rows["float32"]),
                end_points=len(rows["float32"]),
                different=tuple(row for row in chain(*rows.values()) if not row.ok),
            )

        # float32 first, as the weights are: float64 holds them as they are.
        both = ("float32", "float64")
        model = models.pytorch_port(network, weights.items(), **row.arguments)
        results = {"pytorch": result(lambda dtype, images: ports.record_pytorch(model, images, dtype, "cpu"), *both)}
        results["tensorflow"] = result(keras_recorder(row), *both)
        for backend, keras in elsewhere.items():
            results[backend] = result(lambda _, images, keras=keras: keras.record(row, images), "float32")
    return results


def ratio(row: Row) -> float:
    """The error over TF-Slim's own rounding, counting in the limit's constant: above 1.5 is a difference."""
    return FLOAT32_RATIO * row.rel_l2 / row.limit


def line(number: int, row: Setting, results: Mapping[str, Result]) -> str:
    """The row in Markdown."""
    cells = [
        str(number),
        row.network,
        f"{row.batch}x{row.size[0]}x{row.size[1]}",
        str(row.num_classes),
        "yes" if row.global_pool else "no",
        str(row.output_stride),
        "yes" if row.spatial_squeeze else "no",
        str(results["pytorch"].end_points),
    ]
    for result in results.values():
        cells += [f"{result.float64:.1e}"] if result.float64 is not None else []
        cells.append(f"{result.float32:.2f}")
    verdict = "DIFFERENT" if any(result.different for result in results.values()) else "equal"
    return f"| {' | '.join([*cells, verdict])} |"


def main() -> None:
    """The command line; exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=list(spec.NETWORKS))
    parser.add_argument("--each", action="store_true", help="every setting with every network, not every pair")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="only these, by their number in the table")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    titles = ["row", "network", "input", "classes", "global_pool", "output_stride", "squeeze", "end points"]
    titles += ["PyTorch float64", "PyTorch float32", "Keras/TF float64", "Keras/TF float32"]
    titles += [f"Keras/{backend} float32" for backend in OTHER_KERAS_BACKENDS] + ["verdict"]
    torch, keras = frameworks.import_torch(), frameworks.import_keras()
    print(f"PyTorch {torch.__version__}, Keras {keras.__version__}\n")
    print(f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", sep="\n")
    all_equal = True
    with ExitStack() as stack:
        elsewhere = {backend: stack.enter_context(KerasElsewhere(backend)) for backend in OTHER_KERAS_BACKENDS}
        for number, row in enumerate(settings(arguments.networks, each=arguments.each), start=1):
            if arguments.rows is None or number in arguments.rows:
                results = run(row, elsewhere)
                print(line(number, row, results), flush=True)
                for port, result in results.items():
                    all_equal &= not result.different
                    for different in result.different:
                        print(f"row {number}, {port}: {different}", file=sys.stderr, flush=True)
    sys.exit(not all_equal)


if __name__ == "__main__":
    main()
