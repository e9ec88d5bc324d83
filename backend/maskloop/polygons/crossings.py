"""What rings fill, from where their edges cross the rows of pixel centres: masks, and shares of overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.polygons.outlines import Ring
from maskloop.types import BoolMask

__all__ = ["Shape", "broken_drawing", "fill_rings", "overlap_shares", "rings_to_shapes"]

GRID = 2**20  # steps a pixel, of crossings
NUDGE_PX = np.array([1e-3, 0.618e-3])  # along no edge
MAX_CROSSINGS = 2**24  # edges times the rows they cross, of a ring from outside
BITS = 3  # of a key, below the pixel's number
# What a crossing adds to the winding number of each of three kinds of rings: code 2 * kind + 1 goes down
STEPS = np.kron(np.eye(3, 4, dtype=np.int8), np.array([-1, 1], dtype=np.int8))
_Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """What rings along pixel edges fill: the crossings of its rows, in order."""

    size_hw: tuple[int, int]  # up to its last pixel
    keys: _Ints  # as `_crossings` gives them, of a canvas that begins with pixel 0


def fill_rings(rings: Sequence[Ring], shape_hw: tuple[int, int], place: str) -> BoolMask:
    """Return bool (h, w): where the pixel centre's winding number is not 0; holes run the other way.

    Raises:
        CodecError: rings with too many crossings.
    """
    height, width = shape_hw
    ordered = np.sort(_crossings(rings, [len(rings)], [(height, width)], np.zeros(1, dtype=np.int64), place))
    winding = np.cumsum((ordered & 1) * 2 - 1)
    lengths = np.diff(ordered >> BITS, prepend=0, append=height * width)
    filled: BoolMask = np.repeat(np.append(False, winding != 0), lengths).reshape(height, width)
    return filled


def rings_to_shapes(parts: Sequence[Sequence[Ring]]) -> list[Shape]:
    """Return what each part's rings, along pixel edges, fill; for `overlap_shares`."""
    if not parts:
        return []
    sizes = [tuple(part[0].max(axis=0).astype(np.int64)[::-1].tolist()) for part in parts]
    base_n = _bases(sizes)
    flat = [ring for part in parts for ring in part]
    ordered = np.sort(_crossings(flat, [len(part) for part in parts], sizes, base_n << BITS, None))
    pieces = np.split(ordered, np.searchsorted(ordered, base_n[1:] << BITS))
    return [
        Shape(size_hw=size_hw, keys=keys - (base << BITS))
        for size_hw, keys, base in zip(sizes, pieces, base_n.tolist(), strict=True)
    ]


def overlap_shares(shapes: Sequence[Shape], drawn: Sequence[Sequence[Ring]]) -> NDArray[np.float64]:
    """Return the intersection over union (0 to 1) of each shape and its drawing, in pixels.

    A line through pixel centres falls on either side once it is rounded: such pixels count as wrong, by
    drawing everything twice, moved by a thousandth of a pixel to either side.

    Args:
        shapes: at least one.
        drawn: the rings that are to show each of them.
    """
    sizes = [shape.size_hw for shape in shapes]
    base_n = _bases(sizes)
    rings = [ring for part in drawn for ring in part]
    moved = [ring - NUDGE_PX for ring in rings] + [ring + NUDGE_PX for ring in rings]
    offset_n = np.concatenate([(base_n << BITS) + 2, (base_n << BITS) + 4])  # so that their keys differ
    keys = [_crossings(moved, [len(part) for part in drawn] * 2, sizes * 2, offset_n, None)]
    keys += [shape.keys + (base << BITS) for shape, base in zip(shapes, base_n.tolist(), strict=True)]
    ordered = np.sort(np.concatenate(keys))
    place, code = ordered >> BITS, ordered & 7
    is_inside = [np.cumsum(steps[code], dtype=np.int32) != 0 for steps in STEPS]
    lengths = np.diff(place, append=place[-1:])
    first_n = np.searchsorted(place, base_n)
    both = np.add.reduceat(lengths * (is_inside[0] & is_inside[1] & is_inside[2]), first_n)
    either = np.add.reduceat(lengths * (is_inside[0] | is_inside[1] | is_inside[2]), first_n)
    shares: NDArray[np.float64] = both / either
    return shares


def _bases(sizes: Sequence[tuple[int, int]]) -> _Ints:
    """Return the number of each canvas's first pixel, one being left free after each."""
    pixels_n = np.array([height * width + 1 for height, width in sizes], dtype=np.int64)
    bases: _Ints = np.cumsum(pixels_n) - pixels_n
    return bases


def _crossings(
    rings: Sequence[Ring],
    counts_n: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    offset_n: _Ints,
    place: str | None,
) -> _Ints:
    """Return a key for each edge and each row of pixel centres that it crosses.

    Args:
        rings: of all canvases, canvas by canvas.
        counts_n: how many rings each canvas has.
        sizes: height and width of each.
        offset_n: what is added to each one's keys.
        place: of rings from outside, which may be too large to fill; what an error names.

    Returns:
        8 times the number of the first pixel behind the crossing, plus 1 where the edge goes down.
    """
    ends = np.cumsum([0, *(len(ring) for ring in rings)])
    canvas_e = np.repeat(np.arange(len(sizes)), np.diff(ends[np.cumsum([0, *counts_n])]))
    size_e2 = np.array(sizes, dtype=np.int64)[canvas_e]
    start = np.concatenate(rings)
    end = _following(start, [len(ring) for ring in rings])
    height_e, width_e = size_e2.T
    down = start[:, 1] < end[:, 1]
    # Each edge from its upper to its lower end: a bridge walked both ways then crosses rows at equal places.
    upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height_e).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height_e).astype(np.int64)
    spans = last - first
    total = int(spans.sum())
    if place is not None and total > MAX_CROSSINGS:
        raise broken_drawing(place, f"at most {MAX_CROSSINGS} crossings of rows", str(total))
    edge = np.repeat(np.arange(len(start)), spans)
    rows = np.arange(total) - np.repeat(np.cumsum(spans) - spans - first, spans)
    slope = (lower[:, 0] - upper[:, 0]) / np.where(spans > 0, lower[:, 1] - upper[:, 1], 1.0)
    crossing = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope[edge]
    # So that the same edge crosses at the same place in every crop.
    crossing = np.round(crossing * GRID) / GRID
    width = width_e[edge]
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    # In the order of pixels; a row's last column is the next one's first, and its winding comes out as 0.
    keys: _Ints = ((rows * width + columns) << BITS) + offset_n[canvas_e[edge]] + down[edge]
    return keys


def _following(points: Ring, lengths: Sequence[int]) -> Ring:
    """Return each vertex's next one in its ring."""
    following = np.empty_like(points)
    following[:-1] = points[1:]
    ends = np.cumsum(lengths)
    following[ends - 1] = points[ends - lengths]
    return following


def broken_drawing(place: str, expected: str, got: str) -> CodecError:
    """Return the error for a ring from outside that cannot be read."""
    return CodecError(place, expected=expected, got=got, remedy="draw the region again in Label Studio")
