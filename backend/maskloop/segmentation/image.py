"""Image files to upright RGB arrays, with every size checked before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maskloop.errors import ImageError
from maskloop.types import RgbImage

__all__ = ["IMAGE_FORMATS", "decode_image"]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # Pillow's names
ORIENTATION = 0x0112  # EXIF's tag
STRIP_PIXELS = 1 << 20
WHITE = (255, 255, 255)  # what browsers show behind transparency


def decode_image(data: bytes, *, max_pixels: int) -> RgbImage:
    """Return an image file as a browser would show it: upright, RGB, transparency on white.

    Args:
        data: the file; PNG, JPEG, WebP, BMP, TIFF or GIF (of several frames the first).
        max_pixels: the most pixels that are decoded.

    Returns:
        uint8 (H, W, 3). 16-bit grey keeps its upper byte. Float images are taken as 0..1 where they stay
        within it; other float and 32-bit images are stretched from their lowest to their highest value.

    Raises:
        ImageError: not an image, of another format, damaged or cut off, or larger than `max_pixels`.
    """
    # Pillow's own guard against decompression bombs may be stricter than what the caller allows
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(str(exc), max_pixels) from exc
    except ImageError:
        raise
    except Exception as exc:  # Pillow's plugins raise whatever their parser happens to stumble over
        raise ImageError(
            "image file",
            expected=f"a whole {', '.join(IMAGE_FORMATS[:-1])} or {IMAGE_FORMATS[-1]}",
            got=f"{len(data)} bytes that do not decode ({type(exc).__name__}: {exc})",
            remedy="check that the file opens in a viewer and upload it again",
        ) from exc


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(f"{image.width}x{image.height}", max_pixels)


def _too_large(got: str, max_pixels: int) -> ImageError:
    return ImageError(
        "image file",
        expected=f"at most {max_pixels} pixels",
        got=got,
        remedy="shrink the image or raise MASKLOOP_MAX_IMAGE_PIXELS",
    )


def _upright(image: Image.Image) -> Image.Image:
    try:
        # where nothing is to be turned it would return a copy
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except Exception:  # damaged EXIF: browsers then show the pixels as they are stored
        return image


def _to_rgb(image: Image.Image) -> RgbImage:
    if image.mode == "F" or image.mode.startswith("I"):
        grey_hw = _to_bytes(np.asarray(image), mode=image.mode)
        return np.repeat(grey_hw[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (*WHITE, 255))
        image = Image.alpha_composite(backdrop, rgba)
    return _pixels(image if image.mode == "RGB" else image.convert("RGB"))


def _pixels(image: Image.Image) -> RgbImage:
    # in strips: Pillow's whole way to numpy holds the image two more times
    width, height = image.size
    pixels_hwc = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels_hwc[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels_hwc


def _to_bytes(values_hw: NDArray[np.generic], *, mode: str) -> NDArray[np.uint8]:
    values = values_hw.astype(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if mode.startswith("I") and low >= 0 and high <= 0xFFFF:
        shift = 0 if mode == "I" and high <= 0xFF else 8
        return (values_hw.astype(np.int64) >> shift).astype(np.uint8)
    if mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint(np.nan_to_num((values - low) * scale)).astype(np.uint8)
