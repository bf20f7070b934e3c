"""What setup.cfg cannot say: README.md as a package index shows it, where links to the files beside it lead nowhere."""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def description(readme: str, url: str | None) -> str:
    """The README with links into the repository at `url`; without one, without links, and without the figure."""
    if url:
        figures = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{url}/raw/HEAD/", readme)
        return re.sub(r"(\]\()(?!https?:|#)", rf"\1{url}/blob/HEAD/", figures)
    text = re.sub(r"[^\n]*\n\n!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", readme)
    return re.sub(r"\[([^]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


if __name__ == "__main__":
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    setup(
        long_description=description((ROOT / "README.md").read_text(encoding="utf-8"), metadata["metadata"].get("url"))
    )
