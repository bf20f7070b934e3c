"""The preprocessing of an image for evaluation, in NumPy: slim's `inception`, `vgg`, `cifarnet`, `lenet`.

`facenet` is that of FaceNet, and `none` only resizes. All resize as `tf.image.resize_bilinear`: pixel i of
the output is looked up at i * in / out, so that the first pixels coincide and not the images' centres, and without
antialiasing. Pillow, torchvision and TensorFlow 2 do neither; a network that was trained on the one sees other images
through the other.

The same as `torch.nn.Module`s: `slimport.pytorch.preprocessing`.

Sources: `research/slim/preprocessing/*_preprocessing.py` in tensorflow/models; `prewhiten` in davidsandberg/facenet;
tensorflow/core/kernels/image/resize_bilinear_op.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.generic]
Size = int | tuple[int, int]

CENTRAL_FRACTION = 0.875
RESIZE_SIDE = 256
# Of red, green and blue over ImageNet's training images, on a scale of 0 to 255.
MEANS = (123.68, 116.78, 103.94)
DEEPLAB_MEANS = (123.15, 115.90, 103.06)
"""Those of DeepLab's `feature_extractor.py`."""


def inception(image: Image, size: Size = 299, central_fraction: float = CENTRAL_FRACTION) -> NDArray[np.float32]:
    """The central part of an image, resized whatever its aspect, scaled to [-1, 1].

    The released Inceptions, and the ResNet v2 of 2017 at 299x299, were evaluated so.

    Args:
      image: [height, width, channels], uint8, or floating point in [0, 1].
      size: height and width of the result.
      central_fraction: of each side, what is kept.

    Returns:
      [*size, channels], float32.
    """
    image = _checked(image)
    check_range(image, 1)
    top, left = (crop_margin(side, central_fraction) for side in image.shape[:2])
    image = image[top : image.shape[0] - top, left : image.shape[1] - left]
    scale = np.float32(1 / 255 if image.dtype == np.uint8 else 1)
    return (_resized(image, sides(size), scale) - np.float32(0.5)) * np.float32(2)


def vgg(
    image: Image, size: Size = 224, resize_side: int = RESIZE_SIDE, means: tuple[float, ...] = MEANS
) -> NDArray[np.float32]:
    """The image with its short side resized to `resize_side`, its centre cropped, ImageNet's mean colour subtracted.

    The released VGG and ResNet v1, which came from Caffe, were evaluated so.

    Args:
      image: [height, width, 3], uint8, or floating point in [0, 255].
      size: height and width of the result.
      resize_side: of the whole image, before the crop.
      means: of red, green and blue, what is subtracted.

    Returns:
      [*size, 3], float32, within [-123.68, 151.06].

    Raises:
      ValueError: the crop is larger than the resized image.
    """
    image = _checked(image)
    check_range(image, 255)
    resized = smallest_size_at_least(image.shape[:2], resize_side)
    top, left = crop_offsets(resized, sides(size))
    height, width = sides(size)
    return _resized(image, resized)[top : top + height, left : left + width] - np.array(means, np.float32)


def deeplab(image: Image, size: Size = 224, resize_side: int = RESIZE_SIDE) -> NDArray[np.float32]:
    """`vgg` with the means that DeepLab subtracts for its ResNets of one 7x7 convolution. Arguments as there."""
    return vgg(image, size, resize_side, DEEPLAB_MEANS)


def inception_no_crop(image: Image, size: Size = 299) -> NDArray[np.float32]:
    """`inception` of the whole image: slim's `crop_image=False`. Arguments and result as there."""
    return inception(image, size, 1.0)


def lenet(image: Image, size: Size = 28) -> NDArray[np.float32]:
    """The centre of an image, or the image with zeros around it, scaled to [-1, 1).

    Args:
      image: [height, width, channels], of values in [0, 255].
      size: height and width of the result.

    Returns:
      [*size, channels], float32.
    """
    check_range(image, 255)
    return (crop_or_pad(image, size) - np.float32(128)) / np.float32(128)


def cifarnet(image: Image, size: Size = 32) -> NDArray[np.float32]:
    """The centre of an image, or the image with zeros around it, with a mean of 0 and a variance of 1.

    Arguments and result as of `lenet`.
    """
    return standardized(crop_or_pad(image, size))


def facenet(image: Image, size: Size = 160) -> NDArray[np.float32]:
    """An image of a face, resized, with a mean of 0 and a variance of 1 (`prewhiten`).

    Arguments and result as of `lenet`.
    """
    return standardized(resize_bilinear(image, size))


def none(image: Image, size: Size = 224) -> NDArray[np.float32]:
    """The image as it is, resized: what a network takes whose preprocessing is in its own graph, or not known.

    Args:
      image: [height, width, channels], of any dtype.
      size: height and width of the result.

    Returns:
      [*size, channels], float32, of the values that the image has.
    """
    return resize_bilinear(image, size)


@dataclass(frozen=True)
class Preprocessing:
    """A preprocessing by its name: the function on [height, width, channels], and the side it makes by default.

    mean, std: what it subtracts from RGB in [0, 1], and divides it by.
    crop_fraction: of the image's sides, or of its resized short side, what is kept.
    crop_mode: timm's word: `squash` where the image is resized whatever its aspect, `center` where it is not.
    standardizes: whether each image is given a mean of 0 and a variance of 1, which no constants do.
    """

    name: str
    function: Callable[..., NDArray[np.float32]]
    default_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_fraction: float
    crop_mode: str
    standardizes: bool = False

    def numbers(self, in_channels: int = 3, size: int | None = None) -> dict[str, Any]:
        """The preprocessing as numbers, by the names that timm's `resolve_data_config` reads, of RGB in [0, 1].

        timm's own transforms resize with antialiasing and other centres: they come near slim's, and are not equal.
        """
        return {
            "input_size": (in_channels, *sides(size or self.default_size)),
            "mean": self.mean if in_channels == len(self.mean) else (self.mean[0],) * in_channels,
            "std": self.std if in_channels == len(self.std) else (self.std[0],) * in_channels,
            "crop_pct": self.crop_fraction,
            "crop_mode": self.crop_mode,
            "interpolation": "bilinear",
            "color_space": "RGB",
        }


PREPROCESSINGS = {
    "inception": Preprocessing("inception", inception, 299, (0.5,) * 3, (0.5,) * 3, CENTRAL_FRACTION, "squash"),
    "vgg": Preprocessing(
        "vgg", vgg, 224, tuple(mean / 255 for mean in MEANS), (1 / 255,) * 3, 224 / RESIZE_SIDE, "center"
    ),
    "deeplab": Preprocessing(
        "deeplab",
        deeplab,
        224,
        tuple(mean / 255 for mean in DEEPLAB_MEANS),
        (1 / 255,) * 3,
        224 / RESIZE_SIDE,
        "center",
    ),
    "inception_no_crop": Preprocessing(
        "inception_no_crop", inception_no_crop, 299, (0.5,) * 3, (0.5,) * 3, 1.0, "squash"
    ),
    "lenet": Preprocessing("lenet", lenet, 28, (128 / 255,) * 3, (128 / 255,) * 3, 1.0, "center"),
    "cifarnet": Preprocessing("cifarnet", cifarnet, 32, (0.0,) * 3, (1.0,) * 3, 1.0, "center", standardizes=True),
    "facenet": Preprocessing("facenet", facenet, 160, (0.0,) * 3, (1.0,) * 3, 1.0, "squash", standardizes=True),
    "none": Preprocessing("none", none, 224, (0.0,) * 3, (1 / 255,) * 3, 1.0, "squash"),
}


def resize_bilinear(image: Image, size: Size) -> NDArray[np.float32]:
    """`tf.compat.v1.image.resize_bilinear(image, size, align_corners=False)`.

    Args:
      image: [height, width, channels], of any dtype.
      size: height and width of the result.

    Returns:
      [*size, channels], float32.
    """
    return _resized(_checked(image), sides(size))


def crop_or_pad(image: Image, size: Size) -> NDArray[np.float32]:
    """`tf.image.resize_image_with_crop_or_pad`: the centre of an image, zeros around it where it is smaller.

    Arguments and result as of `resize_bilinear`.
    """
    image = _checked(image)
    for axis, side in enumerate(sides(size)):
        missing = max(side - image.shape[axis], 0)
        margins = [(0, 0)] * 3
        margins[axis] = missing // 2, missing - missing // 2
        start = max(image.shape[axis] - side, 0) // 2
        image = np.pad(image, margins).take(range(start, start + side), axis)
    return image.astype(np.float32)


def standardized(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """`tf.image.per_image_standardization`: less the mean, over the deviation, which is not taken for less than noise.

    Args:
      image: [height, width, channels].
    """
    deviation = max(image.std(dtype=np.float64), image.size**-0.5)
    standard: NDArray[np.float32] = ((image - image.mean(dtype=np.float64)) / deviation).astype(np.float32)
    return standard


@dataclass(frozen=True)
class Taps:
    """Along one axis, for every pixel of the output: the two pixels of the input between which it lies, and where."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    lerp: NDArray[np.float32]


def taps(side_in: int, side_out: int) -> Taps:
    """TensorFlow's: in float32, as it computes them, since that decides on which side of a pixel a position falls."""
    scale = np.float32(side_in) / np.float32(side_out)
    position = np.arange(side_out, dtype=np.float32) * scale
    floor = np.floor(position)
    lower = floor.astype(np.int64)
    return Taps(lower, np.minimum(np.ceil(position).astype(np.int64), side_in - 1), position - floor)


def crop_margin(side: int, fraction: float) -> int:
    """What `tf.image.central_crop` takes off each end of a side."""
    return int((side - side * fraction) / 2)


def smallest_size_at_least(size: tuple[int, ...], resize_side: int) -> tuple[int, int]:
    """The height and width, in the same proportion, whose short side is `resize_side`; in float32, as slim has it."""
    height, width = size
    scale = np.float32(resize_side) / np.float32(min(height, width))
    return int(np.rint(np.float32(height) * scale)), int(np.rint(np.float32(width) * scale))


def crop_offsets(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Where slim's central crop begins.

    Raises:
      ValueError: the crop is larger.
    """
    if crop[0] > size[0] or crop[1] > size[1]:
        raise ValueError(
            f"a crop of {crop[0]}x{crop[1]} from an image resized to {size[0]}x{size[1]}: choose a smaller size, or a "
            f"larger resize_side (--resize-side {max(crop)})"
        )
    return (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2


def sides(size: Size) -> tuple[int, int]:
    """Height and width; one number is both."""
    return (size, size) if isinstance(size, int) else size


def check_range(image: Any, largest: int) -> None:
    """Checks that an image, an array or a tensor, is on the scale that is meant.

    Args:
      image: uint8 is right in any case.
      largest: 1 or 255, of the scale of floating point.

    Raises:
      ValueError: the image is surely on the other scale.
    """
    if "float" not in str(image.dtype):
        return
    found = float(image.max())
    # An image that is black on a scale of 255 has whole numbers, and resizing exceeds 1 by little.
    if largest == 1 and found > 2:
        raise ValueError(f"floating point up to {found:g}, where [0, 1] is meant: divide it by 255, or give uint8")
    if largest == 255 and 0 < found <= 1 and bool((image != image.round()).any()):
        raise ValueError(f"floating point up to {found:g}, where [0, 255] is meant: multiply it by 255, or give uint8")


def _checked(image: Image) -> Image:
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"an image of shape {list(image.shape)}: must be [height, width, channels]")
    return image


def _resized(image: Image, size: tuple[int, int], scale: np.float32 | None = None) -> NDArray[np.float32]:
    """Resizes an image whose pixels, times `scale`, are the ones meant: only those that are looked up are converted."""
    rows, columns = taps(image.shape[0], size[0]), taps(image.shape[1], size[1])
    lerp = columns.lerp[:, None]

    def row(indices: NDArray[np.int64]) -> Any:
        lines = image[indices]
        left, right = (lines[:, index].astype(np.float32) for index in (columns.lower, columns.upper))
        if scale is not None:
            left, right = left * scale, right * scale
        return left + (right - left) * lerp

    top, bottom = row(rows.lower), row(rows.upper)
    resized: NDArray[np.float32] = top + (bottom - top) * rows.lerp[:, None, None]
    return resized
