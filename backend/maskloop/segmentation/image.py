"""Image files to upright RGB arrays, as a browser shows them; sizes are checked before decoding."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from maskloop.errors import ImageError
from maskloop.segmentation.image_kinds import OTHER_KINDS, kind_of_file
from maskloop.types import RgbImage

if TYPE_CHECKING:
    from maskloop.segmentation.upsample import Window

__all__ = ["IMAGE_FORMATS", "EncodedImage", "decode_image"]

# Pillow's names
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *(("AVIF",) if features.check("avif") else ()))
MAX_SIDE = 65_535  # pixels: the most that JPEG has, and that browsers show
ORIENTATION = 0x0112  # EXIF's tag
STRIP_PIXELS = 1 << 20
WHITE = (255, 255, 255)  # what browsers show behind transparency
# Bytes of memory for a pixel while it is decoded and scaled; 4 for all other modes.
BYTES_OF_MODE = {"F": 8, "I": 8, "1": 1, "L": 1, "P": 1}
WORK_BYTES_PER_PIXEL = 12  # of decoding: the file's pixels, turned upright, as RGB
MAX_BYTES_PER_PIXEL = 4  # of `max_pixels` pixels: float and 32-bit images may have half as many
END_OF_JPEG = b"\xff\xd9"
MIN_JPEG_SHARE = 0.5  # of the rows: less of a cut off JPEG is no image to segment
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedImage:
    """An image file that is decoded when its turn comes."""

    data: bytes
    max_pixels: int  # see `decode_image`
    window: Window | None = None  # the part of the upright image that is wanted; None: all of it

    @property
    def work_bytes(self) -> int:
        """The memory that decoding takes, about; 0 where the file's head cannot be read."""
        _allow_pixels(self.max_pixels)
        try:
            with Image.open(io.BytesIO(self.data), formats=IMAGE_FORMATS) as image:
                return min(image.width * image.height, self.max_pixels) * WORK_BYTES_PER_PIXEL
        except Exception:  # decoding gives the reason
            return 0

    def __call__(self) -> RgbImage:
        """Return what `decode_image` returns, or the wanted part of it."""
        image_hwc = decode_image(self.data, max_pixels=self.max_pixels)
        if (part := self.window) is None:
            return image_hwc
        return image_hwc[part.top : part.bottom, part.left : part.right].copy()


def decode_image(data: bytes, *, max_pixels: int) -> RgbImage:
    """Return an image file as a browser would show it: upright, RGB, transparency on white.

    Args:
        data: the file; PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF (of several frames the first). A JPEG without
            its end is shown as far as it goes and grey below, where half of its rows are there; an optional
            chunk of a PNG whose checksum is wrong is left out.
        max_pixels: the most pixels that are decoded; half as many of a float or 32-bit image.

    Returns:
        uint8 (H, W, 3). 16-bit grey keeps its upper byte. Float images are taken as 0..1 where they stay
        within it; other float and 32-bit images are stretched from their lowest to their highest value.

    Raises:
        ImageError: not an image, of another format (SVG, HEIC and others by name), damaged or cut off, with
            more pixels than `max_pixels`, or with a side of more than 65,535 pixels.
    """
    _allow_pixels(max_pixels)
    try:
        return _decode(data, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(str(exc), max_pixels) from exc
    except Exception as exc:  # Pillow's plugins raise whatever their parsers raise
        if (repaired := _repaired(data)) is not None:
            return _decode_repaired(repaired, max_pixels, exc)
        raise _undecodable(data, exc) from exc


def _allow_pixels(max_pixels: int) -> None:
    # Pillow's own guard against decompression bombs may be stricter than what the caller allows
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def _decode(data: bytes, max_pixels: int) -> RgbImage:
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        _check_size(image, max_pixels)
        image.load()
        return _to_rgb(_upright(image))


def _repaired(data: bytes) -> bytes | None:
    """Return a file with the damage undone that browsers overlook; None where there is none of that kind.

    Pillow overlooks it too, but by one switch for all threads (`LOAD_TRUNCATED_IMAGES`).
    """
    if data.startswith(b"\xff\xd8"):
        return data + END_OF_JPEG  # libjpeg then fills what is missing with grey
    if data.startswith(PNG_SIGNATURE):
        kept = _without_bad_chunks(data)
        return kept if len(kept) < len(data) else None
    return None


def _decode_repaired(data: bytes, max_pixels: int, cause: Exception) -> RgbImage:
    try:
        image_hwc = _decode(data, max_pixels)
    except ImageError:
        raise
    except Exception:
        raise _undecodable(data, cause) from cause
    if data.startswith(b"\xff\xd8"):
        share = _filled_share(image_hwc)
        if share < MIN_JPEG_SHARE:
            raise ImageError(
                "image file",
                expected="a whole JPEG, or most of one",
                got=f"{len(data) - len(END_OF_JPEG)} bytes that end after {share:.0%} of its rows",
                remedy="upload the file again",
            ) from cause
    return image_hwc


def _filled_share(image_hwc: RgbImage) -> float:
    """Return the share of rows above the grey that stands for what is missing: one colour in whole rows."""
    last_wc = image_hwc[-1]
    if (last_wc != last_wc[0]).any():
        return 1.0
    same_h = (image_hwc == last_wc[0]).all(axis=(1, 2))
    missing = int(np.argmin(same_h[::-1])) if not same_h.all() else len(same_h)
    return 1.0 - missing / len(same_h)


def _without_bad_chunks(data: bytes) -> bytes:
    """Return a PNG without the optional chunks whose checksum is wrong; the others as they are."""
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        chunk = data[start:end]
        optional = bool(chunk[4] & 0x20)  # a small first letter
        if not optional or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            kept.append(chunk)
        start = end
    return b"".join(kept)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    size = f"{image.width}x{image.height}"
    if image.width * image.height > max_pixels:
        raise _too_large(size, max_pixels)
    needed = image.width * image.height * BYTES_OF_MODE.get(image.mode, 4)
    if needed > max_pixels * MAX_BYTES_PER_PIXEL:
        raise _too_large(f"{size} of mode {image.mode}, each of which counts double", max_pixels)
    if max(image.size) > MAX_SIDE:
        raise ImageError(
            "image file",
            expected=f"sides of at most {MAX_SIDE} pixels",
            got=size,
            remedy="cut the image into tiles",
        )


def _too_large(got: str, max_pixels: int) -> ImageError:
    return ImageError(
        "image file",
        expected=f"at most {max_pixels} pixels",
        got=got,
        remedy="shrink the image or raise MASKLOOP_MAX_IMAGE_PIXELS",
    )


def _undecodable(data: bytes, exc: Exception) -> ImageError:
    wanted = f"a whole {', '.join(IMAGE_FORMATS[:-1])} or {IMAGE_FORMATS[-1]}"
    kind = kind_of_file(data)
    if kind is not None and kind not in IMAGE_FORMATS:
        remedy = OTHER_KINDS.get(kind, "convert it to PNG or JPEG")
        return ImageError("image file", expected=wanted, got=f"{kind}, {len(data)} bytes", remedy=remedy)
    return ImageError(
        "image file",
        expected=wanted,
        got=f"{len(data)} bytes that do not decode ({type(exc).__name__}: {exc})",
        remedy="check that the file opens in a viewer and upload it again",
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
    # In strips: Pillow's whole way to numpy holds the image two more times, transparency four more.
    width, height = image.size
    pixels_hwc = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels_hwc[top:bottom] = np.asarray(_opaque(image.crop((0, top, width, bottom))))
    return pixels_hwc


def _opaque(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*WHITE, 255)), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_bytes(values_hw: NDArray[np.generic], *, mode: str) -> NDArray[np.uint8]:
    low, high = float(np.nanmin(values_hw)), float(np.nanmax(values_hw))
    grey_hw = np.empty(values_hw.shape, dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // values_hw.shape[1])
    for top in range(0, len(values_hw), rows):  # in strips: float64 takes eight bytes a pixel
        strip = slice(top, top + rows)
        grey_hw[strip] = _strip_to_bytes(values_hw[strip], mode, low, high)
    return grey_hw


def _strip_to_bytes(values_hw: NDArray[np.generic], mode: str, low: float, high: float) -> NDArray[np.uint8]:
    if mode.startswith("I") and low >= 0 and high <= 0xFFFF:
        shift = 0 if mode == "I" and high <= 0xFF else 8
        return (values_hw.astype(np.int64) >> shift).astype(np.uint8)
    if mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint(np.nan_to_num((values_hw.astype(np.float64) - low) * scale)).astype(np.uint8)
