"""Masks -> exact outlines along pixel edges, of many masks at once, from the places where rows change.

A crack is the vertical edge of one pixel between foreground and background. Each pixel is read once, to find
the cracks; the cost of all further steps grows with the length of the outlines only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.types import BoolMask

__all__ = ["Part", "Ring", "trace_parts"]

Ring: TypeAlias = NDArray[np.float64]  # (N, 2): x, y in pixels
_Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What is connected by edges, not by corners, in one mask."""

    mask: int  # index of the mask
    rings: tuple[Ring, ...]  # the outer one clockwise as seen, then the holes, counter-clockwise


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cracks:
    """All masks below each other on one sheet, an empty row after each; in the order of rows and columns."""

    row_c: _Ints
    x_c: _Ints
    rising_c: _Ints  # 1 where background is left and foreground right, 0 where it is the other way
    stride: int  # more than any x
    rows: int
    top_m: _Ints  # of each mask on the sheet


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sides:
    """Straight vertical lines of cracks, in the order of columns; walked with the foreground to the right."""

    x_s: _Ints
    rising_s: _Ints  # walked upwards
    top_s: _Ints
    bottom_s: _Ints
    place_s: _Ints  # of the top crack in the order of columns


def trace_parts(masks: Sequence[BoolMask]) -> list[Part]:
    """Return the parts of all masks, mask by mask, the largest first; vertices are where an outline turns.

    Args:
        masks: bool (h, w) each, of any sizes.
    """
    cracks = _find_cracks(masks)
    if not len(cracks.x_c):
        return []
    sides = _join_cracks(cracks)
    order_s, first_r = _walk(_next_sides(sides, cracks.stride))
    ring_s = np.empty(len(order_s), dtype=np.int64)
    ring_s[order_s] = np.repeat(np.arange(len(first_r)), np.diff(first_r, append=len(order_s)))
    height_s = np.where(sides.rising_s, sides.top_s - sides.bottom_s, sides.bottom_s - sides.top_s)
    area_r = np.add.reduceat((sides.x_s * height_s)[order_s], first_r)  # Green's theorem: holes are negative
    corner_r = np.minimum.reduceat((sides.top_s * cracks.stride + sides.x_s)[order_s], first_r)
    outer_r = _outer_rings(cracks, sides, ring_s, area_r, corner_r)
    whole_r = np.bincount(outer_r, weights=area_r, minlength=len(area_r))
    mask_r = np.searchsorted(cracks.top_m, corner_r // cracks.stride, side="right") - 1
    sorted_r = np.lexsort((corner_r, area_r < 0, corner_r[outer_r], -whole_r[outer_r], mask_r))
    points = _points(sides, order_s)
    points[:, 1] -= np.repeat(cracks.top_m[mask_r], 2 * np.diff(first_r, append=len(order_s)))
    ends_r = 2 * np.append(first_r[1:], len(order_s))
    rings = [points[2 * first_r[ring] : ends_r[ring]] for ring in sorted_r]
    begins = np.append(np.flatnonzero(area_r[sorted_r] > 0), len(rings))
    masks_of = mask_r[sorted_r[begins[:-1]]]
    return [
        Part(mask=mask, rings=tuple(rings[begin:end]))
        for mask, begin, end in zip(masks_of.tolist(), begins[:-1], begins[1:], strict=True)
    ]


def _find_cracks(masks: Sequence[BoolMask]) -> _Cracks:
    heights = [mask.shape[0] + 1 for mask in masks]
    top_m = np.cumsum([0, *heights])[:-1]
    nothing: _Ints = np.zeros(0, dtype=np.int64)
    rows, columns, rising = [nothing], [nothing], [nothing]
    for mask_hw, top in zip(masks, top_m.tolist(), strict=True):
        height, width = mask_hw.shape
        flat = np.zeros(1 + height * (width + 1), dtype=np.bool_)  # background at all ends of rows
        flat[1:].reshape(height, width + 1)[:, :width] = mask_hw
        changes = np.flatnonzero(flat[1:] != flat[:-1])
        row_c, x_c = np.divmod(changes, width + 1)
        rows.append(row_c + top)
        columns.append(x_c)
        rising.append(1 - np.arange(len(changes)) % 2)
    return _Cracks(
        row_c=np.concatenate(rows),
        x_c=np.concatenate(columns),
        rising_c=np.concatenate(rising),
        stride=max((mask.shape[1] for mask in masks), default=0) + 2,
        rows=sum(heights) + 1,
        top_m=top_m,
    )


def _join_cracks(cracks: _Cracks) -> _Sides:
    place_c = (cracks.row_c * cracks.stride + cracks.x_c) * 2 + cracks.rising_c
    below_c = place_c + 2 * cracks.stride
    found_c = np.searchsorted(place_c, below_c)
    found_c[found_c == len(place_c)] = 0
    goes_on_c = place_c[found_c] == below_c
    comes_down_c = np.zeros_like(goes_on_c)
    comes_down_c[found_c[goes_on_c]] = True
    in_column_c = (cracks.x_c * 2 + cracks.rising_c) * cracks.rows + cracks.row_c
    tops, bottoms = np.flatnonzero(~comes_down_c), np.flatnonzero(~goes_on_c)
    tops = tops[np.argsort(in_column_c[tops])]
    bottoms = bottoms[np.argsort(in_column_c[bottoms])]
    return _Sides(
        x_s=cracks.x_c[tops],
        rising_s=cracks.rising_c[tops],
        top_s=cracks.row_c[tops],
        bottom_s=cracks.row_c[bottoms] + 1,
        place_s=in_column_c[tops],
    )


def _next_sides(sides: _Sides, stride: int) -> _Ints:
    """Return for each side the one that is walked after it."""
    count = len(sides.x_s)
    end_y = np.concatenate([sides.top_s, sides.bottom_s])
    # Along a horizontal line the first end belongs to the second, the third to the fourth. Where two ends
    # share a corner, pixels touch by it alone: the falling side belongs to what lies left of it.
    order = np.argsort((end_y * stride + np.tile(sides.x_s, 2)) * 2 + np.tile(sides.rising_s, 2))
    arrives = np.concatenate([sides.rising_s == 1, sides.rising_s == 0])
    one, other = order[::2], order[1::2]
    ends, starts = np.where(arrives[one], (one, other), (other, one))
    following = np.empty(count, dtype=np.int64)
    following[ends % count] = starts % count
    return following


def _walk(following: _Ints) -> tuple[_Ints, _Ints]:
    """Return all sides ring by ring, and where each ring begins."""
    after, seen = following.tolist(), bytearray(len(following))
    order: list[int] = []
    first: list[int] = []
    for start in range(len(after)):
        if seen[start]:
            continue
        first.append(len(order))
        at = start
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            at = after[at]
    return np.array(order, dtype=np.int64), np.array(first, dtype=np.int64)


def _outer_rings(cracks: _Cracks, sides: _Sides, ring_s: _Ints, area_r: _Ints, corner_r: _Ints) -> _Ints:
    """Return for each ring the outer one of its part.

    The pixel above a hole's first one is foreground. The crack where its run of pixels begins lies on the
    same part, on the outer ring or on a hole that begins further up.
    """
    outer_r = np.arange(len(area_r))
    holes = np.flatnonzero(area_r < 0)
    if not len(holes):
        return outer_r
    above = corner_r[holes] - cracks.stride
    begins = np.searchsorted(cracks.row_c * cracks.stride + cracks.x_c, above, side="right") - 1
    in_column = (cracks.x_c[begins] * 2 + 1) * cracks.rows + cracks.row_c[begins]
    outer_r[holes] = ring_s[np.searchsorted(sides.place_s, in_column, side="right") - 1]
    while not np.array_equal(further := outer_r[outer_r], outer_r):
        outer_r = further
    return outer_r


def _points(sides: _Sides, order_s: _Ints) -> Ring:
    """Return (2 S, 2): where each side is walked from and to."""
    points = np.empty((len(order_s), 2, 2))
    points[:, :, 0] = sides.x_s[order_s, None]
    rising = sides.rising_s[order_s] == 1
    top, bottom = sides.top_s[order_s], sides.bottom_s[order_s]
    points[:, 0, 1] = np.where(rising, bottom, top)
    points[:, 1, 1] = np.where(rising, top, bottom)
    return points.reshape(-1, 2)
