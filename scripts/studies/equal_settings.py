"""Runs `slimport verify` on settings that must be equal: small networks, their arguments, sizes, targets, both dtypes.

    python -m scripts.studies.equal_settings [--only NAME] [--every N]

Prints a Markdown table: for each network and target, how many settings are equal, and the largest error as a part of
its limit. Exits with 1 if one is not equal, or is refused. Weights are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters import InputError, convert, trace, verify
from converters.parity import Report
from scripts.make_checkpoint import save_without_tensorflow
from scripts.studies.small_networks import SMALL_NETWORKS
from slimport.map_sides import map_sides
from slimport.networks import Network

MODELS = ("pytorch", "keras")
FILES = (".safetensors", ".pth", ".keras", ".weights.h5", ".onnx", ".pt2", "/", ".ckpt")
_DENSE = {"global_pool": False, "spatial_squeeze": False}


@dataclass(frozen=True)
class Setting:
    """A network, and how it runs; None is the default size."""

    network: Network
    arguments: dict[str, Any]
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.arguments.items()]
        size = [] if self.size is None else [f"{self.size[0]}x{self.size[1]}"]
        return ", ".join([f"{self.network.num_classes or 'no'} classes", *given, *size])


def settings(network: Network) -> Iterator[Setting]:
    """The settings of a network, as it is first."""
    yield Setting(network, {})
    without = network.without_auxiliary()
    for arguments in arguments_of(network):
        # An auxiliary head is made for maps of one size, and aligned ones have another.
        base = without if "align_feature_maps" in arguments else network
        if is_possible(base, arguments):
            yield Setting(base, arguments)
    if network.family in ("resnet_v1", "resnet_v2"):
        yield Setting(replace(network, include_root_block=False), {})  # type: ignore[type-var]
    if without != network:
        yield Setting(without, {})
    if without.num_classes:
        yield Setting(without.with_classes(None), {})
    if network.family != "deeplab":
        yield Setting(replace(without, in_channels=2), {})  # type: ignore[type-var]
    if "global_pool" in network.arguments:
        # Every map has even sides, and every map has odd ones.
        for side in (64, 65):
            given = {"global_pool": True} if network.arguments["global_pool"] is False else {}
            if is_large_enough(without, given, side):
                yield Setting(without, given, (side, side))


def arguments_of(network: Network) -> Iterator[dict[str, Any]]:
    """Arguments of a network that are not its defaults."""
    taken = network.arguments
    if taken.get("spatial_squeeze"):
        yield {"spatial_squeeze": False}
    if "global_pool" in taken:
        pooled = not taken["global_pool"]
        yield {"global_pool": True} if pooled else {name: False for name in _DENSE if name in taken}
    if "output_stride" in taken:
        for stride in (4, 8, 16):
            yield {"output_stride": stride, **{name: False for name in _DENSE if name in taken}}
    others = set(taken) - {*_DENSE, "output_stride"}
    for name in sorted(others):
        if isinstance(taken[name], bool):
            yield {name: not taken[name]}


def is_possible(network: Network, arguments: dict[str, Any]) -> bool:
    """Whether the network takes these arguments: not every output stride is one of its strides."""
    try:
        network.graph(**arguments)
    except ValueError:
        return False
    return True


def is_large_enough(network: Network, arguments: dict[str, Any], side: int) -> bool:
    """Whether every map of images of a side, smaller than slim's, has pixels; fully connected layers ask for slim's."""
    sides = map_sides(network.graph(**arguments), (side, side))
    small = network.family in ("vgg", "alexnet", "overfeat") or network.default_image_size <= side
    return not small and all(found is None or min(found) > 0 for found in sides)


def report_of(setting: Setting, target: str, source: Path, reference: Path) -> Report:
    """The report of `verify` on one target.

    Raises:
      InputError: it is refused.
    """
    if target in MODELS:
        return verify(source, target=target, reference=reference, **setting.arguments)
    path = source.with_name("converted") if target == "/" else source.with_name(f"converted{target}")
    convert(source, path, to="huggingface" if target == "/" else None)
    return verify(source, path, reference=reference)


def targets(setting: Setting) -> tuple[str, ...]:
    """What is verified: files too, where the network runs as it is."""
    graph = setting.network.graph(**setting.arguments)
    if setting.size and any(node.attributes.get("clipped") for node in graph.nodes):
        # Keras does not shrink a pooling's kernel where the size is not known as the model is built.
        return ("pytorch",)
    # A program has no auxiliary head, and its end points are fewer.
    plain = setting.network.without_auxiliary() == setting.network
    files = FILES if plain else tuple(file for file in FILES if file not in (".onnx", ".pt2"))
    as_it_is = setting.network in SMALL_NETWORKS.values() and not setting.arguments and setting.size is None
    return (*MODELS, *files) if as_it_is else MODELS


def run(setting: Setting) -> Iterator[tuple[str, Report | str]]:
    """Yields each target with its report, or with why it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        source, reference = Path(folder) / "source.ckpt", Path(folder) / "trace.npz"
        save_without_tensorflow(setting.network, source)
        # A Keras model of DeepLab takes images of one size.
        side = setting.network.default_image_size if setting.network.family == "deeplab" else None
        trace(source, reference, size=setting.size or side, **setting.arguments)
        for target in targets(setting):
            try:
                yield target, report_of(setting, target, source, reference)
            except InputError as error:
                yield target, str(error).replace(f"{folder}/", "")


def worst_of(report: Report) -> float:
    """The largest error as a part of its limit."""
    return max(row.fraction_of_limit for each in report.by_dtype.values() for row in (*each.rows, *each.returned))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SMALL_NETWORKS))
    parser.add_argument("--every", type=int, default=1, help="of the settings of a network, take each N-th")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    total = equal = 0
    print("| network | settings | equal | largest error over its limit |")
    print("|---|---|---|---|")
    for name in [chosen.only] if chosen.only else SMALL_NETWORKS:
        fractions: dict[str, float] = defaultdict(float)
        there = passed = 0
        for setting in list(settings(SMALL_NETWORKS[name]))[:: chosen.every]:
            for target, found in run(setting):
                there += 1
                if isinstance(found, str) or not found.ok:
                    why = found if isinstance(found, str) else f"differs at {found.first_difference}"
                    print(f"{name}, {target}, {setting}: {why}", file=sys.stderr, flush=True)
                else:
                    passed += 1
                if not isinstance(found, str):
                    fractions[target] = max(fractions[target], worst_of(found))
        worst = max(fractions, key=lambda target: fractions[target])
        print(f"| {name} | {there} | {passed} | {fractions[worst]:.2f}, {worst} |", flush=True)
        total, equal = total + there, equal + passed
    print(f"\n{equal} of {total} settings are equal")
    sys.exit(equal < total)


if __name__ == "__main__":
    main()
