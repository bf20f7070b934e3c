"""Compares every network that has a name with its judge, and prints a Markdown table.

    python -m scripts.studies.networks [NAME...]

Each network runs with random weights and statistics on images of an even, an odd and a non-square size, in float64 and
in float32, in slim's own code, in PyTorch and in Keras on TensorFlow. Where slim's code needs the images that the
network was made for, as VGG's does, the sizes are about that size, or only that one; elsewhere they are smaller.
"""

from __future__ import annotations

import argparse
import inspect
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from converters import frameworks
from converters.formats import models
from converters.parity import ports
from converters.parity.reference import Reference
from scripts.make_checkpoint import random_variables
from slimport import networks

SMALL = 96
PORTS = ("PyTorch float64", "PyTorch float32", "Keras float64", "Keras float32")
TITLES = ("network", "variables", "parameters", "judge", "sizes", "end points", *PORTS, "verdict")


def sizes(side: int) -> tuple[tuple[int, int], ...]:
    """An even, an odd and a non-square size of about this side."""
    even = side + side % 2
    return (even, even), (even + 1, even + 1), (even + 2, even + 33)


def references(network: networks.Network, sizes: Sequence[tuple[int, int]]) -> list[Reference]:
    """The judge at each of the sizes, which has run.

    Raises:
      ValueError: slim's code does not run at one of them.
    """
    weights = random_variables(network, len(network.name))
    found = []
    for size in sizes:
        images = np.random.default_rng(sum(size)).uniform(-1, 1, (1, *size, network.in_channels)).astype(np.float32)
        squeezed = {"spatial_squeeze": False} if "spatial_squeeze" in network.arguments else {}
        reference = Reference(network, network.default_scope, weights, images, **squeezed)
        assert reference.truth
        found.append(reference)
    return found


def possible(network: networks.Network, sizes: Sequence[tuple[int, int]]) -> list[Reference]:
    """`references`, or none where slim's code does not run at one of the sizes."""
    try:
        return references(network, sizes)
    except ValueError:
        return []


def errors(reference: Reference) -> Iterator[tuple[str, float, bool]]:
    """(port and dtype, worst error or ratio, whether all end points are equal)."""
    network, images, weights = reference.network, reference.images, reference.weights
    arguments = {"spatial_squeeze": False} if "spatial_squeeze" in network.arguments else {}
    torch_model = models.pytorch_port(network, weights.items(), **arguments)
    nodes = network.graph(**arguments).nodes
    sized = any(node.attributes.get("clipped") or node.op == "resize" for node in nodes)
    size = {"image_size": images.shape[1:3]} if sized else {}
    keras_model = models.keras_port(network, weights.items(), **size, **arguments)
    for dtype in ("float32", "float64"):
        recordings = {
            "PyTorch": ports.record_pytorch(torch_model, images, dtype, "cpu"),
            "Keras": ports.record_keras(keras_model, network.default_scope, images, dtype, "cpu"),
        }
        for port, recording in recordings.items():
            rows = reference.compare(recording, dtype)
            worst = max((row.rel_l2 if dtype == "float64" else row.ratio or 0.0) for row in rows)
            yield f"{port} {dtype}", worst, all(row.ok for row in rows)


def line(name: str) -> tuple[str, bool]:
    """The row of a network in Markdown, and whether it is equal."""
    network = networks.NETWORKS[name].without_auxiliary()
    side = network.default_image_size
    # Fully connected layers take the images that they were made for, and no others.
    found = next(runs for choice in (sizes(SMALL), sizes(side), [(side, side)]) if (runs := possible(network, choice)))
    worst: dict[str, float] = {}
    equal = True
    for reference in found:
        for column, error, ok in errors(reference):
            worst[column] = max(error, worst.get(column, 0.0))
            equal &= ok
    variables = networks.NETWORKS[name].variables()
    cells = {
        "network": name,
        "variables": str(len(variables)),
        "parameters": f"{sum(map(math.prod, variables.values())):,}",
        "judge": found[0].judge,
        "sizes": ", ".join("{}x{}".format(*reference.images.shape[1:3]) for reference in found),
        "end points": str(len(found[0].truth)),
        **{key: f"{value:.1e}" if key.endswith("64") else f"{value:.2f}" for key, value in worst.items()},
        "verdict": "equal" if equal else "DIFFERENT",
    }
    return f"| {' | '.join(cells[title] for title in TITLES)} |", equal


def definitions() -> Iterator[str]:
    """The rows of the second table: a family and the lines of its file."""
    for name, family in networks.FAMILIES.items():
        path = Path(inspect.getfile(family))
        yield f"| {family.title} | `{path.name}` | {len(path.read_text(encoding='utf-8').splitlines())} | {name} |"


def main() -> None:
    """The command line; exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(networks.NETWORKS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    versions: dict[str, Any] = {name: frameworks.require(name) for name in ("torch", "keras", "tensorflow")}
    print(", ".join(f"{name} {module.__version__}" for name, module in versions.items()), end="\n\n")
    print(f"| {' | '.join(TITLES)} |", f"|{'---|' * len(TITLES)}", sep="\n")
    all_equal = True
    for name in arguments.names:
        row, equal = line(name)
        all_equal &= equal
        print(row, flush=True)
    print("\n| family | file | lines | name |", "|---|---|---|---|", *definitions(), sep="\n")
    sys.exit(not all_equal)


if __name__ == "__main__":
    main()
