"""`.pth`: a plain state dict, for `model.load_state_dict(torch.load(FILE, weights_only=True))`."""

from __future__ import annotations

from pathlib import Path

from converters import frameworks
from converters.errors import first_line
from converters.models import state_dict
from converters.sources import Source
from converters.targets.atomic import atomic


def write(source: Source, path: Path) -> None:
    """Writes the state dict with `torch.save`."""
    torch = frameworks.import_torch()
    state = state_dict(source.stream())
    with atomic(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # What PyTorch's own writer makes of a full disk.
            raise OSError(f"torch.save: {first_line(error)}") from error
