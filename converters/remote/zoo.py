"""The checkpoints that TF-Slim's authors released for ImageNet, by name.

Facts from the table of `research/slim/README.md` in tensorflow/models. Its links are http://download.tensorflow.org/,
which is a bucket of Google Cloud Storage; the URLs here are the same bucket's, by https. No digests were published.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PREFIX = "zoo:"
"""May precede a name, which is then not a local file's."""

_BUCKET = "https://storage.googleapis.com/download.tensorflow.org/models/"


@dataclass(frozen=True)
class Release:
    """A released checkpoint.

    name: the archive's, without `.tar.gz`.
    network: its name.
    classes: 1001 with the background at 0, or 1000.
    image_size: side in pixels of the images that it was evaluated with.
    preprocessing: `inception` or `vgg`.
    parameters: elements of all its variables, moving statistics included; 4 bytes each.
    top_1, top_5: accuracy on ImageNet's validation set in percent, as released.
    """

    name: str
    network: str
    classes: int
    image_size: int
    preprocessing: str
    parameters: int
    top_1: float
    top_5: float

    @property
    def url(self) -> str:
        return f"{_BUCKET}{self.name}.tar.gz"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "url": self.url}


RELEASES = (
    Release("resnet_v1_50_2016_08_28", "resnet_v1_50", 1000, 224, "vgg", 25_610_152, 75.2, 92.2),
    Release("resnet_v1_101_2016_08_28", "resnet_v1_101", 1000, 224, "vgg", 44_654_504, 76.4, 92.9),
    Release("resnet_v1_152_2016_08_28", "resnet_v1_152", 1000, 224, "vgg", 60_344_232, 76.8, 93.2),
    Release("resnet_v2_50_2017_04_14", "resnet_v2_50", 1001, 299, "inception", 25_615_849, 75.6, 92.8),
    Release("resnet_v2_101_2017_04_14", "resnet_v2_101", 1001, 299, "inception", 44_677_609, 77.0, 93.7),
    Release("resnet_v2_152_2017_04_14", "resnet_v2_152", 1001, 299, "inception", 60_382_697, 77.8, 94.1),
    Release("inception_v3_2016_08_28", "inception_v3", 1001, 299, "inception", 27_182_194, 78.0, 93.9),
    Release("vgg_16_2016_08_28", "vgg_16", 1000, 224, "vgg", 138_357_544, 71.5, 89.8),
    Release("vgg_19_2016_08_28", "vgg_19", 1000, 224, "vgg", 143_667_240, 71.1, 89.8),
)


def find(name: str) -> Release | None:
    """The release with this name, or of the network with this name; `zoo:` may precede it."""
    name = name.removeprefix(PREFIX)
    return next((release for release in RELEASES if name in (release.name, release.network)), None)
