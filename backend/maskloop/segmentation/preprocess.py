"""Images to model input: resize, normalise, pad; after `preprocessor_config.json`, without torchvision.

Decoding files is image.py's work; undoing the padding is predict.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskloop.errors import ImageError
from maskloop.types import RgbImage

__all__ = [
    "MASK_STRIDE",
    "Batch",
    "Preprocessing",
    "ResizedImage",
    "config_to_preprocessing",
    "images_to_batch",
    "join_batch",
    "padded_size",
    "preprocessing_to_config",
    "resize_image",
    "resized_size",
]

MASK_STRIDE = 4  # pixels: mask logits mostly come at a quarter of the input's size
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The input that one checkpoint was trained on."""

    shortest_edge: int | None = 800  # pixels; None with `box_hw` or where images keep their size
    longest_edge: int | None = 1333  # pixels, the cap; None for no cap
    box_hw: tuple[int, int] | None = None  # images are fitted into this, their aspect kept
    pad_hw: tuple[int, int] | None = (
        None  # every batch is padded to this at least, with black instead of zero
    )
    size_divisor: int = 32  # padded sides are multiples of it
    mask_stride: int = MASK_STRIDE  # pixels of the input for one of the mask logits
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of RGB after rescaling
    std: tuple[float, float, float] = IMAGENET_STD
    rescale: float = 1 / 255  # factor on 0..255
    zoom: float = 1.0  # factor on the size that all this comes to; no checkpoint names one

    def __post_init__(self) -> None:
        if self.size_divisor % self.mask_stride:
            raise ValueError(
                f"size_divisor: expected a multiple of {self.mask_stride}, got {self.size_divisor}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizedImage:
    """An image at the size that a model takes; the image itself is not needed any more."""

    pixels_chw: Tensor  # uint8, on the CPU
    image_size_hw: tuple[int, int]  # before resizing


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images as the model takes them."""

    pixel_values_bchw: Tensor  # float32, normalised, where padded zero (black with pad_hw)
    pixel_mask_bhw: Tensor  # int64, 1 on the image, 0 on padding
    valid_sizes_hw: tuple[tuple[int, int], ...]  # each image's size inside the padded batch
    image_sizes_hw: tuple[tuple[int, int], ...]  # each image's size before resizing


def images_to_batch(images: Sequence[RgbImage], preprocessing: Preprocessing, device: torch.device) -> Batch:
    """Return the images resized, normalised and padded at the right and bottom to one size.

    Args:
        images: at least one, uint8 (H, W, 3), upright RGB, any sizes.
        preprocessing: the checkpoint's.
        device: where the batch is wanted.

    Raises:
        ImageError: an image is not uint8 (H, W, 3) or has no pixels.
    """
    for index, image in enumerate(images):
        _check_image(image, index)
    return join_batch([resize_image(image, preprocessing) for image in images], preprocessing, device)


def resize_image(image: RgbImage, preprocessing: Preprocessing) -> ResizedImage:
    """Return an image at the size that the model takes, still in bytes: a quarter of what floats take.

    Args:
        image: uint8 (H, W, 3), upright RGB, any size; not held on to, unless it has that size already.
        preprocessing: the checkpoint's.

    Raises:
        ImageError: the image is not uint8 (H, W, 3) or has no pixels.
    """
    _check_image(image, 0)
    size_hw = (int(image.shape[0]), int(image.shape[1]))
    return ResizedImage(
        pixels_chw=_resize(image, resized_size(size_hw, preprocessing)), image_size_hw=size_hw
    )


def join_batch(ready: Sequence[ResizedImage], preprocessing: Preprocessing, device: torch.device) -> Batch:
    """Return resized images as the model takes them, normalised on its device.

    Args:
        ready: at least one, of any sizes.
        preprocessing: the one that they were resized for.
        device: where the batch is wanted.
    """
    valid_hw = [(int(image.pixels_chw.shape[1]), int(image.pixels_chw.shape[2])) for image in ready]
    largest_hw = max(size[0] for size in valid_hw), max(size[1] for size in valid_hw)
    padded_h, padded_w = padded_size(largest_hw, preprocessing)
    pixels = torch.zeros((len(ready), 3, padded_h, padded_w), dtype=torch.float32, device=device)
    if preprocessing.pad_hw is not None:
        pixels += _normalise(torch.zeros(3, 1, 1, device=device), preprocessing)
    mask = torch.zeros((len(ready), padded_h, padded_w), dtype=torch.int64, device=device)
    for index, (image, (height, width)) in enumerate(zip(ready, valid_hw, strict=True)):
        moved_chw = _moved(image.pixels_chw, device)
        pixels[index, :, :height, :width] = _normalise(moved_chw, preprocessing)
        mask[index, :height, :width] = 1
    return Batch(
        pixel_values_bchw=pixels,
        pixel_mask_bhw=mask,
        valid_sizes_hw=tuple(valid_hw),
        image_sizes_hw=tuple(image.image_size_hw for image in ready),
    )


def resized_size(size_hw: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the (height, width) an image is resized to.

    The shorter side becomes `shortest_edge` unless the longer one would pass `longest_edge`. Where the
    checkpoint names a fixed height and width, which transformers stretches every image to, the image is
    fitted into that box instead. Both sides are rounded to a multiple of `mask_stride`, so that padding
    begins on a border of the mask logits and can be cut off exactly.
    """
    height, width = size_hw
    if preprocessing.box_hw is not None:
        scale = min(preprocessing.box_hw[0] / height, preprocessing.box_hw[1] / width)
    elif preprocessing.shortest_edge is not None:
        scale = preprocessing.shortest_edge / min(size_hw)
        if preprocessing.longest_edge is not None:
            scale = min(scale, preprocessing.longest_edge / max(size_hw))
    else:
        scale = 1.0
    scale *= preprocessing.zoom
    stride = preprocessing.mask_stride
    return _to_stride(height * scale, stride), _to_stride(width * scale, stride)


def padded_size(size_hw: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the (height, width) that a model is given for a resized image, or for the largest of some."""
    divisor, least_hw = preprocessing.size_divisor, preprocessing.pad_hw or (0, 0)
    height, width = (
        max(least, -(-side // divisor) * divisor) for side, least in zip(size_hw, least_hw, strict=True)
    )
    return height, width


def config_to_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a `preprocessor_config.json` describes.

    Args:
        config: the file's content; sizes as `size` (a number, [height, width], or an object of
            shortest_edge/longest_edge, height/width or max_height/max_width) and `max_size`, in any mix that
            transformers has ever written.

    Raises:
        ValueError, TypeError: a value of the wrong kind.
    """
    size = config.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    if isinstance(size, int | float):
        size = {"shortest_edge": size, "longest_edge": config.get("max_size", 1333)}
    elif isinstance(size, list | tuple):
        size = dict(zip(("height", "width"), size, strict=True))
    shortest, box_hw = size.get("shortest_edge"), None
    longest = size.get("longest_edge") or config.get("max_size")
    if shortest and not longest:  # transformers refuses such a size; a strip must not be blown up without end
        longest = shortest * 1333 / 800
    if "height" in size and "width" in size:
        box_hw = (int(size["height"]), int(size["width"]))
    elif "max_height" in size and "max_width" in size:
        box_hw = (int(size["max_height"]), int(size["max_width"]))
    resize, normalise = config.get("do_resize", True), config.get("do_normalize", True)
    divisor = int(config.get("size_divisor") or config.get("size_divisibility") or 32)  # MaskFormer's old key
    return Preprocessing(
        shortest_edge=int(shortest) if shortest and resize and box_hw is None else None,
        longest_edge=int(longest) if longest else None,
        box_hw=box_hw if resize else None,
        size_divisor=divisor if divisor % MASK_STRIDE == 0 else 32,
        mean=_triple(config.get("image_mean") or IMAGENET_MEAN) if normalise else (0.0, 0.0, 0.0),
        std=_triple(config.get("image_std") or IMAGENET_STD) if normalise else (1.0, 1.0, 1.0),
        rescale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
    )


def preprocessing_to_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the keys of a `preprocessor_config.json` that describe the same."""
    size: dict[str, int] = {}
    if preprocessing.box_hw is not None:
        size = {"height": preprocessing.box_hw[0], "width": preprocessing.box_hw[1]}
    elif preprocessing.shortest_edge is not None:
        size = {"shortest_edge": preprocessing.shortest_edge}
    if preprocessing.longest_edge is not None and preprocessing.box_hw is None:
        size["longest_edge"] = preprocessing.longest_edge
    return {
        "do_resize": preprocessing.box_hw is not None or preprocessing.shortest_edge is not None,
        "size": size,
        "size_divisor": preprocessing.size_divisor,
        "do_rescale": True,
        "rescale_factor": preprocessing.rescale,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "resample": 2,
    }


def _check_image(image: RgbImage, index: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise ImageError(
            f"image {index} of the batch",
            expected="uint8 (H, W, 3) with at least one pixel",
            got=f"{image.dtype} {image.shape}",
            remedy="decode the file with decode_image",
        )


def _to_stride(side: float, stride: int) -> int:
    return max(stride, round(side / stride) * stride)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _resize(image: RgbImage, size_hw: tuple[int, int]) -> Tensor:
    # torch warns of arrays that it could write to and must not
    image = np.ascontiguousarray(image) if image.flags.writeable else image.copy()
    # channels-last uint8 with antialiasing is torch's copy of Pillow's resampler, in integers and vectorised
    pixels_1chw = torch.from_numpy(image).permute(2, 0, 1)[None]
    if tuple(image.shape[:2]) == size_hw:
        return pixels_1chw[0]
    return functional.interpolate(pixels_1chw, size=size_hw, mode="bilinear", antialias=True)[0]


def _moved(pixels_chw: Tensor, device: torch.device) -> Tensor:
    # from pinned memory the copy is asynchronous
    return pixels_chw.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels_chw


def _normalise(pixels_chw: Tensor, preprocessing: Preprocessing) -> Tensor:
    mean = torch.tensor(preprocessing.mean)[:, None, None].to(pixels_chw.device, non_blocking=True)
    std = torch.tensor(preprocessing.std)[:, None, None].to(pixels_chw.device, non_blocking=True)
    return (pixels_chw.to(torch.float32) * preprocessing.rescale - mean) / std
