"""A network from its description or from a converted file that carries one, and out to such a file again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from slimport import functions, networks
from slimport.files import replacing
from slimport.pytorch.network import Network


def build(
    network: networks.Network, *, scope: str | None = None, dtype: torch.dtype | None = None, **arguments: Any
) -> Network:
    """The port of a network description. See `Network` for the arguments; `dtype` None is PyTorch's default."""
    model = Network(network, scope, **arguments)
    return model if dtype is None else model.to(dtype)


def load(path: str | os.PathLike[str], **arguments: Any) -> Network:
    """The model in a `.safetensors` file that slimport wrote, in eval mode.

    Args:
      path: the file, or a folder of `slimport convert --to huggingface`. `converters.load_pytorch` takes any other
        checkpoint or converted file.
      arguments: of the definition, to run the same weights otherwise (`global_pool=False`, `output_stride=8`).

    Raises:
      ValueError: it is another file, or its metadata does not describe a network.
    """
    file_path = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    if file_path.suffix != ".safetensors" or not file_path.is_file():
        raise ValueError(
            f"{os.fspath(path)}: no .safetensors file that slimport wrote; converters.load_pytorch takes checkpoints, "
            f"other converted files, URLs and names of the zoo"
        )
    with safe_open(file_path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "slimport" not in metadata:
        raise ValueError(
            f"{file_path}: no 'slimport' entry in the metadata, so the network is not known; converters.load_pytorch "
            f"recognises it by the variables' names"
        )
    description = json.loads(metadata["slimport"])
    network = networks.from_json(description["network"])
    arguments = functions.without_classes(network, arguments, str(file_path), "model.reset_classifier")
    model = build(network, **{"scope": description["scope"], **description.get("arguments", {}), **arguments})
    state = load_file(file_path)
    model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a model as `slimport convert` writes `.safetensors`: `load` reads it, and `slimport convert` takes it on.

        slimport.pytorch.save(model, "tuned.safetensors")     # then: slimport convert tuned.safetensors tuned.ckpt

    The arguments that are not the defaults (`output_stride=8`, say) are kept too. The file appears whole or not at all.

    Args:
      model: a network of `slimport.pytorch`, on any device, or what wraps one: `torch.compile`, `DataParallel`,
        `DistributedDataParallel`, `torch.optim.swa_utils.AveragedModel`, whose averages are then saved.
      path: the file.

    Raises:
      ValueError: the name does not end in `.safetensors`, or the model is none of `slimport.pytorch`, or its parameters
        are not those of its network: folded ones, say, or a layer that was replaced.
    """
    model = _unwrapped(model)
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{os.fspath(path)}: the name must end in .safetensors, which is what is written")
    with torch.device("meta"):
        described = {name: tensor.shape for name, tensor in _state(build(model.network)).items()}
    state = _state(model)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    if different := [name for name in described | shapes if described.get(name) != shapes.get(name)]:
        raise ValueError(
            f"not what a {model.network.name} of {model.network.num_classes or 'no'} classes has: {different[0]}"
            f"{f' and {len(different) - 1} more' if len(different) > 1 else ''}; save its state_dict with torch.save"
        )
    defaults = model.network.arguments
    changed = {name: value for name, value in model.arguments.items() if value != defaults[name]}
    description = {"network": model.network.to_json(), "scope": model.scope, "arguments": changed}
    # Following a link, so that the link stays one.
    with replacing(Path(path).resolve()) as temporary:
        save_file(state, temporary, metadata={"format": "pt", "slimport": json.dumps(description)})


def _unwrapped(model: nn.Module) -> Network:
    """The network in a model, which may be wrapped several times."""
    inner: Any = model
    while not isinstance(inner, Network):
        # torch.compile's wrapper has the one, all others have the other.
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if inner is None:
            raise ValueError(f"a {type(model).__name__}, and no network of slimport.pytorch: torch.save saves it")
    return inner


def _state(model: Network) -> dict[str, torch.Tensor]:
    """The state dict without `num_batches_tracked`, which has no counterpart in slim."""
    state = model.state_dict()
    return {name: state[name].contiguous() for name in state if not name.endswith(".num_batches_tracked")}
