"""Proves the lower bounds in setup.cfg: installs exactly them, and tries every format with them.

    python -m scripts.studies.lower_bounds ENVIRONMENT [--newest] [--extra all] [--python python3.10]

ENVIRONMENT is a folder for the virtual environment, which is made anew. With `--newest`, the newest versions that pip
finds are installed instead. Then `scripts/smoke.py` runs in it; its exit code is this one's. Needs a network, and for
`all` about 8 GB of disk on Linux, most of it CUDA, which PyTorch's packages bring.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lower_bounds() -> list[str]:
    """Every requirement of the package and of its extras, of exactly the version that setup.cfg gives as the lowest."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = [text for extra, text in config["options.extras_require"].items() if extra not in ("test", "docs")]
    requirements = "\n".join([config["options"]["install_requires"], *extras])
    return sorted(set(re.findall(r"^[\w.-]+[>=]=[\w.]+$", requirements, re.MULTILINE)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("--extra", default="all")
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    python = arguments.environment.absolute() / "bin" / "python"
    subprocess.run([arguments.python, "-m", "venv", "--clear", arguments.environment], check=True)
    start = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        if not arguments.newest:
            constraints.write("".join(f"{bound.replace('>=', '==')}\n" for bound in lower_bounds()))
            constraints.flush()
        subprocess.run(
            [python, "-m", "pip", "install", "--constraint", constraints.name, f"{ROOT}[{arguments.extra}]"], check=True
        )
    size = sum(file.stat().st_size for file in arguments.environment.rglob("*") if file.is_file()) >> 20
    print(f"installed in {time.monotonic() - start:.0f} s, {size} MiB", flush=True)
    sys.exit(subprocess.run([python, "-m", "scripts.smoke"], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
