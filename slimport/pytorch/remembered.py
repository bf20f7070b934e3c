"""The measurements of `optimize_for_inference`, remembered for the same model, images and machine.

In a JSON file in the folder `SLIMPORT_CACHE`, or in `slimport` in the user's caches. What cannot be read or written is
measured again: nothing depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimport.files import replacing


def path() -> Path:
    """The file."""
    folder = os.environ.get("SLIMPORT_CACHE")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(folder).expanduser() if folder else caches / "slimport") / "inference.json"


def key(model: nn.Module, images: Tensor, keeps_memory: bool) -> str:
    """A digest of everything but the weights that decides which form is the fastest."""
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else platform.processor()
    shapes = [(name, list(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()]
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    machine = device, platform.machine(), threads, capability, keeps_memory
    described = repr((type(model).__qualname__, repr(model), shapes, list(images.shape), machine, torch.__version__))
    return hashlib.sha256(described.encode()).hexdigest()


def read(of: str) -> list[dict[str, Any]]:
    """The trials of a key as they were written; empty where there are none."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))[of]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def write(of: str, trials: list[dict[str, Any]]) -> None:
    """Adds trials to the file, which is written whole or not at all."""
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError):
        known = {}
    try:
        with replacing(file) as temporary:
            temporary.write_text(json.dumps({**known, of: trials}), encoding="utf-8")
    except OSError:
        return
