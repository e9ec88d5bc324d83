"""Rectangles, ellipses and key points as Label Studio stores them: percent of width and height.

`rotation` is in degrees clockwise, about the top-left corner (`x`, `y`) of a rectangle and about the centre
(`x`, `y`) of an ellipse, and turns pixels, not percent. Masks from them are filled as polygons are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from maskloop.errors import CodecError
from maskloop.polygons.outlines import Ring
from maskloop.types import Segment

__all__ = [
    "ellipse_to_ring",
    "rectangle_to_ring",
    "segment_to_ellipse",
    "segment_to_key_point",
    "segment_to_rectangle",
]

ELLIPSE_VERTICES = 720  # as a polygon it lacks 0.002 % of its area
MAX_NUMBER = 1e6  # percent or degrees; what is larger is no drawing
MAX_RADIUS_PERCENT = 50.0  # what label-studio-sdk accepts
KEY_POINT_WIDTH_PERCENT = 1.0
DIGITS = 6
PIXEL_VARIANCE = 1 / 12  # of a square of one pixel about its centre


def segment_to_rectangle(segment: Segment, size_hw: tuple[int, int]) -> dict[str, float]:
    """Return `value` of the tight upright box of a segment."""
    rows = np.flatnonzero(segment.mask_hw.any(axis=1))
    columns = np.flatnonzero(segment.mask_hw.any(axis=0))
    (top, left), (height, width) = segment.offset_yx, size_hw
    return {
        "x": _percent(left + int(columns[0]), width),
        "y": _percent(top + int(rows[0]), height),
        "width": _percent(int(columns[-1] - columns[0]) + 1, width),
        "height": _percent(int(rows[-1] - rows[0]) + 1, height),
        "rotation": 0,
    }


def segment_to_ellipse(segment: Segment, size_hw: tuple[int, int]) -> dict[str, float]:
    """Return `value` of the ellipse with the segment's centre, area and second moments' axes.

    A radius stays at most 50 % of the image's side, as Label Studio's SDK demands, so an ellipse of an area
    that fills the image is smaller than it. `rotation` is the smallest one that turns an axis right.
    """
    moments = cv2.moments(segment.mask_hw.view(np.uint8), binaryImage=True)
    area = moments["m00"]
    (top, left), (height, width) = segment.offset_yx, size_hw
    xx = moments["mu20"] / area + PIXEL_VARIANCE
    yy = moments["mu02"] / area + PIXEL_VARIANCE
    xy = moments["mu11"] / area
    spread = math.hypot((xx - yy) / 2, xy)
    ratio = math.sqrt(((xx + yy) / 2 + spread) / max((xx + yy) / 2 - spread, PIXEL_VARIANCE))
    long, short = math.sqrt(area * ratio / math.pi), math.sqrt(area / ratio / math.pi)
    angle = math.degrees(math.atan2(2 * xy, xx - yy) / 2)  # of the long axis, -90..90
    radius_x, radius_y = long, short
    if abs(angle) > 45:
        radius_x, radius_y = short, long
        angle -= math.copysign(90, angle)
    return {
        "x": _percent(left + moments["m10"] / area + 0.5, width),
        "y": _percent(top + moments["m01"] / area + 0.5, height),
        "radiusX": min(_percent(radius_x, width), MAX_RADIUS_PERCENT),
        "radiusY": min(_percent(radius_y, height), MAX_RADIUS_PERCENT),
        "rotation": round(angle, DIGITS) % 360,
    }


def segment_to_key_point(segment: Segment, size_hw: tuple[int, int]) -> dict[str, float]:
    """Return `value` of the point that lies deepest inside a segment, the middle of a pixel of it."""
    padded = np.pad(segment.mask_hw.astype(np.uint8), 1)  # the image's border is an edge, too
    depth_hw = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(np.argmax(depth_hw)), depth_hw.shape)
    (top, left), (height, width) = segment.offset_yx, size_hw
    return {
        "x": _percent(left + int(column) - 0.5, width),
        "y": _percent(top + int(row) - 0.5, height),
        "width": KEY_POINT_WIDTH_PERCENT,
    }


def rectangle_to_ring(value: Mapping[str, Any], size_hw: tuple[int, int], *, place: str) -> Ring:
    """Return the corners (4, 2) of a rectangle region, x and y in pixels.

    Args:
        value: the region's `value`: x, y, width, height in percent, rotation in degrees where it has one.
        size_hw: the image's height and width.
        place: what an error names.

    Raises:
        CodecError: not finite numbers, or without an area.

    Source:
        https://labelstud.io/tags/rectanglelabels
    """
    corner, sides = _read_pair(value, "x", "y", place), _read_pair(value, "width", "height", place)
    _demand_area(sides, place)
    along, down = _turned_axes(_read_number(value, "rotation", place, default=0.0))
    height, width = size_hw
    x, y = corner[0] * width / 100, corner[1] * height / 100
    right, low = along * (sides[0] * width / 100), down * (sides[1] * height / 100)
    ring: Ring = np.array([x, y]) + np.stack([right * 0, right, right + low, low])
    return ring


def ellipse_to_ring(value: Mapping[str, Any], size_hw: tuple[int, int], *, place: str) -> Ring:
    """Return an ellipse region as a ring (720, 2), x and y in pixels.

    Args:
        value: the region's `value`: x, y, radiusX, radiusY in percent, rotation in degrees where it has one.
        size_hw: the image's height and width.
        place: what an error names.

    Raises:
        CodecError: not finite numbers, or without an area.

    Source:
        https://labelstud.io/tags/ellipselabels
    """
    centre, radii = _read_pair(value, "x", "y", place), _read_pair(value, "radiusX", "radiusY", place)
    _demand_area(radii, place)
    along, down = _turned_axes(_read_number(value, "rotation", place, default=0.0))
    height, width = size_hw
    turn = np.linspace(0, 2 * np.pi, ELLIPSE_VERTICES, endpoint=False)
    ring: Ring = (
        np.array([centre[0] * width / 100, centre[1] * height / 100])
        + np.cos(turn)[:, None] * along * (radii[0] * width / 100)
        + np.sin(turn)[:, None] * down * (radii[1] * height / 100)
    )
    return ring


def _percent(pixels: float, side: int) -> float:
    return round(min(max(pixels * 100.0 / side, 0.0), 100.0), DIGITS)


def _turned_axes(degrees: float) -> tuple[Ring, Ring]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([cos, sin]), np.array([-sin, cos])


def _read_pair(value: Mapping[str, Any], first: str, second: str, place: str) -> tuple[float, float]:
    return _read_number(value, first, place), _read_number(value, second, place)


def _read_number(value: Mapping[str, Any], key: str, place: str, *, default: float | None = None) -> float:
    number = value.get(key)
    if number is None and default is not None:
        return default
    # abs() of a whole number of any size is cheap; comparing it with a float is exact.
    if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= MAX_NUMBER:
        raise _broken(place, f"{key} as a number of at most {MAX_NUMBER:.0f}", str(type(number).__name__))
    return float(number)


def _demand_area(sides: tuple[float, float], place: str) -> None:
    if min(sides) <= 0:
        raise _broken(place, "a width and a height above 0", f"{sides[0]:g} and {sides[1]:g}")


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="draw the region again in Label Studio")
