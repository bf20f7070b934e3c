"""The names of classes: ImageNet's, in slim's order, or those of a file.

`imagenet_labels.tsv` is WordNet's: the ids of ILSVRC 2012's 1000 synsets, sorted, which is the order of slim's classes
1 to 1000 and of torchvision's 0 to 999, and their words. It was put together from the lists that timm ships (timm
1.0.31, Apache-2.0, `timm/data/_info/imagenet_synsets.txt` and `imagenet_synset_to_lemma.txt`).
"""

from __future__ import annotations

import re
from importlib import resources
from os import PathLike
from pathlib import Path

BACKGROUND = "background"
_NUMBERED = re.compile(r"(\d+)\s*:\s*(.*)")


def imagenet_synsets() -> dict[str, str]:
    """The words of each of ImageNet's 1000 classes by its WordNet id (`n01440764`), in their order."""
    text = resources.files("slimport").joinpath("imagenet_labels.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())


def imagenet_labels(num_classes: int) -> list[str] | None:
    """ImageNet's names for a network of 1001 classes, with the background at 0, or of 1000; None for other numbers."""
    labels = list(imagenet_synsets().values())
    return {len(labels): labels, len(labels) + 1: [BACKGROUND, *labels]}.get(num_classes)


def read_labels(path: str | PathLike[str]) -> list[str]:
    """The names in a file: one a line, or `number:name` a line, as the `labels.txt` that slim's datasets write.

    Raises:
      ValueError: the numbers are not 0, 1, 2 and so on, in any order.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line.strip()))]
    if len(numbered) < len(lines) or not lines:
        return [line.strip() for line in lines]
    names = {int(match[1]): match[2] for match in numbered}
    if sorted(names) != list(range(len(lines))):
        raise ValueError(f"its {len(lines)} lines are numbered, but not from 0 to {len(lines) - 1}")
    return [names[number] for number in range(len(names))]
