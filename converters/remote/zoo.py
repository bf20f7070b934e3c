"""The checkpoints that TF-Slim's authors released for ImageNet, by name.

Facts from the tables of `research/slim/README.md`, `nets/mobilenet_v1.md` and `nets/mobilenet/README.md` in
tensorflow/models. Their links to http://download.tensorflow.org/ are a bucket of Google Cloud Storage; the URLs here
are the same bucket's, by https. No digests were published.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PREFIX = "zoo:"
"""May precede a name, which is then not a local file's."""

_STORAGE = "https://storage.googleapis.com/"
_ARCHIVE = "download.tensorflow.org/models/{name}.tar.gz"


@dataclass(frozen=True)
class Release:
    """A released checkpoint.

    name: the archive's, without its suffix.
    network: its name.
    classes: 1001 with the background at 0, or 1000.
    image_size: side in pixels of the images that it was evaluated with.
    preprocessing: `inception` or `vgg`.
    parameters: elements of all its variables, moving statistics included; 4 bytes each.
    top_1, top_5: accuracy on ImageNet's validation set in percent, as released; None where it was not.
    path: of the archive in Google Cloud Storage.
    """

    name: str
    network: str
    classes: int
    image_size: int
    preprocessing: str
    parameters: int
    top_1: float
    top_5: float | None
    path: str = _ARCHIVE

    @property
    def url(self) -> str:
        return _STORAGE + self.path.format(name=self.name)

    def to_json(self) -> dict[str, Any]:
        described = asdict(self)
        del described["path"]
        return {**described, "url": self.url}


def _mobilenet(
    version: int, multiplier: str, size: int, network: str, parameters: int, top_1: float, top_5: float
) -> Release:
    name = f"mobilenet_v{version}_{multiplier}_{size}"
    folder = {1: "download.tensorflow.org/models/mobilenet_v1_2018_02_22", 2: "mobilenet_v2/checkpoints"}[version]
    return Release(name, network, 1001, size, "inception", parameters, top_1, top_5, f"{folder}/{{name}}.tgz")


def _mobilenet_v3(name: str, network: str, parameters: int, top_1: float) -> Release:
    return Release(
        name, network, 1001, 224, "inception", parameters, top_1, None, "mobilenet_v3/checkpoints/{name}.tgz"
    )


RELEASES = (
    Release("inception_v1_2016_08_28", "inception_v1", 1001, 224, "inception", 6_633_209, 69.8, 89.6),
    Release("inception_v2_2016_08_28", "inception_v2", 1001, 224, "inception", 11_199_137, 73.9, 91.8),
    Release("inception_v3_2016_08_28", "inception_v3", 1001, 299, "inception", 27_182_194, 78.0, 93.9),
    Release("inception_v4_2016_09_09", "inception_v4", 1001, 299, "inception", 46_074_066, 80.2, 95.2),
    Release("inception_resnet_v2_2016_08_30", "inception_resnet_v2", 1001, 299, "inception", 59_244_594, 80.4, 95.3),
    Release("resnet_v1_50_2016_08_28", "resnet_v1_50", 1000, 224, "vgg", 25_610_152, 75.2, 92.2),
    Release("resnet_v1_101_2016_08_28", "resnet_v1_101", 1000, 224, "vgg", 44_654_504, 76.4, 92.9),
    Release("resnet_v1_152_2016_08_28", "resnet_v1_152", 1000, 224, "vgg", 60_344_232, 76.8, 93.2),
    Release("resnet_v2_50_2017_04_14", "resnet_v2_50", 1001, 299, "inception", 25_615_849, 75.6, 92.8),
    Release("resnet_v2_101_2017_04_14", "resnet_v2_101", 1001, 299, "inception", 44_677_609, 77.0, 93.7),
    Release("resnet_v2_152_2017_04_14", "resnet_v2_152", 1001, 299, "inception", 60_382_697, 77.8, 94.1),
    Release("vgg_16_2016_08_28", "vgg_16", 1000, 224, "vgg", 138_357_544, 71.5, 89.8),
    Release("vgg_19_2016_08_28", "vgg_19", 1000, 224, "vgg", 143_667_240, 71.1, 89.8),
    _mobilenet(1, "1.0", 224, "mobilenet_v1", 4_254_889, 70.9, 89.9),
    _mobilenet(1, "0.75", 224, "mobilenet_v1_075", 2_602_745, 68.4, 88.2),
    _mobilenet(1, "0.5", 160, "mobilenet_v1_050", 1_343_049, 59.1, 81.9),
    _mobilenet(1, "0.25", 128, "mobilenet_v1_025", 475_801, 41.5, 66.3),
    _mobilenet(2, "1.4", 224, "mobilenet_v2_140", 6_158_505, 75.0, 92.5),
    _mobilenet(2, "1.0", 224, "mobilenet_v2", 3_540_265, 71.8, 91.0),
    _mobilenet(2, "0.35", 224, "mobilenet_v2_035", 1_692_489, 60.3, 82.9),
    _mobilenet_v3("v3-large_224_1.0_float", "mobilenet_v3_large", 5_508_713, 75.2),
    _mobilenet_v3("v3-small_224_1.0_float", "mobilenet_v3_small", 2_555_993, 67.5),
    _mobilenet_v3("v3-large-minimalistic_224_1.0_float", "mobilenet_v3_large_minimalistic", 3_949_969, 72.3),
    _mobilenet_v3("v3-small-minimalistic_224_1.0_float", "mobilenet_v3_small_minimalistic", 2_057_873, 61.9),
    Release("nasnet-a_mobile_04_10_2017", "nasnet_mobile", 1001, 224, "inception", 7_741_574, 74.0, 91.6),
    Release("nasnet-a_large_04_10_2017", "nasnet_large", 1001, 331, "inception", 93_524_196, 82.7, 96.2),
    Release("pnasnet-5_mobile_2017_12_13", "pnasnet_mobile", 1001, 224, "inception", 7_514_569, 74.2, 91.9),
    Release("pnasnet-5_large_2017_12_13", "pnasnet_large", 1001, 331, "inception", 90_827_754, 82.9, 96.2),
)


def find(name: str) -> Release | None:
    """The release with this name, or of the network with this name; `zoo:` may precede it."""
    name = name.removeprefix(PREFIX)
    return next((release for release in RELEASES if name in (release.name, release.network)), None)
