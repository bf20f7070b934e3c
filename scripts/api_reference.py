"""The reference of the Python interface, from the docstrings.

    python -m scripts.api_reference FOLDER

`bash scripts/docs.sh` installs what this needs (pdoc, and the frameworks, since the modules are imported).
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

MODULES = (
    "converters",
    "converters.batch",
    "converters.checkpoint",
    "slimport",
    "slimport.graph",
    "slimport.keras",
    "slimport.labels",
    "slimport.nets",
    "slimport.networks",
    "slimport.preprocessing",
    "slimport.pytorch",
    "slimport.pytorch.preprocessing",
    "slimport.pytorch.training",
)


def modules() -> list[ModuleType]:
    """The modules, with the names that they import only on demand."""
    found = [import_module(name) for name in MODULES]
    for module in found:
        for name in getattr(module, "__all__", ()):
            vars(module)[name] = getattr(module, name)
    return found


def main() -> None:
    """The command line."""
    from pdoc import pdoc, render

    modules()
    folder = Path(sys.argv[1])
    render.configure(docformat="google", show_source=False)
    # pdoc adds the modules inside slimport; those inside converters are its own affair.
    pdoc(*(name for name in MODULES if not name.startswith("slimport.")), output_directory=folder)
    print(folder / "index.html")


if __name__ == "__main__":
    main()
