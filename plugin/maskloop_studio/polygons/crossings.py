"""What rings fill, from where their edges cross the rows of pixel centres: masks, and shares of overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask
from maskloop_studio.polygons.outlines import Ring

__all__ = ["broken_drawing", "fill_rings", "overlap_shares"]

GRID = 2**20  # steps a pixel, of crossings
NUDGE_PX = np.array([1e-3, 0.618e-3])  # along no edge
MAX_CROSSINGS = 2**24  # edges times the rows they cross, of a ring from outside
_Ints: TypeAlias = NDArray[np.int64]


def fill_rings(rings: Sequence[Ring], shape_hw: tuple[int, int], place: str) -> BoolMask:
    """Return bool (h, w): where the pixel centre's winding number is not 0; holes run the other way.

    Raises:
        CodecError: rings with too many crossings.
    """
    height, width = shape_hw
    canvas = np.zeros(sum(map(len, rings)), dtype=np.int64)
    places, downs = _crossings(rings, canvas, np.array([[height, width, 0]]), place)
    ordered = np.sort(places * 2 + downs)
    winding = np.cumsum((ordered & 1) * 2 - 1)
    lengths = np.diff(ordered >> 1, prepend=0, append=height * width)
    filled: BoolMask = np.repeat(np.append(False, winding != 0), lengths).reshape(height, width)
    return filled


def overlap_shares(exact: Sequence[Sequence[Ring]], drawn: Sequence[Sequence[Ring]]) -> NDArray[np.float64]:
    """Return how alike each shape and its drawing are: the intersection over union of their pixels, 0 to 1.

    A line through pixel centres falls on either side once it is rounded: such pixels count as wrong, by
    drawing everything twice, moved by a thousandth of a pixel to either side.

    Args:
        exact: the rings of each shape along pixel edges, none of them empty.
        drawn: in the same order.
    """
    flat = [ring for rings in exact for ring in rings]
    moved = [ring for rings in drawn for ring in rings]
    exact_n = np.array([sum(map(len, rings)) for rings in exact])
    drawn_n = np.array([sum(map(len, rings)) for rings in drawn])
    size_n2 = np.maximum.reduceat(np.concatenate(flat), np.cumsum(exact_n) - exact_n).astype(np.int64)
    pixels_n = size_n2[:, 0] * size_n2[:, 1] + 1
    base_n = np.cumsum(pixels_n) - pixels_n
    canvases = np.column_stack([size_n2[:, ::-1], base_n])
    ways = (
        (flat, exact_n),
        ([ring - NUDGE_PX for ring in moved], drawn_n),
        ([ring + NUDGE_PX for ring in moved], drawn_n),
    )
    keys = []
    for kind, (rings, counts) in enumerate(ways):
        places, downs = _crossings(rings, np.repeat(np.arange(len(exact)), counts), canvases, None)
        keys.append(places * 8 + (kind * 2 + downs))
    ordered = np.sort(np.concatenate(keys))
    place, code = ordered >> 3, ordered & 7
    inside_kn = [np.cumsum(_STEP[kind][code], dtype=np.int32) != 0 for kind in range(3)]
    lengths = np.diff(place, append=place[-1:])
    first_n = np.searchsorted(place, base_n)
    both = np.add.reduceat(lengths * (inside_kn[0] & inside_kn[1] & inside_kn[2]), first_n)
    either = np.add.reduceat(lengths * (inside_kn[0] | inside_kn[1] | inside_kn[2]), first_n)
    shares: NDArray[np.float64] = both / either
    return shares


# What a crossing adds to the winding of each kind of ring: code 2 * kind + 1 goes down, 2 * kind up
_STEP = np.kron(np.eye(4, dtype=np.int8), np.array([-1, 1], dtype=np.int8))


def _crossings(
    rings: Sequence[Ring], canvas_e: _Ints, canvases: _Ints, place: str | None
) -> tuple[_Ints, _Ints]:
    """Return where each edge crosses each row of pixel centres, and whether it goes down there.

    Args:
        rings: of all canvases.
        canvas_e: of each edge, in the order of the rings' vertices.
        canvases: (C, 3): height, width, and number of the first pixel.
        place: of rings from outside, which may be too large to fill; what an error names.
    """
    start = np.concatenate(rings)
    end = _following(start, [len(ring) for ring in rings])
    height_e, width_e, base_e = canvases[canvas_e].T
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
    return base_e[edge] + rows * width + columns, down[edge].astype(np.int64)


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
