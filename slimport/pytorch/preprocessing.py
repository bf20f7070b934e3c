"""slim's preprocessing as transforms, for a `Dataset` or a whole batch: the arithmetic of `slimport.preprocessing`.

    dataset = torchvision.datasets.ImageFolder("photos", transform=Inception(299))

Sources: see `slimport.preprocessing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimport import preprocessing
from slimport.preprocessing import CENTRAL_FRACTION, DEEPLAB_MEANS, MEANS, RESIZE_SIDE, Size


class Inception(nn.Module):
    """`slimport.preprocessing.inception`: a PIL image or a tensor to [channels, height, width] in [-1, 1].

    A tensor is [..., channels, height, width], uint8 or floating point in [0, 1], on any device. A PIL image is
    converted to RGB.
    """

    def __init__(self, size: Size = 299, central_fraction: float = CENTRAL_FRACTION) -> None:
        super().__init__()
        self.size = preprocessing.sides(size)
        self.central_fraction = central_fraction

    def forward(self, image: Any) -> Tensor:
        pixels = _tensor(image)
        _check_range(pixels, 1)
        height, width = pixels.shape[-2:]
        top, left = (preprocessing.crop_margin(side, self.central_fraction) for side in (height, width))
        pixels = pixels[..., top : height - top, left : width - left]
        scale = 1 / 255 if pixels.dtype == torch.uint8 else 1
        return (_resized(pixels, self.size, scale) - 0.5) * 2

    def extra_repr(self) -> str:
        return f"size={self.size}, central_fraction={self.central_fraction}"


class Vgg(nn.Module):
    """`slimport.preprocessing.vgg`: a PIL image or a tensor to [3, height, width], minus ImageNet's mean colour.

    A tensor is [..., 3, height, width], uint8 or floating point in [0, 255], on any device. A PIL image is converted to
    RGB.
    """

    means: tuple[float, ...] = MEANS

    def __init__(self, size: Size = 224, resize_side: int = RESIZE_SIDE) -> None:
        super().__init__()
        self.size = preprocessing.sides(size)
        self.resize_side = resize_side

    def forward(self, image: Any) -> Tensor:
        pixels = _tensor(image)
        _check_range(pixels, 255)
        resized = preprocessing.smallest_size_at_least(tuple(pixels.shape[-2:]), self.resize_side)
        top, left = preprocessing.crop_offsets(resized, self.size)
        height, width = self.size
        crop = _resized(pixels, resized)[..., top : top + height, left : left + width]
        return crop - crop.new_tensor(self.means)[:, None, None]

    def extra_repr(self) -> str:
        return f"size={self.size}, resize_side={self.resize_side}"


class Deeplab(Vgg):
    """`slimport.preprocessing.deeplab`: the means that DeepLab subtracts. Takes what `Vgg` takes."""

    means = DEEPLAB_MEANS


class Lenet(nn.Module):
    """`slimport.preprocessing.lenet`: a PIL image or a tensor to [channels, height, width] in [-1, 1).

    A tensor is [..., channels, height, width], of values in [0, 255], on any device. A PIL image is converted to RGB.
    """

    default_size = 28

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = preprocessing.sides(size or self.default_size)

    def forward(self, image: Any) -> Tensor:
        pixels = _tensor(image)
        _check_range(pixels, 255)
        return (_crop_or_pad(pixels, self.size) - 128) / 128

    def extra_repr(self) -> str:
        return f"size={self.size}"


class Cifarnet(Lenet):
    """`slimport.preprocessing.cifarnet`: a mean of 0 and a variance of 1. Takes what `Lenet` takes."""

    default_size = 32

    def forward(self, image: Any) -> Tensor:
        return _standardized(_crop_or_pad(_tensor(image), self.size))


class Facenet(Lenet):
    """`slimport.preprocessing.facenet`: a mean of 0 and a variance of 1. Takes what `Lenet` takes."""

    default_size = 160

    def forward(self, image: Any) -> Tensor:
        return _standardized(resize_bilinear(_tensor(image), self.size))


def resize_bilinear(image: Tensor, size: Size) -> Tensor:
    """`slimport.preprocessing.resize_bilinear` of [..., height, width], in float32."""
    return _resized(image, preprocessing.sides(size))


def _crop_or_pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The centre of [..., height, width], with zeros around it where it is smaller, as floating point."""
    for dim, side in zip((-2, -1), size, strict=True):
        image = image.narrow(dim, max(image.shape[dim] - side, 0) // 2, min(image.shape[dim], side))
    missing = [side - there for side, there in zip(size, image.shape[-2:], strict=True)]
    (top, bottom), (left, right) = ((free // 2, free - free // 2) for free in missing)
    return nn.functional.pad(image.float(), (left, right, top, bottom))


def _standardized(image: Tensor) -> Tensor:
    """Each image of [..., channels, height, width] with a mean of 0 and a variance of 1."""
    exact, axes = image.double(), (-3, -2, -1)
    deviation = exact.std(axes, correction=0, keepdim=True).clamp(min=image.shape[-3:].numel() ** -0.5)
    return ((exact - exact.mean(axes, keepdim=True)) / deviation).float()


def _tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        if image.ndim < 3 or (image.shape[-1] in (1, 3) and image.shape[-3] not in (1, 3)):
            raise ValueError(
                f"a tensor of shape {list(image.shape)}: must be [..., channels, height, width]; "
                f"tensor.movedim(-1, -3) makes it of [height, width, channels]"
            )
        return image
    if not hasattr(image, "convert"):
        raise TypeError(
            f"a {type(image).__name__}: must be a PIL image or a tensor; slimport.preprocessing takes NumPy's arrays"
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _check_range(image: Tensor, largest: int) -> None:
    # A compiled program does not look at values.
    if not torch.compiler.is_compiling():
        preprocessing.check_range(image, largest)


def _resized(image: Tensor, size: tuple[int, int], scale: float = 1) -> Tensor:
    height, width = image.shape[-2:]
    rows, columns = preprocessing.taps(height, size[0]), preprocessing.taps(width, size[1])

    def at(pixels: Tensor, dim: int, indices: Any) -> Tensor:
        return pixels.index_select(dim, torch.from_numpy(indices).to(pixels.device))

    def lerp(values: Any) -> Tensor:
        return torch.from_numpy(values).to(image.device)

    def row(indices: Any) -> Tensor:
        lines = at(image, -2, indices)
        left, right = (at(lines, -1, index).float() * scale for index in (columns.lower, columns.upper))
        return left + (right - left) * lerp(columns.lerp)

    top, bottom = row(rows.lower), row(rows.upper)
    return top + (bottom - top) * lerp(rows.lerp)[:, None]
