"""Masks as polygons and back: rings in pixel-edge coordinates, where pixel (r, c) covers c..c+1 by r..r+1.

Label Studio's polygon region is one ring. A segment of several parts therefore becomes several rings, and a
hole is cut into its part by a bridge of zero width (a keyhole), which every fill rule leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from maskloop.polygons.crossings import broken_drawing, fill_rings
from maskloop.polygons.outlines import Ring, trace_parts
from maskloop.polygons.simplify import simplify_parts
from maskloop.types import BoolMask, Segment

__all__ = [
    "join_holes",
    "percent_to_ring",
    "ring_to_crop",
    "ring_to_percent",
    "rings_to_mask",
    "segments_to_rings",
    "turn_ring",
]

TOLERANCE_PX = 1.0
GRID = 2**12  # steps a pixel, of vertices from outside
MAX_VERTICES = 200
MAX_READ_VERTICES = 1_000_000  # of a ring from outside
MAX_READ_PERCENT = 1e6  # larger numbers are damage
SHEET_PIXELS, SHEET_ROWS = 2**22, 2**13  # of segments that are drawn together, unless one alone is larger


def segments_to_rings(
    segments: Sequence[Segment], *, tolerance_px: float = TOLERANCE_PX, max_vertices: int = MAX_VERTICES
) -> list[list[Ring]]:
    """Return for each segment one closed ring per part, the largest part first, holes cut in by keyholes.

    Each part is simplified by `simplify_parts`: a high IoU is more important than few vertices.

    Args:
        segments: of one image or of several; parts are what is connected by edges, not by corners.
        tolerance_px: how far the outline may move; 0 keeps every corner of every pixel.
        max_vertices: how many vertices a ring should have at most.

    Returns:
        Rings (N, 2) of x, y in pixels of the whole image, N >= 4, the last vertex not repeating the first.
    """
    drawn: list[list[Ring]] = []
    for sheet in _sheets(segments):
        parts = trace_parts([segment.mask_hw for segment in sheet])
        shapes: Sequence[Sequence[Ring]] = [part.rings for part in parts]
        if tolerance_px > 0:
            shapes = simplify_parts(shapes, tolerance_px=tolerance_px, max_vertices=max_vertices)
        first = len(drawn)
        drawn.extend([] for _ in sheet)
        for part, rings in zip(parts, shapes, strict=True):
            top, left = sheet[part.mask].offset_yx
            drawn[first + part.mask].append(join_holes(rings[0], rings[1:]) + np.array([left, top], float))
    return drawn


def _sheets(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield the segments in groups, which bounds the memory that working on them at once takes."""
    sheet: list[Segment] = []
    pixels = rows = 0
    for segment in segments:
        pixels, rows = pixels + segment.mask_hw.size, rows + segment.mask_hw.shape[0]
        if sheet and (pixels > SHEET_PIXELS or rows > SHEET_ROWS):
            yield sheet
            sheet, pixels, rows = [], segment.mask_hw.size, segment.mask_hw.shape[0]
        sheet.append(segment)
    if sheet:
        yield sheet


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
        raise broken_drawing(place, f"3 to {MAX_READ_VERTICES} points of x and y", f"shape {ring.shape}")
    if not np.isfinite(ring).all():
        raise broken_drawing(place, "finite points", "inf or nan")
    height, width = size_hw
    left, top = (max(0, math.floor(low)) for low in np.clip(ring.min(axis=0), 0, (width, height)))
    right, bottom = (math.ceil(high) for high in np.clip(ring.max(axis=0), 0, (width, height)))
    shape_hw = (max(0, bottom - top), max(0, right - left))
    if 0 in shape_hw:
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    return fill_rings([ring - (left, top)], shape_hw, place), (top, left)


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
        raise broken_drawing(place, f"3 to {MAX_READ_VERTICES} points", got)
    try:
        percent = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise broken_drawing(place, "pairs of numbers", str(exc)) from exc
    if percent.shape != (len(points), 2) or not np.isfinite(percent).all():
        raise broken_drawing(place, "pairs of finite numbers", f"shape {percent.shape}")
    if np.abs(percent).max() > MAX_READ_PERCENT:
        raise broken_drawing(place, f"points within {MAX_READ_PERCENT:.0f} %", f"{np.abs(percent).max():g}")
    height, width = size_hw
    # Undo the rounding of the percent exactly, so that neighbours share their borders.
    ring: Ring = np.round(percent * (width / 100.0, height / 100.0) * GRID) / GRID
    return ring


def turn_ring(ring: Ring, sign: int) -> Ring:
    """Return the ring walked in the direction in which its signed area has this sign."""
    after = np.roll(ring, -1, axis=0)
    area = float(np.sum(ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]))
    return ring if area * sign > 0 else ring[::-1]


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
