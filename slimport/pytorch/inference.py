"""A network as it runs fastest: BatchNorm folded into convolutions, memory format and compilation as measured.

For every family: what is folded is found by its layers alone.
"""

from __future__ import annotations

import copy
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from slimport.pytorch import layers, remembered
from slimport.pytorch.network import Part
from slimport.pytorch.operations import Shared

ROUNDS = 5
# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
Foldable = layers.Conv2d | layers.SeparableConv2d | layers.FullyConnected


def fold_batch_norm(model: nn.Module) -> Any:
    """A copy for inference with the BatchNorm of every normalized layer in its weights and bias.

    So is the constant factor of a residual (Inception-ResNet). Folded in float64, and each time rounded to the weights'
    dtype. A BatchNorm that follows an addition (ResNet v2's `preact`
    and `postnorm`) has no convolution to go into, and stays. The copy has the model's class, attributes and end points;
    it is in eval mode, and its parameters need no gradient.

    Args:
      model: a network of `slimport.pytorch`, or a module that holds some; it is left as it is.
    """
    folded = copy.deepcopy(model).eval()
    # What runs in several places is not followed by the same in all of them.
    shared = {owner for module in folded.modules() if isinstance(module, Shared) for owner in module.owners}
    for module in folded.modules():
        if isinstance(module, Foldable) and module not in shared:
            for name in [name for name in module._modules if name not in module.hosted][:1]:
                _fold(module, module, name)
        elif isinstance(module, Part):
            for layer, above, name in _pairs(module):
                if isinstance(layer, Foldable) and layer not in shared and not _followers(layer):
                    _fold(layer, above, name)
    return folded.requires_grad_(False)


def _pairs(part: Part) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Each layer whose value the next one alone takes, the module above the next one, and its name there."""
    for (path, _, gives, _, end_points, _), (next_path, takes, _, frees, _, _) in pairwise(part._steps):
        if gives == takes == frees and not end_points:
            yield part.get_submodule(".".join(path)), part.get_submodule(".".join(next_path[:-1])), next_path[-1]


def _followers(layer: nn.Module) -> list[nn.Module]:
    return [child for child in layer.children() if not isinstance(child, nn.Identity)]


def _fold(layer: Foldable, above: nn.Module, name: str) -> None:
    """Puts the module `name` of `above`, which follows the layer, into it, where it is a BatchNorm or a factor."""
    follower = above.get_submodule(name)
    is_norm = isinstance(follower, layers.BatchNorm) and follower.statistics == "moving"
    is_factor = isinstance(follower, layers.Scale) and not follower.node.attributes["offset"]
    if not is_norm and not is_factor:
        return
    kernel = "weight" if getattr(layer, "pointwise_weight", None) is None else "pointwise_weight"
    weight, dtype = layer.get_parameter(kernel).double(), layer.weight.dtype
    bias = None if layer.bias is None else layer.bias.double()
    if isinstance(follower, layers.BatchNorm):
        exact = copy.deepcopy(follower).double()
        mean, variance = exact.get_buffer("running_mean"), exact.get_buffer("running_var")
        weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, exact.eps, exact.weight, exact.bias)
    elif isinstance(follower, layers.Scale):
        weight = weight * follower.node.attributes["factor"]
        bias = None if bias is None else bias * follower.node.attributes["factor"]
    setattr(layer, kernel, nn.Parameter(weight.to(dtype)))
    layer.bias = None if bias is None else nn.Parameter(bias.to(dtype))
    above.add_module(name, nn.Sequential(*after) if (after := _followers(follower)) else nn.Identity())


@dataclass(frozen=True)
class Trial:
    """One form of a network, tried on the example images.

    seconds: the median of its runs; None where it is not usable.
    rel_l2: ||output - expected|| / ||expected||, against the model as it was given.
    problem: why it is not usable, in one line.
    """

    name: str
    seconds: float | None = None
    rel_l2: float | None = None
    problem: str | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.name}: not usable: {self.problem}"
        return f"{self.name}: {self.seconds * 1e3:.1f} ms, rel_l2 {self.rel_l2:.1e}"


class Optimized(nn.Module):
    """The result of `optimize_for_inference`: images [batch, channels, height, width] to the model's output.

    trials: every form that was tried; the first is the model as it was given.
    choice: the name of the form that runs, the fastest.
    """

    def __init__(self, form: _Form, trials: tuple[Trial, ...], example_shape: torch.Size) -> None:
        super().__init__()
        self._form = form
        self._example_shape = example_shape
        self.trials = trials
        self.choice = form.name

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by form, of those that are usable, the fastest first."""
        seconds = {trial.name: trial.seconds for trial in self.trials if trial.seconds is not None}
        return dict(sorted(seconds.items(), key=lambda pair: pair[1]))

    def forward(self, images: Tensor) -> Tensor:
        """The model's output, without a gradient, for images of any batch and size.

        Where the choice is a compiled form, the first images of another shape are compiled for, which takes seconds.
        """
        return self._form(images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._example_shape))
        lines = [f"  {trial}{' <- runs' if trial.name == self.choice else ''}" for trial in self.trials]
        return "\n".join([f"Optimized(measured on images of {shape}", *lines, ")"])


def optimize_for_inference(
    model: nn.Module,
    example_images: Tensor | None = None,
    *,
    remember: bool = True,
    keep_memory: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Optimized:
    """The fastest form of a model on this machine for images like the example: measured here, not assumed.

    Tried are the model as it is, and the model with its BatchNorm folded, in both memory formats, as it is and compiled
    with its weights frozen (TorchInductor, which needs a C++ compiler on the CPU), and on the CPU compiled for one
    image, for a batch image by image. A form that cannot be made here, or whose output is not the model's, is not used;
    `trials` of the result says so. Runs take turns, so that a busy moment of the machine does not decide, and each turn
    is two runs, of which the second counts: the first begins with another form's memory.

    Args:
      model: a network of `slimport.pytorch`, or a module that holds some; it is left as it is, and is run in eval mode.
      example_images: [batch, channels, height, width], of the dtype and on the device of the model; None is one image
        of the network's default size.
      remember: whether the choice for a model of this structure, on such images, on this machine, is remembered
        (`slimport.pytorch.remembered`); then only the remembered form is made, and its output is checked.
      keep_memory: whether the process keeps memory that it frees, all of it and from now on, on Linux with glibc and
        where the images are on the CPU. Else each run gets the pages of its large maps from the system anew, which can
        take longer than to compute them.
      progress: called with what is being done; None writes it to a terminal.

    Raises:
      ValueError: no example, and the model does not say what it takes.
    """
    images = _example(model) if example_images is None else example_images.detach()
    kept = keep_memory and not images.is_cuda and _keep_freed_memory()
    progress = _to_terminal if progress is None else progress
    forms = _forms(model, images)
    of = remembered.key(model, images, kept) if remember else ""
    known = tuple(_trials(remembered.read(of)) if remember else ())
    # Another version may have tried others.
    if known and [trial.name for trial in known] == [form.name for form in forms]:
        chosen = min((trial for trial in known if trial.seconds is not None), key=lambda trial: trial.seconds or 0)
        progress(f"making the form that was fastest before: {chosen.name}")
        if optimized := _remembered(forms, chosen, known, images):
            return optimized
    trials = _try(forms, images, progress)
    if remember:
        remembered.write(of, [asdict(trial) for trial in trials])
    usable = {trial.name: trial.seconds for trial in trials if trial.seconds is not None}
    fastest = min(usable, key=lambda name: usable[name])
    return Optimized(next(form for form in forms if form.name == fastest), trials, images.shape)


def _keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, whatever its size; False where there is none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    # Older versions take no threshold as high; none of their own pages for anything is as good.
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and (mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_MAX, 0)))


def _forms(model: nn.Module, images: Tensor) -> list[_Form]:
    given = copy.deepcopy(model).eval()
    folded = fold_batch_norm(model)
    channels_last = copy.deepcopy(folded).to(memory_format=torch.channels_last)
    forms = [
        _Form("as given", given, torch.contiguous_format),
        _Form("folded", folded, torch.contiguous_format),
        _Form("folded, channels_last", channels_last, torch.channels_last),
        _Form("folded, compiled", folded, torch.contiguous_format, compiled=True),
        _Form("folded, channels_last, compiled", channels_last, torch.channels_last, compiled=True),
    ]
    if len(images) > 1 and not images.is_cuda:
        # The maps of one image stay in a processor's caches, where those of a batch do not.
        name = "folded, channels_last, compiled, image by image"
        forms.append(_Form(name, channels_last, torch.channels_last, compiled=True, by_image=True))
    return forms


def _try(forms: list[_Form], images: Tensor, progress: Callable[[str], None]) -> tuple[Trial, ...]:
    """Makes, checks and times each form."""
    expected = forms[0](images)
    errors: dict[str, float] = {}
    problems: dict[str, str] = {}
    for number, form in enumerate(forms, start=1):
        progress(f"trying {form.name} ({number} of {len(forms)})")
        try:
            errors[form.name] = _rel_l2(form(images), expected)
        except Exception as error:
            # Whatever it is that the compiler lacks here, the other forms run.
            problems[form.name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
            continue
        if not errors[form.name] <= _limit(expected):
            problems[form.name] = f"its output differs from the model's by rel_l2 {errors[form.name]:.1e}"
    usable = [form for form in forms if form.name not in problems]
    progress("measuring")
    seconds = _measure(usable, images)
    return tuple(Trial(f.name, seconds.get(f.name), errors.get(f.name), problems.get(f.name)) for f in forms)


def _remembered(forms: list[_Form], chosen: Trial, known: tuple[Trial, ...], images: Tensor) -> Optimized | None:
    """The form that was fastest before; None where its output is not the model's here."""
    form = next((form for form in forms if form.name == chosen.name), None)
    if form is None:
        return None
    try:
        expected = forms[0](images)
        usable = _rel_l2(form(images), expected) <= _limit(expected)
    except Exception:
        # Whatever it is that the compiler lacks now, all forms are tried.
        return None
    return Optimized(form, known, images.shape) if usable else None


def _trials(written: list[dict[str, Any]]) -> Iterator[Trial]:
    """The trials in a file; none where it has others than it should."""
    try:
        found = [Trial(**one) for one in written]
    except TypeError:
        return
    if any(isinstance(trial.seconds, float) for trial in found):
        yield from found


def _to_terminal(what: str) -> None:
    if sys.stderr.isatty():
        print(f"optimize_for_inference: {what}", file=sys.stderr, flush=True)


class _Form:
    """A model and how it is run. A compiled one is compiled for each new shape of images, with its weights frozen."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        memory_format: torch.memory_format,
        compiled: bool = False,
        by_image: bool = False,
    ) -> None:
        self.name = name
        self._memory_format = memory_format
        self._by_image = by_image
        self._run: Callable[[Tensor], Tensor] = torch.compile(model) if compiled else model
        self._compiled_for: set[tuple[Any, ...]] | None = set() if compiled else None

    def __call__(self, images: Tensor) -> Tensor:
        if self._by_image:
            return torch.cat([self._output(image) for image in images.chunk(len(images))])
        return self._output(images)

    def _output(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self._memory_format)
        with torch.no_grad():
            if self._compiled_for is None:
                return self._run(images)
            kind = (images.shape, images.dtype, images.device, torch.is_inference_mode_enabled())
            if kind in self._compiled_for:
                return self._run(images)
            # Only while it compiles: other models of the process are compiled as their owners want.
            with torch._inductor.config.patch(freezing=True):
                output = self._run(images)
            self._compiled_for.add(kind)
            return output


def _measure(forms: list[_Form], images: Tensor) -> dict[str, float]:
    """The median seconds of each form; they take turns, of two runs each."""

    def synchronize() -> None:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    seconds: dict[str, list[float]] = {form.name: [] for form in forms}
    for _ in range(ROUNDS):
        for form in forms:
            form(images)
            synchronize()
            start = time.perf_counter()
            form(images)
            synchronize()
            seconds[form.name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _example(model: nn.Module) -> Tensor:
    network, parameter = getattr(model, "network", None), next(model.parameters(), None)
    if network is None or parameter is None:
        raise ValueError("optimize_for_inference needs example_images: the model does not say what images it takes")
    side = network.default_image_size
    images = torch.rand((1, network.in_channels, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return images.to(parameter)


def _rel_l2(output: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.vector_norm(output.double() - expected.double())
    return float(difference / torch.linalg.vector_norm(expected.double()))


def _limit(expected: Tensor) -> float:
    """Far above what another order of summation does in hundreds of layers, far below what a mistake does."""
    epsilon = torch.finfo(expected.dtype).eps
    if expected.is_cuda and expected.dtype == torch.float32:
        # cuDNN's convolutions may use TF32, which has 10 bits.
        epsilon = 2.0**-10
    return float(epsilon**0.5)
