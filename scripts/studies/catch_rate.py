"""Runs what is wrong through `slimport verify`: the ports of wrong_ports.py and the files of wrong_files.py.

    python -m scripts.studies.catch_rate [--network resnet_v2_50] [--size 64] [--odd-size 65]

Prints two Markdown tables, with --only one of them. For each port: the first end point that differs, in float64 and in
float32, and how far it is off in float64. Exits with 1 if one is not caught, or begins elsewhere than where it must.
Weights are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import models
from converters.parity import ports
from converters.parity.compare import Row
from converters.parity.reference import Reference
from scripts.make_checkpoint import random_value
from scripts.studies.wrong_files import MODULE, WRONG_FILES, Files
from scripts.studies.wrong_ports import WRONG_PORTS, WrongPort
from slimport import networks

DTYPES = ("float64", "float32")


def first_different(model: Any, reference: Reference, dtype: str) -> Row | None:
    """The first row that `verify` would call a difference."""
    rows = reference.compare(ports.record_pytorch(model, reference.images, dtype, "cpu"), dtype)
    return next((row for row in rows if not row.ok), None)


def at(row: Row | None, scope: str) -> str:
    """Where a difference begins, without the model's scope."""
    return f"`{row.name.removeprefix(f'{scope}/')}`" if row else "equal"


def check(wrong: WrongPort, network: networks.ResNetV2, references: list[Reference]) -> bool:
    """Prints a port's line; whether it is caught where it must be, and only there."""
    even, odd = references
    begins = wrong.first_end_point(network, even.weights, network.name)
    expected = {"float64": begins, "float32": begins if wrong.float32 else None}
    found = {dtype: first_different(wrong.build(network, even.weights, network.name), even, dtype) for dtype in DTYPES}
    on_odd = first_different(wrong.build(network, odd.weights, network.name), odd, "float64")
    right = {dtype: row and row.name for dtype, row in found.items()} == expected
    right &= (on_odd and on_odd.name) == (begins if wrong.odd else None)
    error = f"{found['float64'].rel_l2:.1e}" if found["float64"] else ""
    where = " | ".join(at(row, network.name) for row in (*found.values(), on_odd))
    print(f"| {wrong.name} | {wrong.how} | {where} | {error} |{'' if right else ' NOT AS IT MUST BE'}", flush=True)
    return right


def check_ports(network: networks.ResNetV2, sides: tuple[int, int]) -> list[bool]:
    """Prints the table of the wrong ports; whether each is as it must be, and the right port too.

    Args:
      network: with random weights.
      sides: of images of which every map has even sides, and of which every map has odd sides.
    """
    generator = np.random.default_rng(0)
    weights = {name: random_value(name, shape, generator) for name, shape in network.variables().items()}
    print(f"| what is wrong | how people get there | float64, {sides[0]} | float32, {sides[0]} ", end="")
    print(f"| float64, {sides[1]} | rel_l2 there |")
    print("|---|---|---|---|---|---|")
    right = []
    # Ports that show under the same arguments share TF-Slim's runs.
    for arguments in {str(wrong.arguments): wrong.arguments for wrong in WRONG_PORTS}.values():
        references = [
            Reference(
                network,
                network.name,
                weights,
                generator.uniform(-1, 1, (1, side, side, 3)).astype(np.float32),
                **arguments,
            )
            for side in sides
        ]
        model = models.pytorch_port(network, weights.items(), scope=network.name, **arguments)
        controls = [first_different(model, references[0], dtype) for dtype in DTYPES]
        controls.append(first_different(model, references[1], "float64"))
        where = " | ".join(at(row, network.name) for row in controls)
        print(f"| nothing: the port as it is | {_text(arguments)} | {where} | |", flush=True)
        right.append(not any(controls))
        right += [check(wrong, network, references) for wrong in WRONG_PORTS if wrong.arguments == arguments]
    return right


def check_files(network: networks.Network, side: int) -> list[bool]:
    """Prints the table of the wrong files; whether each is as it must be, and the right files too."""
    print("| file | what is wrong | verify |")
    print("|---|---|---|")
    right = []
    with tempfile.TemporaryDirectory() as folder:
        files = Files(network, Path(folder), (side, side))
        for file in dict.fromkeys(wrong.file for wrong in WRONG_FILES):
            found, _ = files.verify(file)
            right.append(found == "equal")
            shown = file if file == MODULE else f"`{file}`"
            print(f"| {shown} | nothing | {found} |", flush=True)
            for wrong in (wrong for wrong in WRONG_FILES if wrong.file == file):
                found, why = files.verify(file, wrong.change)
                right.append(found == wrong.caught and wrong.words in why)
                end = "" if right[-1] else " NOT AS IT MUST BE"
                print(f"| {shown} | {wrong.name} | {found}: ...{wrong.words}... |{end}", flush=True)
    return right


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(networks.ResNetV2.named()), default="resnet_v2_50")
    parser.add_argument("--size", type=int, default=64, help="of images of which every map has even sides")
    parser.add_argument("--odd-size", type=int, default=65, help="of images of which every map has odd sides")
    parser.add_argument("--only", choices=("ports", "files"))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    network = networks.ResNetV2.named()[chosen.network]
    right = []
    if chosen.only != "files":
        right += check_ports(network, (chosen.size, chosen.odd_size))
        print()
    if chosen.only != "ports":
        right += check_files(network, chosen.size)
    print(f"\n{sum(right)} of {len(right)} as they must be", file=sys.stderr)
    sys.exit(not all(right))


def _text(arguments: Any) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in arguments.items()) or "control"


if __name__ == "__main__":
    main()
