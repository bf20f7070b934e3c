"""Trains the PyTorch port and the TF-Slim graph side by side, three steps in float64, and prints a Markdown table.

    python -m scripts.studies.training_parity [--network resnet_v2_50] [--size 64x48] [--batch 4]

Three ways to train: from images to classes, densely with an output stride of 16, and with frozen BatchNorm, as one
fine-tunes. Exits with 1 if anything differs by more than 1e-10. Weights, images and labels are random.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

from scripts.make_checkpoint import random_variables
from scripts.studies.training_steps import LIMIT, Hyperparameters, compare_steps, random_batches, run_both
from slimport import networks

WAYS: dict[str, dict[str, Any]] = {
    "training": {},
    "dense": {"output_stride": 16, "global_pool": False, "spatial_squeeze": False},
    "frozen BatchNorm": {"is_training": False},
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(networks.ResNetV2.named()), default="resnet_v2_50")
    parser.add_argument("--size", default="64x48", help="HxW of the images")
    parser.add_argument("--batch", type=int, default=4)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    network = networks.ResNetV2.named()[chosen.network]
    height, width = map(int, chosen.size.split("x"))
    weights = random_variables(network)
    print("| | quantity | arrays | worst difference | where, step | 0 in exact arithmetic |")
    print("|---|---|---|---|---|---|")
    ok = True
    for way, arguments in WAYS.items():
        batches = random_batches(network, (height, width), chosen.batch, output_stride=arguments.get("output_stride"))
        for found in compare_steps(run_both(network, weights, batches, Hyperparameters(), **arguments)):
            ok &= found.ok
            quantity, name = found.quantity.replace("_", " "), found.name.removeprefix(f"{network.name}/")
            print(
                f"| {way} | {quantity} | {found.compared} | {found.worst:.1e} | `{name}`, {found.step} "
                f"| {len(found.zeros) or ''} |{'' if found.ok else ' DIFFERENT'}",
                flush=True,
            )
    print(f"\n{'all within' if ok else 'NOT within'} {LIMIT:.0e}", file=sys.stderr)
    sys.exit(not ok)


if __name__ == "__main__":
    main()
