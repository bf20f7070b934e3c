"""Compares the ports with the TF-Slim graph at every depth and size, and prints a Markdown table.

    python scripts/parity_matrix.py [--depths 50 101 152 200]

For each: the worst rel_l2 of all end points in float64, and the worst ratio of the port's float32 error to TF-Slim's
own float32 rounding, with the verdict of `slimport verify`. PyTorch, and Keras on its TensorFlow backend. Weights are
random.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
from make_checkpoint import random_value

from converters import frameworks, models
from converters.parity import ports, tf_slim
from converters.parity.compare import ROUNDING_RUNS, Row, compare, compare_float32, neighbours
from slimport import spec

SIZES = ((97, 97), (112, 112), (224, 224), (225, 225), (120, 161))


def ports_of(network: spec.Network, weights: dict[str, Any]) -> dict[str, Any]:
    """Functions (images, dtype) -> recording, by name."""
    torch, keras = frameworks.import_torch(), frameworks.import_keras()
    model = models.pytorch_port(network, weights.items())
    keras_model = models.keras_port(network, weights.items())
    return {
        f"PyTorch {torch.__version__}": lambda images, dtype: ports.record_pytorch(model, images, dtype, "cpu"),
        f"Keras {keras.__version__} on TensorFlow": lambda images, dtype: ports.record_keras(
            keras_model, network.name, images, dtype, "cpu"
        ),
    }


def main() -> None:
    """The command line; exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 101, 152, 200])
    warnings.filterwarnings("ignore")
    print("| network | port | size | end points | float64: worst rel_l2 | float32: worst ratio | verdict |")
    print("|---|---|---|---|---|---|---|")
    all_equal = True
    for depth in parser.parse_args().depths:
        name = f"resnet_v2_{depth}"
        network = spec.ResNetV2(spec.RESNET_V2_BLOCKS[name], 1001)
        generator = np.random.default_rng(depth)
        weights = {n: random_value(n, shape, generator) for n, shape in network.variables().items()}
        recorders = ports_of(network, weights)
        with (
            tf_slim.SlimGraph(network, name, weights, "float64") as exact,
            tf_slim.SlimGraph(network, name, weights, "float32") as rounded,
        ):
            for size in SIZES:
                images = generator.uniform(-1, 1, (1, *size, 3)).astype(np.float32)
                truth = exact.run(images)
                for port, record in recorders.items():
                    rows64 = compare(record(images, "float64"), truth)
                    inputs = neighbours(images, ROUNDING_RUNS, depth)
                    rows32 = compare_float32(record(images, "float32"), truth, rounded.run, inputs)
                    equal = all(row.ok for row in rows64 + rows32)
                    all_equal &= equal
                    print(
                        f"| {name} | {port} | {size[0]}x{size[1]} | {len(rows64)} | {worst(rows64).rel_l2:.1e} "
                        f"| {max(row.ratio or 0 for row in rows32):.2f} | {'equal' if equal else 'DIFFERENT'} |",
                        flush=True,
                    )
    sys.exit(not all_equal)


def worst(rows: tuple[Row, ...]) -> Row:
    """The row that comes closest to its limit."""
    return max(rows, key=lambda row: row.badness)


if __name__ == "__main__":
    main()
