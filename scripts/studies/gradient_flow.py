"""Measures how the gradient passes through every kind of residual unit, and how the networks start to train.

    python -m scripts.studies.gradient_flow --depth 110 --out gradient_flow [--bottleneck] [--steps 75] [--seeds 0 1 2]
    python -m scripts.studies.gradient_flow --out gradient_flow --redraw

For each of the branches and shortcuts of arXiv:1603.05027: the norm of dL/dx_l, x_l the input of unit l, for one batch
of scikit-learn's digits (8x8), at initialization and after a short training, and the loss of every step. All of
it is the median of the seeds. Writes gradient_flow.json and gradient_flow.png, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from converters import frameworks
from converters.errors import InputError
from converters.files import atomic
from scripts.studies.train_digits import digits
from slimport.networks.residual_units import cifar_resnet, units_per_stage

HELD_OUT = slice(1500, None)
DASHES = ((), (), (5, 1), (3, 1, 1, 1), (), (5, 1), (1, 1), (3, 1, 1, 1))
JSON_NAME, PNG_NAME = "gradient_flow.json", "gradient_flow.png"


@dataclass(frozen=True)
class Variant:
    """One kind of unit, with what the paper's tables 1 and 2 say of it in ResNet-110 on CIFAR-10."""

    label: str
    figure: str
    error: str
    branch: str = "original"
    shortcut: str = "identity"
    settings: dict[str, float] = field(default_factory=dict)


VARIANTS = {
    "original": Variant("original", "2(a), 4(a)", "6.61"),
    "bn_after_addition": Variant("BN after addition", "4(b)", "8.17", branch="bn_after_addition"),
    "relu_before_addition": Variant("ReLU before addition", "4(c)", "7.84", branch="relu_before_addition"),
    "relu_only_preactivation": Variant("ReLU-only preactivation", "4(d)", "6.71", branch="relu_only_preactivation"),
    "full_preactivation": Variant("full preactivation", "4(e)", "6.37", branch="full_preactivation"),
    "constant_scaling": Variant("constant scaling, 0.5 and 0.5", "2(b)", "12.35", shortcut="constant_scaling"),
    "plain": Variant(
        "no shortcut (plain)",
        "2(b)",
        "fail",
        shortcut="constant_scaling",
        settings={"shortcut_scale": 0, "residual_scale": 1},
    ),
    "exclusive_gating": Variant("exclusive gating, b_g = -6", "2(c)", "8.70", shortcut="exclusive_gating"),
    "shortcut_only_gating": Variant("shortcut-only gating, b_g = -6", "2(d)", "6.91", shortcut="shortcut_only_gating"),
    "shortcut_only_gating_at_0": Variant(
        "shortcut-only gating, b_g = 0", "2(d)", "12.86", shortcut="shortcut_only_gating", settings={"gate_bias": 0}
    ),
    "convolution": Variant("1x1 convolution", "2(e)", "12.22", shortcut="convolution"),
    "dropout": Variant("dropout, 0.5", "2(f)", "fail", shortcut="dropout"),
}


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share."""

    depth: int
    bottleneck: bool
    width: int
    steps: int
    batch: int
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 1e-4


def run(job: tuple[str, int], settings: Settings) -> dict[str, Any]:
    """One variant from one seed: gradients, a short training, gradients again. On one thread, so always the same."""
    import torch
    from torch.nn.functional import cross_entropy

    from slimport import pytorch
    from slimport.pytorch.training import initialize

    name, seed = job
    variant = VARIANTS[name]
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    described = cifar_resnet(
        settings.depth,
        variant.branch,
        variant.shortcut,
        bottleneck=settings.bottleneck,
        num_classes=10,
        in_channels=1,
        width=settings.width,
        **variant.settings,
    )
    # oneDNN's gradients of convolutions this narrow corrupt memory on some AMD processors (torch 2.13).
    torch.backends.mkldnn.enabled = False
    network = pytorch.build(described)
    initialize(network)
    all_images, all_classes = digits(side=8)
    images = torch.from_numpy(all_images[: HELD_OUT.start]).permute(0, 3, 1, 2).contiguous()
    classes = torch.from_numpy(all_classes[: HELD_OUT.start])
    # The batches are the seed's, the same for every variant.
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randperm(len(images), generator=generator)[: settings.batch] for _ in range(settings.steps + 1)]

    def gradient_norm() -> list[float]:
        logits, end_points = network.end_points(images[batches[0]])
        signals = [end_points[name] for name in described.signals[:-1]]
        gradients = torch.autograd.grad(cross_entropy(logits, classes[batches[0]]), signals)
        return [float(gradient.norm()) for gradient in gradients]

    at_initialization = gradient_norm()
    optimizer = torch.optim.SGD(
        network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    losses = []
    for batch in batches[1:]:
        loss = cross_entropy(network(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "seed": seed,
        "gradient_norm": at_initialization,
        "gradient_norm_trained": gradient_norm(),
        "loss": losses,
    }


def study(settings: Settings, seeds: list[int], workers: int) -> dict[str, Any]:
    """All variants from all seeds, as what gradient_flow.json holds."""
    import torch

    jobs = [(name, seed) for name in VARIANTS for seed in seeds]
    start = time.perf_counter()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for done, ((name, _), result) in enumerate(zip(jobs, results(jobs, settings, workers), strict=True), start=1):
        runs[name].append(result)
        seconds = time.perf_counter() - start
        print(f"{done}/{len(jobs)} {name}, seed {result['seed']}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return {
        **settings.__dict__,
        "seeds": seeds,
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - start),
        "variants": {name: summary(of_variant) for name, of_variant in runs.items()},
    }


def results(jobs: list[tuple[str, int]], settings: Settings, workers: int) -> Iterable[dict[str, Any]]:
    """The runs, in the order of the jobs."""
    if workers == 1:
        yield from (run(job, settings) for job in jobs)
        return
    # A process that torch has started threads in cannot be forked safely.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(partial(run, settings=settings), jobs)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median over the seeds, number by number, and the runs that it is of."""
    names = [name for name in runs[0] if name != "seed"]
    return {
        **{name: numbers(np.median([one[name] for one in runs], axis=0)) for name in names},
        "runs": [{"seed": one["seed"], **{name: numbers(one[name]) for name in names}} for one in runs],
    }


def numbers(values: Iterable[float]) -> list[float | None]:
    """Six digits of each; None for what is not finite, which JSON cannot hold."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def table(found: dict[str, Any]) -> str:
    """Markdown: the gradient's norm at the first and last unit, its growth between them, and the loss."""
    lines = [
        "| variant | Fig. | norm at unit 1 | at the last | 1 / last, by seed | trained: unit 1 | the last "
        "| 1 / last, by seed | loss, first 5 steps | last 5 | paper's error (%) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in found["variants"].items():
        variant = VARIANTS[name]
        cells = [variant.label, variant.figure]
        for key in ("gradient_norm", "gradient_norm_trained"):
            ratios = [ratio(one[key][0], one[key][-1]) for one in result["runs"]]
            low, high = text(min(ratios)), text(max(ratios))
            cells += [text(result[key][0]), text(result[key][-1]), low if low == high else f"{low} to {high}"]
        cells += [text(mean(result["loss"][:5])), text(mean(result["loss"][-5:])), variant.error]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(a: float | None, b: float | None) -> float:
    """a / b; not a number where either was not finite or b is 0."""
    return math.nan if a is None or not b else a / b


def mean(values: list[float | None]) -> float:
    """The mean; not a number where any value was not finite."""
    return float(np.mean([math.nan if value is None else value for value in values]))


def text(value: float | None) -> str:
    """Two or three digits that a person reads."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:.2g}" if value < 100 else f"{value:.1e}" if value >= 1e4 else f"{value:.0f}"


def draw(found: dict[str, Any], path: Path) -> None:
    """Two rows, branches and shortcuts; two columns, before and after training; one line per variant."""
    # Matplotlib comes with it.
    from PIL import Image

    figure = frameworks.require("matplotlib.figure").Figure(figsize=(10.5, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    rows = (
        ("branches (identity shortcut)", [n for n, v in VARIANTS.items() if v.shortcut == "identity"]),
        ("shortcuts (original branch)", [n for n, v in VARIANTS.items() if v.branch == "original"]),
    )
    columns = (("gradient_norm", "at initialization"), ("gradient_norm_trained", f"after {found['steps']} steps"))
    for (kind, names), row in zip(rows, axes, strict=True):
        for (key, when), axis in zip(columns, row, strict=True):
            for number, name in enumerate(names):
                norms = [math.nan if norm is None else norm for norm in found["variants"][name][key]]
                units = range(1, len(norms) + 1)
                # Dashes too, so that lines that run together can be told apart.
                style = (
                    {"color": "black"} if name == "original" else {"color": f"C{number - 1}", "dashes": DASHES[number]}
                )
                axis.plot(units, norms, label=VARIANTS[name].label.replace("b_g", "$b_g$"), linewidth=1.8, **style)
            axis.set_yscale("log")
            axis.set_title(f"{kind}, {when}", fontsize=11)
            axis.grid(alpha=0.3)
            for stage in (1, 2):
                axis.axvline(stage * len(norms) / 3 + 0.5, color="gray", linewidth=0.9, linestyle=":")
        row[0].set_ylabel(r"$\|\partial L/\partial x_l\|$")
        row[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False, handlelength=3)
    for axis in axes[-1]:
        axis.set_xlabel("unit $l$, from the image to the loss (dotted: stages)")
    kind = "bottlenecks" if found["bottleneck"] else "basic units"
    seeds = f"median of {len(found['seeds'])} seeds" if len(found["seeds"]) > 1 else f"seed {found['seeds'][0]}"
    figure.suptitle(
        f"Gradient at the input of every unit: depth {found['depth']}, {kind}, digits of 8x8 pixels, {seeds}"
    )
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
        with Image.open(temporary) as picture:
            # Lines and text need no more colours, and the file is less than half the size.
            reduced = picture.convert("RGB").quantize(256)
        reduced.save(temporary, optimize=True)


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def positive(argument: str) -> int:
    """An int of at least 1."""
    number = int(argument)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main() -> None:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=110, help="6n+2, or 9n+2 with --bottleneck")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if missing")
    parser.add_argument("--bottleneck", action="store_true")
    parser.add_argument("--width", type=positive, default=16, help="channels of the first stage")
    parser.add_argument("--steps", type=positive, default=75)
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.01, help="0.01 is the paper's for its first 400 steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--redraw", action="store_true", help="only draw and print what gradient_flow.json holds")
    arguments = parser.parse_args()
    try:
        frameworks.require("torch")
        frameworks.require("matplotlib.figure")
        found = read(arguments.out) if arguments.redraw else measure(arguments)
        draw(found, arguments.out / PNG_NAME)
    except InputError as error:
        parser.error(str(error))
    print(table(found))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the study and writes its JSON.

    Raises:
      InputError: no network has that depth, no batch that size, or the folder cannot be made or written to.
    """
    try:
        units_per_stage(arguments.depth, bottleneck=arguments.bottleneck)
    except ValueError as error:
        raise InputError(f"--depth: {error}") from error
    if arguments.batch > HELD_OUT.start:
        raise InputError(f"--batch: {arguments.batch} is more than the {HELD_OUT.start} images to train on")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {arguments.out}: cannot be made: {error.strerror}") from error
    settings = Settings(
        arguments.depth,
        arguments.bottleneck,
        arguments.width,
        arguments.steps,
        arguments.batch,
        arguments.learning_rate,
    )
    found = study(settings, arguments.seeds, arguments.workers)
    with atomic(arguments.out / JSON_NAME) as temporary:
        temporary.write_text(json.dumps(found, allow_nan=False))
    return found


def read(folder: Path) -> dict[str, Any]:
    """What an earlier run measured.

    Raises:
      InputError: there is no such file, or it is none of this script's.
    """
    path = folder / JSON_NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; run without --redraw first") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from error
    if not isinstance(found, dict) or set(found.get("variants", ())) != set(VARIANTS):
        raise InputError(f"{path}: does not have this script's variants; run without --redraw again")
    return found


if __name__ == "__main__":
    main()
