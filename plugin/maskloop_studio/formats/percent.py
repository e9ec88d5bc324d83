"""Whether a shape's numbers can be percent of the image, and not pixels or fractions of 1."""

from __future__ import annotations

import numpy as np

from maskloop.errors import CodecError
from maskloop.polygons.outlines import Ring
from maskloop_studio.formats.objects import is_own_id
from maskloop_studio.formats.result_items import DrawnItem

__all__ = ["demand_percent"]

# How far a shape may lie outside of the image, in percent of its side.
TOLERANCE_PERCENT = 5.0
TURNED_TOLERANCE_PERCENT = 50.0  # of ellipses and turned rectangles, whose bounds the front end does not keep
REMEDY = (
    "give percent of the image's width and height: 100 * pixels / original_width (original_height), "
    "or draw the region again in Label Studio"
)


def demand_percent(ring: Ring, size_hw: tuple[int, int], item: DrawnItem) -> None:
    """Refuse a shape that lies too far outside of the image, or whose numbers are fractions of 1.

    Args:
        ring: (N, 2) of x, y in pixels, as read from percent.
        size_hw: the image's height and width.
        item: the region that it comes from.

    Raises:
        CodecError: it is no shape in percent.
    """
    height, width = size_hw
    percent = ring * (100.0 / width, 100.0 / height)
    low, high = percent.min(axis=0), percent.max(axis=0)
    tolerance = TURNED_TOLERANCE_PERCENT if _may_be_turned(item) else TOLERANCE_PERCENT
    middle = (low + high) / 2
    inside = bool(np.all(middle >= -TOLERANCE_PERCENT) and np.all(middle <= 100 + TOLERANCE_PERCENT))
    if not inside or low.min() < -tolerance or high.max() > 100 + tolerance:
        raise _refusal(item, low, high, "pixels?")
    # A browser writes `origin`. Without it, a shape in the outermost percent of a corner is a wrong unit.
    if (
        high.max() <= 1.0
        and low.min() >= 0
        and "origin" not in item.region
        and not is_own_id(item.region.get("id"))
    ):
        raise _refusal(item, low, high, "fractions of 1?")


def _may_be_turned(item: DrawnItem) -> bool:
    return item.kind == "ellipse" or (item.kind == "rectangle" and bool(item.region["value"].get("rotation")))


def _refusal(item: DrawnItem, low: Ring, high: Ring, guess: str) -> CodecError:
    return CodecError(
        item.place,
        expected="a shape in percent of the image, 0 to 100",
        got=f"x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}: {guess}",
        remedy=REMEDY,
    )
