"""Segments -> a transparent picture of an image's size, to lie over it; images as browsers show them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from maskloop.types import RgbImage, Segment

__all__ = ["Side", "draw_overlay", "encode_image"]

Side: TypeAlias = Literal["annotator", "champion", "challenger"]
COLOURS: dict[str, tuple[int, int, int]] = {
    "annotator": (46, 204, 85),
    "champion": (59, 140, 255),
    "challenger": (255, 138, 31),
}
FILL_ALPHA = 80
LOSSLESS_PIXELS = 600_000  # smaller images are sent as they are, larger ones as JPEG
JPEG_QUALITY = 92
OUTLINE_SHARE = 1 / 500  # of the longer side


def draw_overlay(segments: Sequence[Segment], size_hw: tuple[int, int], side: Side) -> bytes:
    """Return a PNG with the segments' areas half transparent and their outlines opaque.

    Args:
        segments: what is drawn.
        size_hw: of the image, pixels.
        side: whose they are; decides the colour.
    """
    import cv2
    from PIL import Image

    canvas_hw = np.zeros(size_hw, dtype=np.uint8)
    thickness = max(1, round(max(size_hw) * OUTLINE_SHARE))
    kernel = np.ones((3, 3), np.uint8)
    for segment in segments:
        top, left, bottom, right = segment.box_yxyx
        bottom, right = min(bottom, size_hw[0]), min(right, size_hw[1])
        mask_hw = segment.mask_hw[: max(0, bottom - top), : max(0, right - left)]
        if not mask_hw.size:
            continue
        padded_hw = np.pad(mask_hw.astype(np.uint8), 1)  # the image's border is an outline too
        inner_hw = cv2.erode(padded_hw, kernel, iterations=thickness)[1:-1, 1:-1] > 0
        area_hw = canvas_hw[top:bottom, left:right]
        area_hw[mask_hw & (area_hw == 0)] = 1
        area_hw[mask_hw & ~inner_hw] = 2
    picture = Image.fromarray(canvas_hw, "P")
    colour = COLOURS[side]
    picture.putpalette([0, 0, 0, *colour, *colour])
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes((0, FILL_ALPHA, 255)), compress_level=3)
    return file.getvalue()


def encode_image(image_hwc: RgbImage) -> tuple[bytes, str]:
    """Return an image's file and its media type: PNG, or JPEG where it is large."""
    from PIL import Image

    picture, file = Image.fromarray(image_hwc), io.BytesIO()
    if image_hwc.shape[0] * image_hwc.shape[1] <= LOSSLESS_PIXELS:
        picture.save(file, "PNG", compress_level=3)
        return file.getvalue(), "image/png"
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue(), "image/jpeg"
