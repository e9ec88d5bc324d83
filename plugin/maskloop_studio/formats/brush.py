"""Brush masks as Label Studio stores them: a flattened RGBA image, packed by `rle_pack.py`.

A mask is written with 0 or 255 in all four channels and read from the alpha channel at >= 128, because the
browser draws anti-aliased strokes. `faint.py` reads masks whose values all lie below that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask
from maskloop_studio.formats.faint import FaintMask, read_levels
from maskloop_studio.formats.rle_pack import (
    MAX_PIXELS,
    count_pixels,
    pack_runs,
    unpack_levels,
    unpack_mask,
)

__all__ = ["decode_brush", "encode_brush", "encode_brush_crop", "read_brush"]

PIXELS_AT_ONCE = 1 << 18  # they stay in the processor's cache


def encode_brush(mask_hw: BoolMask) -> list[int]:
    """Return the mask as the bytes of a brush region's `value.rle`.

    Args:
        mask_hw: bool (H, W), the whole image, at least one pixel.

    Raises:
        CodecError: not bool (H, W), or without pixels, or with more pixels than the format can count.

    Source:
        https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
    """
    size_hw = (mask_hw.shape[0], mask_hw.shape[1]) if mask_hw.ndim == 2 else (0, 0)
    return encode_brush_crop(mask_hw, (0, 0), size_hw)


def encode_brush_crop(mask_hw: BoolMask, offset_yx: tuple[int, int], size_hw: tuple[int, int]) -> list[int]:
    """Return what `encode_brush` gives for the whole image, without ever making it.

    Args:
        mask_hw: bool (h, w), a crop outside of which there is nothing.
        offset_yx: where the crop's top-left pixel lies in the image, not negative.
        size_hw: the image's height and width; what lies outside is cut off.

    Raises:
        CodecError: not bool (h, w), or an image without pixels or with more than the format can count.
    """
    height, width = size_hw
    if mask_hw.dtype != np.bool_ or mask_hw.ndim != 2 or min(size_hw) < 1 or height * width > MAX_PIXELS:
        raise CodecError(
            "brush mask",
            expected=f"bool (H, W) of 1 to {MAX_PIXELS} pixels",
            got=f"{mask_hw.dtype} {mask_hw.shape}",
            remedy="pass the whole image's boolean mask",
        )
    top, left = offset_yx
    parts = _changes(mask_hw[: max(0, height - top), : max(0, width - left)], top, left, width)
    changes = np.concatenate([[0], *parts, [height * width]])
    # Background comes first and last in turn, even if there is none of it.
    first_is_foreground, last_is_foreground = changes[1] == 0, changes[-2] == height * width
    edges = changes[int(first_is_foreground) : len(changes) - int(last_is_foreground)]
    return list(pack_runs(edges, first_is_foreground=bool(first_is_foreground)))


def decode_brush(rle: object, size_hw: tuple[int, int], *, place: str = "brush mask") -> BoolMask:
    """Return the mask of a brush region.

    Args:
        rle: the bytes 0..255 of `value.rle`: a list, tuple, bytes or bytearray, or a mapping {"0": byte,
            "1": byte, ...}, which is JavaScript's way to write a typed array.
        size_hw: the image's height and width in pixels, from `original_height` and `original_width`.
        place: what an error names, such as "Task 42, region r7".

    Returns:
        bool (H, W); True where alpha is at least 128, or, where no alpha is, as `read_levels` reads them.

    Raises:
        CodecError: not a list of bytes, of another image size, of another word size, truncated or over-long,
            or without a clear mask. The size is checked before memory for the mask is taken.

    Source:
        https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
    """
    return read_brush(rle, (size_hw,), place=place).mask_hw


def read_brush(rle: object, sizes_hw: Sequence[tuple[int, int]], *, place: str) -> FaintMask:
    """Return the mask of a brush region, and what its reader should know about it.

    Args:
        rle: as of `decode_brush`.
        sizes_hw: heights and widths that the image may have; the first that fits the mask's length counts.
        place: what an error names.

    Raises:
        CodecError: as `decode_brush`.
    """
    data = _to_bytes(rle, place)
    pixels = count_pixels(data)
    size_hw = next((size for size in sizes_hw if size[0] * size[1] == pixels), sizes_hw[0])
    mask_hw = unpack_mask(data, size_hw, place)
    if mask_hw.any():
        return FaintMask(mask_hw=mask_hw)
    return read_levels(unpack_levels(data, size_hw, place).reshape(size_hw), place=place)


def _changes(mask_hw: BoolMask, top: int, left: int, width: int) -> list[NDArray[np.int64]]:
    """Return, in pieces, the pixels of the flattened image at which foreground begins or ends."""
    rows, columns = mask_hw.shape
    if mask_hw.size == 0:
        return []
    if columns == width:
        return _changes_of_rows(mask_hw.ravel(), top * width)
    # Row after row, with one pixel in place of those between them.
    padded = np.zeros(rows * (columns + 1) + 1, dtype=np.bool_)
    padded[1:].reshape(rows, columns + 1)[:, :columns] = mask_hw
    row, column = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), columns + 1)
    return [(row + top) * width + (column + left)]


def _changes_of_rows(flat: BoolMask, offset: int) -> list[NDArray[np.int64]]:
    """Return, in pieces, where foreground begins or ends in these pixels, `offset` added to each."""
    inside = len(flat) - 1
    differs = np.empty(min(inside, PIXELS_AT_ONCE), dtype=np.bool_)
    changes = [np.array([offset] * bool(flat[0]), dtype=np.int64)]
    for start in range(0, inside, PIXELS_AT_ONCE):
        here, following = flat[start : start + PIXELS_AT_ONCE], flat[start + 1 : start + 1 + PIXELS_AT_ONCE]
        (found,) = np.not_equal(here[: len(following)], following, out=differs[: len(following)]).nonzero()
        changes.append(np.add(found, offset + start + 1, out=found))
    changes.append(np.array([offset + len(flat)] * bool(flat[-1]), dtype=np.int64))
    return changes


def _to_bytes(rle: object, place: str) -> bytearray:
    remedy = "save the region again in Label Studio"
    if isinstance(rle, Mapping) and list(rle) == [str(index) for index in range(len(rle))]:
        rle = list(rle.values())
    # bytearray(n) of a bare number would take n bytes, so the type comes first.
    if not isinstance(rle, list | tuple | bytes | bytearray):
        raise CodecError(place, expected="a list of bytes", got=type(rle).__name__, remedy=remedy)
    try:
        return bytearray(rle)  # of a list in half the time that bytes() takes
    except (TypeError, ValueError) as exc:
        raise CodecError(place, expected="whole numbers 0..255", got=str(exc), remedy=remedy) from exc
