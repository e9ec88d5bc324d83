"""Bitmasks as Label Studio stores them: a PNG of the image's size as a data URL.

Its front end writes black pixels on a transparent ground and draws every pixel that is not transparent. Other
programs write white on black without transparency. Both are read; white on transparent is written, which
means the same to both.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskloop.errors import CodecError
from maskloop.types import BoolMask
from maskloop_studio.formats.faint import FaintMask, read_levels

__all__ = ["decode_bitmask", "encode_bitmask"]

URL_PATTERN = re.compile(r"\s*data:image/png(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
URL_START = "data:image/png;base64,"
MAX_URL_CHARS = 200_000_000
PNG_LEVEL = 1  # masks are long runs, which the fastest level packs nearly as well


def encode_bitmask(mask_hw: BoolMask, offset_yx: tuple[int, int], size_hw: tuple[int, int]) -> str:
    """Return `value.imageDataURL` of a mask: a PNG of two colours, transparent and white.

    Args:
        mask_hw: bool (h, w), a crop outside of which there is nothing.
        offset_yx: where the crop's top-left pixel lies in the image, not negative.
        size_hw: the image's height and width; what lies outside is cut off.

    Source:
        https://labelstud.io/tags/bitmask
    """
    (top, left), (height, width) = offset_yx, size_hw
    crop_hw = mask_hw[: max(0, height - top), : max(0, width - left)]
    whole_hw = np.zeros(size_hw, dtype=np.uint8)
    whole_hw[top : top + crop_hw.shape[0], left : left + crop_hw.shape[1]] = crop_hw
    picture = Image.fromarray(whole_hw, mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    picture.save(file, format="PNG", bits=1, transparency=b"\x00\xff", compress_level=PNG_LEVEL)
    return URL_START + base64.b64encode(file.getvalue()).decode("ascii")


def decode_bitmask(url: object, *, max_pixels: int, place: str) -> FaintMask:
    """Return the mask of a bitmask region, at the size of its PNG.

    Where some pixels are transparent, those with an alpha of at least 128 are the mask; otherwise those whose
    red is above 127. See `read_levels` for masks without such pixels.

    Args:
        url: `value.imageDataURL`.
        max_pixels: the most pixels that are decoded; checked before memory for them is taken.
        place: what an error names.

    Raises:
        CodecError: no data URL of a PNG, damaged, too large, or a PNG that holds no mask.

    Source:
        https://labelstud.io/tags/bitmask
    """
    match = URL_PATTERN.match(url) if isinstance(url, str) and len(url) <= MAX_URL_CHARS else None
    if match is None or not isinstance(url, str):
        got = repr(url[:40]) if isinstance(url, str) else type(url).__name__
        raise _broken(place, f"an imageDataURL that begins with {URL_START}", got)
    try:
        data = base64.b64decode(re.sub(r"\s+", "", url[match.end() :]), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            picture = Image.open(io.BytesIO(data), formats=("PNG",))
    except UnidentifiedImageError as exc:  # its text names an object in memory
        raise _broken(place, "a PNG in base64", "other data") from exc
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise _broken(place, "a PNG in base64", f"{type(exc).__name__}: {exc}"[:100]) from exc
    with picture:
        if picture.width * picture.height > max_pixels:
            raise _broken(place, f"a PNG of at most {max_pixels} pixels", f"{picture.width}x{picture.height}")
        try:
            picture.load()
            return _read_mask(picture, place)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            raise _broken(place, "a whole PNG", f"{type(exc).__name__}: {exc}"[:100]) from exc


def _read_mask(picture: Image.Image, place: str) -> FaintMask:
    alpha_hw: NDArray[np.uint8] | None = None
    if picture.has_transparency_data:
        rgba = picture if picture.mode in ("RGBA", "LA") else picture.convert("RGBA")
        alpha_hw = np.asarray(rgba.getchannel("A"))
        if alpha_hw.min() != alpha_hw.max() or not alpha_hw.any():
            return read_levels(alpha_hw, place=place)
    red_hw = _red(picture)
    if red_hw.min() != red_hw.max() or red_hw.max() > 0:
        return read_levels(red_hw, place=place)
    if alpha_hw is not None:  # the front end's form of a mask that covers the whole image
        return FaintMask(mask_hw=np.ones(red_hw.shape, dtype=np.bool_))
    raise _broken(
        place, "a mask with transparent or with white pixels", "black everywhere, which may mean both"
    )


def _red(picture: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 (H, W): the red of a picture of any mode."""
    if picture.mode == "1":
        return np.asarray(picture, dtype=np.uint8) * np.uint8(255)
    if picture.mode.startswith("I"):  # 16 bits
        grey_hw = np.asarray(picture).astype(np.int64)
        return (grey_hw >> 8 if grey_hw.max() > 255 else grey_hw).astype(np.uint8)
    if picture.mode == "L":
        return np.asarray(picture)
    rgb = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")
    return np.asarray(rgb.getchannel("R"))


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="save the region again in Label Studio")
