"""`.pth`: a plain state dict, for `model.load_state_dict(torch.load(FILE, weights_only=True))`."""

from __future__ import annotations

from pathlib import Path

from converters import frameworks
from converters.models import state_dict
from converters.sources import Source
from converters.targets.atomic import atomic


def write(source: Source, path: Path) -> None:
    """Writes the state dict with `torch.save`."""
    torch = frameworks.import_torch()
    with atomic(path) as temporary:
        torch.save(state_dict(source), temporary)
