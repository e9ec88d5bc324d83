"""The geometry of one drawn item -> its mask, cropped, in the pixels of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from maskloop.errors import CodecError
from maskloop.masks import crop_mask
from maskloop.polygons.rings import percent_to_ring, ring_to_crop
from maskloop.types import BoolMask
from maskloop_studio.formats.bitmask import decode_bitmask
from maskloop_studio.formats.brush import read_brush
from maskloop_studio.formats.controls import ControlKind
from maskloop_studio.formats.percent import demand_percent
from maskloop_studio.formats.result_items import DrawnItem
from maskloop_studio.formats.shapes import ellipse_to_ring, rectangle_to_ring
from maskloop_studio.formats.vector import vector_to_ring

__all__ = ["RASTER_KINDS", "DrawnSizes", "demand_same_aspect", "mask_to_crop", "read_mask"]

RASTER_KINDS: tuple[ControlKind, ...] = ("brush", "bitmask")
MAX_ASPECT_CHANGE = 0.01  # of a region drawn on the same image at another size
Crop: TypeAlias = tuple[BoolMask, tuple[int, int]]  # a mask and where its (top, left) lies in the image


@dataclass(frozen=True, kw_only=True)
class DrawnSizes:
    """At which size a region was drawn, and at which size it is wanted."""

    drawn_hw: tuple[int, int]
    image_hw: tuple[int, int]
    max_pixels: int


def read_mask(
    item: DrawnItem, value: Mapping[str, Any], sizes: DrawnSizes, note: Callable[[str], None]
) -> Crop:
    """Return the region's crop and its (top, left) in the image; (0, 0) pixels where it covers none.

    Args:
        item: a region with a mask, so no key point.
        value: its `value`.
        sizes: at which it was drawn and is wanted.
        note: takes one sentence where the region is not read exactly as it stands.

    Raises:
        CodecError: its geometry cannot be read.
        UnclearMaskError: only where it is something can be read, not what its mask is.
    """
    place, image_hw = item.place, sizes.image_hw
    if item.kind in RASTER_KINDS:
        if item.kind == "brush":
            faint = read_brush(value.get("rle", ()), (sizes.drawn_hw, image_hw), place=place)
        else:
            faint = decode_bitmask(value.get("imageDataURL"), max_pixels=sizes.max_pixels, place=place)
        if faint.note is not None:
            note(f"{place}: {faint.note}")
        return mask_to_crop(faint.mask_hw, image_hw, place, note)
    if _is_unfinished(item.kind, value):
        note(f"{place}: the {item.kind} was not finished and covers no pixel")
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    if item.kind == "polygon":
        if value.get("closed") is False:
            raise CodecError(
                place,
                expected="a closed polygon",
                got="an open one, which has no area",
                remedy="close it in Label Studio, or delete it",
            )
        ring = percent_to_ring(value.get("points"), image_hw, place=place)
    elif item.kind == "vector":
        ring = vector_to_ring(value, image_hw, place=place)
    elif item.kind == "rectangle":
        ring = rectangle_to_ring(value, image_hw, place=place)
    else:
        ring = ellipse_to_ring(value, image_hw, place=place)
    demand_percent(ring, image_hw, item)
    if sizes.drawn_hw != image_hw:
        note(_scaled(sizes.drawn_hw, image_hw, place))
    ring_hw, (top, left) = ring_to_crop(ring, image_hw, place=place)
    crop_hw, (y, x) = crop_mask(ring_hw)
    if not crop_hw.size:
        note(f"{place}: the {item.kind} covers no pixel")
    return crop_hw, (top + y, left + x)


def _is_unfinished(kind: ControlKind, value: Mapping[str, Any]) -> bool:
    """Return whether a shape has too few corners for an area: a click too many, which Label Studio keeps."""
    corners = value.get({"polygon": "points", "vector": "vertices"}.get(kind, ""))
    return isinstance(corners, list) and len(corners) < (3 if kind == "polygon" else 2)


def mask_to_crop(
    mask_hw: BoolMask, image_hw: tuple[int, int], place: str, note: Callable[[str], None]
) -> Crop:
    """Return the crop of a whole mask, scaled to the image where it was made at another size.

    Raises:
        CodecError: the aspect ratio is another one.
    """
    height, width = mask_hw.shape
    if (height, width) == image_hw:
        return crop_mask(mask_hw)
    demand_same_aspect((height, width), image_hw, place)
    note(_scaled((height, width), image_hw, place))
    return crop_mask(_scale(mask_hw, image_hw))


def _scaled(drawn_hw: tuple[int, int], image_hw: tuple[int, int], place: str) -> str:
    return f"{place}: scaled from {drawn_hw[1]}x{drawn_hw[0]} to {image_hw[1]}x{image_hw[0]}"


def _scale(mask_hw: BoolMask, size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask at another size: the pixel whose middle is nearest decides."""
    scaled: BoolMask = cv2.resize(
        mask_hw.astype(np.uint8), (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST_EXACT
    ).astype(np.bool_)
    return scaled


def demand_same_aspect(drawn_hw: tuple[int, int], image_hw: tuple[int, int], where: str) -> None:
    """Refuse a region that was drawn on an image of another form.

    Raises:
        CodecError: the aspect ratios differ by more than 1 %.
    """
    drawn, image = drawn_hw[1] * image_hw[0], image_hw[1] * drawn_hw[0]
    if abs(drawn - image) > MAX_ASPECT_CHANGE * image:
        raise CodecError(
            where,
            expected=f"an image of {image_hw[1]}x{image_hw[0]}",
            got=f"{drawn_hw[1]}x{drawn_hw[0]}",
            remedy="the image was replaced or cropped; annotate it again",
        )
