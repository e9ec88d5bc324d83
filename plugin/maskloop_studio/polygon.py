"""Masks as polygons and back: rings in pixel-edge coordinates, where pixel (r, c) covers c..c+1 by r..r+1.

Label Studio's polygon region is one ring. A segment of several parts therefore becomes several rings, and a
hole is cut into its part by a bridge of zero width (a keyhole), which every fill rule leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask, Segment

__all__ = [
    "Ring",
    "join_holes",
    "percent_to_ring",
    "ring_to_crop",
    "ring_to_percent",
    "rings_to_mask",
    "segment_to_rings",
    "turn_ring",
]

Ring: TypeAlias = NDArray[np.float64]  # (N, 2): x, y in pixels

MIN_IOU = 0.98  # between a part and its simplified ring
TOLERANCE_PX = 1.0
SMOOTHING_PX = 0.5  # how far an outline through the middles of its edges is away
SHRINK, GROW, LADDER_STEPS = 0.8, 1.5, 8  # of the tolerances that are tried
MAX_TOLERANCE_PX = 16.0
GRID, CROSSING_GRID = 2**12, 2**20  # steps a pixel, of vertices from outside and of crossings
NUDGE_PX = np.array([1e-3, 0.618e-3])  # along no edge
MAX_VERTICES = 200
MAX_READ_VERTICES = 1_000_000  # of a ring from outside
MAX_READ_PERCENT = 1e6  # what lies further away is no drawing
MAX_CROSSINGS = 2**24  # edges times the rows they cross, of a ring from outside


def segment_to_rings(
    segment: Segment, *, tolerance_px: float = TOLERANCE_PX, max_vertices: int = MAX_VERTICES
) -> list[Ring]:
    """Return one closed ring per part of the segment, the largest part first, holes cut in by keyholes.

    Each part is simplified by Douglas and Peucker, from the corners of its pixels and from the middles of
    their edges; the shorter of both outlines is taken at the largest tolerance up to `tolerance_px` at which
    one has an IoU of at least 0.98 with the mask. Where it has too many vertices, the tolerance grows as far
    as the IoU allows: the IoU wins over the vertices.

    Args:
        segment: one object; parts are what is connected by edges, not by corners.
        tolerance_px: how far the outline may move; 0 keeps every corner of every pixel.
        max_vertices: how many vertices a ring should have at most.

    Returns:
        Rings (N, 2) of x, y in pixels of the whole image, N >= 4, the last vertex not repeating the first.
    """
    number, index_hw, stats, _ = cv2.connectedComponentsWithStats(
        segment.mask_hw.view(np.uint8), connectivity=4
    )
    top, left = segment.offset_yx
    rings = []
    for part in sorted(range(1, number), key=lambda part: -int(stats[part, cv2.CC_STAT_AREA])):
        x, y, width, height = (int(value) for value in stats[part, :4])
        part_hw = index_hw[y : y + height, x : x + width] == part
        ring = _part_to_ring(part_hw, tolerance_px, max_vertices)
        rings.append(ring + np.array([left + x, top + y], dtype=np.float64))
    return rings


def rings_to_mask(rings: Sequence[Ring], size_hw: tuple[int, int], *, place: str = "polygon") -> BoolMask:
    """Return bool (H, W): the pixels whose centre lies in any of the rings; what lies outside is cut off.

    Raises:
        CodecError: a ring that `ring_to_crop` refuses.
    """
    mask_hw = np.zeros(size_hw, dtype=np.bool_)
    for ring in rings:
        crop_hw, (top, left) = ring_to_crop(ring, size_hw, place=place)
        mask_hw[top : top + crop_hw.shape[0], left : left + crop_hw.shape[1]] |= crop_hw
    return mask_hw


def ring_to_crop(
    ring: Ring, size_hw: tuple[int, int], *, place: str = "polygon"
) -> tuple[BoolMask, tuple[int, int]]:
    """Return the ring's filled mask, cropped to its bounds, and the crop's (top, left).

    Filled by the nonzero winding rule, as the browser's canvas fills what the annotator sees.

    Args:
        ring: (N, 2) of x, y in pixels, N >= 3, finite.
        size_hw: the image's height and width; what lies outside is cut off.
        place: what an error names.

    Raises:
        CodecError: fewer than three vertices, not finite, or too large a ring to fill.
    """
    if ring.ndim != 2 or ring.shape[1:] != (2,) or not 3 <= len(ring) <= MAX_READ_VERTICES:
        raise _broken(place, f"3 to {MAX_READ_VERTICES} points of x and y", f"shape {ring.shape}")
    if not np.isfinite(ring).all():
        raise _broken(place, "finite points", "inf or nan")
    height, width = size_hw
    left, top = (max(0, math.floor(low)) for low in np.clip(ring.min(axis=0), 0, (width, height)))
    right, bottom = (math.ceil(high) for high in np.clip(ring.max(axis=0), 0, (width, height)))
    shape_hw = (max(0, bottom - top), max(0, right - left))
    if 0 in shape_hw:
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    return _fill([ring - (left, top)], shape_hw, place), (top, left)


def ring_to_percent(ring: Ring, size_hw: tuple[int, int]) -> list[list[float]]:
    """Return `value.points`: x, y in percent of width and height, 0..100."""
    height, width = size_hw
    percent = np.clip(ring * (100.0 / width, 100.0 / height), 0.0, 100.0)
    points: list[list[float]] = percent.round(6).tolist()
    return points


def percent_to_ring(points: object, size_hw: tuple[int, int], *, place: str = "polygon") -> Ring:
    """Return the ring of `value.points` in pixels.

    Raises:
        CodecError: not a list of at least three pairs of finite numbers.
    """
    if not isinstance(points, list) or not 3 <= len(points) <= MAX_READ_VERTICES:
        got = f"{len(points)} points" if isinstance(points, list) else type(points).__name__
        raise _broken(place, f"3 to {MAX_READ_VERTICES} points", got)
    try:
        percent = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _broken(place, "pairs of numbers", str(exc)) from exc
    if percent.shape != (len(points), 2) or not np.isfinite(percent).all():
        raise _broken(place, "pairs of finite numbers", f"shape {percent.shape}")
    if np.abs(percent).max() > MAX_READ_PERCENT:
        raise _broken(place, f"points within {MAX_READ_PERCENT:.0f} %", f"{np.abs(percent).max():g}")
    height, width = size_hw
    # Back to the very place before it was rounded: neighbours then share their border to the last bit.
    ring: Ring = np.round(percent * (width / 100.0, height / 100.0) * GRID) / GRID
    return ring


def _part_to_ring(part_hw: BoolMask, tolerance_px: float, max_vertices: int) -> Ring:
    outer, holes = _trace(part_hw)
    exact: list[Ring] = [outer, *holes]
    if tolerance_px <= 0:
        return join_holes(outer, holes)

    def is_good(rings: Sequence[Ring]) -> bool:
        # Where the exact outlines touch themselves already, the others may do so, too.
        return _is_close(rings, part_hw) and (_is_simple(rings) or not _is_simple(exact))

    smooth = [_smooth_steps(ring) for ring in exact]
    chosen: list[Ring] = exact
    for step in SHRINK ** np.arange(LADDER_STEPS):
        candidates = [[_simplify(ring, tolerance_px * step) for ring in exact]]
        if tolerance_px > SMOOTHING_PX:
            candidates.append([_simplify(ring, (tolerance_px - SMOOTHING_PX) * step) for ring in smooth])
        found = next((rings for rings in sorted(candidates, key=_count) if is_good(rings)), None)
        if found is not None:
            chosen = min(exact, found, key=_count)
            break
    tolerance = tolerance_px
    while _count(chosen) > max_vertices and tolerance < MAX_TOLERANCE_PX:
        tolerance *= GROW
        coarser = [[_simplify(ring, tolerance) for ring in source] for source in (exact, smooth)]
        good = [rings for rings in coarser if is_good(rings)]
        if not good:
            break
        chosen = min([chosen, *good], key=_count)
    return join_holes(chosen[0], chosen[1:])


def _count(rings: Sequence[Ring]) -> int:
    return sum(map(len, rings))


def _smooth_steps(ring: Ring) -> Ring:
    """Return the outline through the middles of its edges, with the corners between edges of 2 and longer.

    So a slanted edge drawn in steps becomes the line between them, half a pixel or less away.
    """
    after = np.roll(ring, -1, axis=0)
    long_after = np.abs(after - ring).sum(axis=1) >= 2
    corners = np.roll(long_after, 1) & long_after
    points = np.stack([ring, (ring + after) / 2], axis=1)
    kept = np.stack([corners, np.ones_like(corners)], axis=1)
    return _drop_straight(points[kept])


def _trace(part_hw: BoolMask) -> tuple[Ring, list[Ring]]:
    """Return the exact outlines of one part, (N, 2) along pixel edges: the outer ring, then the holes."""
    # On the mask at twice the size, outline pixel x belongs to edge (x + 1) // 2 of the mask, on either side
    # of an object and of a hole; so pixel-centre contours become exact pixel-edge ones.
    size_wh = (2 * part_hw.shape[1], 2 * part_hw.shape[0])
    doubled = cv2.resize(part_hw.view(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
    doubled = cv2.copyMakeBorder(doubled, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [((contour[:, 0, :] - 1 + 1) // 2).astype(np.float64) for contour in contours]
    outer = [ring for ring, links in zip(rings, hierarchy[0], strict=True) if links[3] < 0]
    holes = [ring for ring, links in zip(rings, hierarchy[0], strict=True) if links[3] >= 0]
    return turn_ring(_drop_straight(outer[0]), 1), [turn_ring(_drop_straight(hole), -1) for hole in holes]


def turn_ring(ring: Ring, sign: int) -> Ring:
    """Return the ring walked in the direction in which its signed area has this sign."""
    after = np.roll(ring, -1, axis=0)
    area = float(np.sum(ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]))
    return ring if area * sign > 0 else ring[::-1]


def _drop_straight(ring: Ring) -> Ring:
    """Drop repeated vertices and those on a straight line between their neighbours."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    return ring[turns] if turns.sum() >= 4 else ring


def _simplify(ring: Ring, tolerance_px: float) -> Ring:
    simplified = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance_px, True)[:, 0].astype(
        np.float64
    )
    # Too small for this tolerance: a small part or hole is kept as it is, never lost.
    return simplified if len(simplified) >= 4 else ring


def _is_close(rings: Sequence[Ring], part_hw: BoolMask) -> bool:
    # A line through pixel centres falls on either side once it is rounded to percent: count it as wrong.
    first = _fill([ring - NUDGE_PX for ring in rings], part_hw.shape, "polygon")
    second = _fill([ring + NUDGE_PX for ring in rings], part_hw.shape, "polygon")
    union = np.count_nonzero(first | second | part_hw)
    return bool(np.count_nonzero(first & second & part_hw) >= MIN_IOU * union)


def _is_simple(rings: Sequence[Ring]) -> bool:
    return bool(shapely.is_valid(shapely.Polygon(rings[0], rings[1:])))


def join_holes(outer: Ring, holes: Sequence[Ring]) -> Ring:
    """Return one ring: at the outer vertex nearest to each hole, walk to the hole, around it, and back."""
    if not holes:
        return outer
    from scipy.spatial import cKDTree  # a quarter of a second, for polygons with holes alone

    tree = cKDTree(outer)
    inserts: dict[int, list[Ring]] = {}
    for hole in holes:
        distances, nearest = tree.query(hole)
        start = int(np.argmin(distances))
        at = int(nearest[start])
        walked = np.roll(hole, -start, axis=0)
        inserts.setdefault(at, []).append(np.concatenate([walked, walked[:1], outer[at : at + 1]]))
    pieces = []
    for index in range(len(outer)):
        pieces.append(outer[index : index + 1])
        pieces.extend(inserts.get(index, ()))
    return np.concatenate(pieces)


def _fill(rings: Sequence[Ring], shape_hw: tuple[int, ...], place: str) -> BoolMask:
    """Return bool (h, w): where the pixel centre's winding number is not 0; holes run the other way."""
    height, width = shape_hw
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    down = start[:, 1] < end[:, 1]
    # Each edge from its upper to its lower end: a bridge walked both ways then crosses rows at equal places.
    upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    spans = last - first
    total = int(spans.sum())
    if total > MAX_CROSSINGS:
        raise _broken(place, f"at most {MAX_CROSSINGS} crossings of rows", str(total))
    edge = np.repeat(np.arange(len(start)), spans)
    rows = np.arange(total) - np.repeat(np.cumsum(spans) - spans - first, spans)
    slope = (lower[:, 0] - upper[:, 0]) / np.where(spans > 0, lower[:, 1] - upper[:, 1], 1.0)
    crossing = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope[edge]
    # So that the same edge crosses at the same place in every crop.
    crossing = np.round(crossing * CROSSING_GRID) / CROSSING_GRID
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    # In the order of pixels; a row's last column is the next one's first, and its winding comes out as 0.
    ordered = np.sort((rows * width + columns) * 2 + down[edge])
    winding = np.cumsum((ordered & 1) * 2 - 1)
    bounds = ordered >> 1
    lengths = np.diff(bounds, prepend=0, append=height * width)
    filled: BoolMask = np.repeat(np.append(False, winding != 0), lengths).reshape(height, width)
    return filled


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="draw the region again in Label Studio")
