"""Polygons of neighbouring segments with shared borders: simplified once, the same on both sides, no gaps.

All segments are traced on one pixel grid into a coverage, which GEOS simplifies as a whole; `rings.py` draws
each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from maskloop.polygons.outlines import Ring
from maskloop.polygons.rings import join_holes, ring_to_crop, turn_ring
from maskloop.types import Segment

__all__ = ["segments_to_shared_rings"]

MIN_IOU = 0.98  # of all labelled pixels together
MIN_SEGMENT_IOU = 0.9  # of each segment: a border that moves by a pixel costs a small one more
SHRINK, GROW = 0.8, 1.5
MIN_TOLERANCE_PX, MAX_TOLERANCE_PX = 0.2, 16.0


def segments_to_shared_rings(
    segments: Sequence[Segment], size_hw: tuple[int, int], *, tolerance_px: float, max_vertices: int
) -> list[list[Ring]]:
    """Return each segment's rings, the largest part first, holes cut in by keyholes.

    Where two segments touch, both rings have the same vertices, so together they leave no pixel out. Borders
    drawn in steps are smoothed, and corners are dropped by Visvalingam and Whyatt within `tolerance_px`; less
    where the IoU of all pixels would fall below 0.98 or that of a segment below 0.9, more where a ring has
    too many vertices and the IoU allows it.

    Args:
        segments: of one image; where two overlap, the pixel is the first one's.
        size_hw: the image's height and width.
        tolerance_px: the root of the area that a dropped corner may cut; 0 keeps every corner.
        max_vertices: how many vertices a ring should have at most.

    Source:
        https://shapely.readthedocs.io/en/stable/reference/shapely.coverage_simplify.html
    """
    index_hw = _to_index_map(segments, size_hw)
    lines = _trace_lines(index_hw)
    exact = _polygonize(lines)
    owners = index_hw[tuple(_inner_pixels(exact).T[::-1])]
    chosen = _group(exact, owners, len(segments))
    if tolerance_px <= 0 or not segments:
        return chosen
    faces = _smooth_faces(lines, exact, size_hw)
    tolerance = tolerance_px
    while tolerance >= MIN_TOLERANCE_PX:
        coarse = _group(_simplified(faces, tolerance), owners, len(segments))
        if _is_close(coarse, index_hw, len(segments)):
            chosen = coarse
            break
        tolerance *= SHRINK
    while _longest(chosen) > max_vertices and MIN_TOLERANCE_PX <= tolerance < MAX_TOLERANCE_PX:
        tolerance *= GROW
        coarse = _group(_simplified(faces, tolerance), owners, len(segments))
        if not _is_close(coarse, index_hw, len(segments)):
            break
        chosen = coarse
    return chosen


def _to_index_map(segments: Sequence[Segment], size_hw: tuple[int, int]) -> NDArray[np.int32]:
    """Return int32 (H, W): 1 + the index of the first segment there, 0 where there is none."""
    index_hw = np.zeros(size_hw, dtype=np.int32)
    for index in reversed(range(len(segments))):
        top, left, bottom, right = segments[index].box_yxyx
        target = index_hw[top:bottom, left:right]
        target[segments[index].mask_hw[: target.shape[0], : target.shape[1]]] = index + 1
    return index_hw


def _trace_lines(index_hw: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (N, 2, 2): x, y of both ends of each straight border of two indices, cut where borders meet.

    The image's edge is a border, too.
    """
    padded = np.pad(index_hw, 1, constant_values=-1)
    above = padded[:-1, 1:-1] != padded[1:, 1:-1]  # (H + 1, W): horizontal edges
    beside = padded[1:-1, :-1] != padded[1:-1, 1:]  # (H, W + 1): vertical edges
    crossed_by_vertical = np.zeros((above.shape[0], beside.shape[1]), dtype=np.bool_)
    crossed_by_vertical[:-1] |= beside
    crossed_by_vertical[1:] |= beside
    crossed_by_horizontal = np.zeros_like(crossed_by_vertical)
    crossed_by_horizontal[:, :-1] |= above
    crossed_by_horizontal[:, 1:] |= above
    return np.concatenate(
        [_runs(above, crossed_by_vertical), _runs(beside.T, crossed_by_horizontal.T)[:, :, ::-1]]
    )


def _polygonize(lines: NDArray[Any]) -> NDArray[Any]:
    """Return the polygons of all areas between the lines, background included."""
    collected = shapely.polygonize(shapely.linestrings(lines.astype(np.float64)))
    faces: NDArray[Any] = shapely.get_parts(collected)
    return faces


def _inner_pixels(faces: NDArray[Any]) -> NDArray[np.int64]:
    """Return (N, 2): x, y of one pixel inside each face made of whole pixels."""
    inner = shapely.point_on_surface(faces)
    pixels: NDArray[np.int64] = np.floor(shapely.get_coordinates(inner)).astype(np.int64)
    return pixels


def _smooth_faces(lines: NDArray[np.int64], exact: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    """Return the faces with the steps of slanted borders cut, in the order of the exact ones.

    A corner goes where exactly two lines meet and one is a single pixel long: from the middle of the one to
    the middle of the other no pixel's centre changes sides, and no two such cuts cross.
    """
    height, width = size_hw
    ends = lines.reshape(-1, 2)
    vertex = ends[:, 1] * (width + 1) + ends[:, 0]
    is_short = np.repeat(np.abs(lines[:, 1] - lines[:, 0]).sum(axis=1) == 1, 2)
    vertices = (height + 1) * (width + 1)
    is_cut = (np.bincount(vertex, minlength=vertices) == 2) & (
        np.bincount(vertex[is_short], minlength=vertices) > 0
    )
    corner_x, corner_y = np.array([0, width]), np.array([0, height])
    is_cut[(corner_y[:, None] * (width + 1) + corner_x).ravel()] = False
    middles = np.repeat(lines.mean(axis=1), 2, axis=0)
    goes = is_cut[vertex]
    halves = np.stack([ends[~goes].astype(np.float64), middles[~goes]], axis=1)
    order = np.flatnonzero(goes)[np.argsort(vertex[goes], kind="stable")]
    cuts = middles[order].reshape(-1, 2, 2)
    smooth = _polygonize(np.concatenate([halves, cuts]))
    centres = shapely.points(_inner_pixels(exact) + 0.5)
    found, faces = shapely.STRtree(smooth).query(centres, predicate="within")
    if len(smooth) != len(exact) or not np.array_equal(found, np.arange(len(exact))):
        return exact
    ordered: NDArray[Any] = smooth[faces]
    return ordered


def _simplified(faces: NDArray[Any], tolerance: float) -> NDArray[Any]:
    # The image's edge stays: a corner of the image that is cut off would be a gap.
    simple: NDArray[Any] = shapely.coverage_simplify(faces, tolerance, simplify_boundary=False)
    return simple


def _runs(edges: NDArray[np.bool_], stops: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (N, 2, 2): x, y of both ends of each straight run of edges along axis 1, cut at the stops."""
    padded = np.pad(edges, ((0, 0), (1, 1)))
    begins = padded[:, 1:] & (~padded[:, :-1] | stops)
    ends = padded[:, :-1] & (~padded[:, 1:] | stops)
    first, last = np.argwhere(begins), np.argwhere(ends)
    return np.stack([first[:, ::-1], last[:, ::-1]], axis=1)


def _group(faces: NDArray[Any], owners: NDArray[np.int32], count: int) -> list[list[Ring]]:
    grouped: list[list[Ring]] = [[] for _ in range(count)]
    for at in np.argsort(-shapely.area(faces), kind="stable"):
        if owners[at] > 0:
            outer, *holes = (shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(faces[at]))
            ring = join_holes(turn_ring(outer, 1), [turn_ring(hole, -1) for hole in holes])
            grouped[owners[at] - 1].append(ring)
    return grouped


def _is_close(rings: Sequence[Sequence[Ring]], index_hw: NDArray[np.int32], count: int) -> bool:
    drawn_hw = np.zeros_like(index_hw)
    for index, parts in enumerate(rings, start=1):
        for ring in parts:
            crop_hw, (top, left) = ring_to_crop(ring, (index_hw.shape[0], index_hw.shape[1]))
            drawn_hw[top : top + crop_hw.shape[0], left : left + crop_hw.shape[1]][crop_hw] = index
    right = np.bincount(index_hw[drawn_hw == index_hw], minlength=count + 1)[1:]
    union = (
        np.bincount(index_hw.ravel(), minlength=count + 1)
        + np.bincount(drawn_hw.ravel(), minlength=count + 1)
    )[1:] - right
    return bool(right.sum() >= MIN_IOU * union.sum() and (right >= MIN_SEGMENT_IOU * union).all())


def _longest(rings: Sequence[Sequence[Ring]]) -> int:
    return max((len(ring) for parts in rings for ring in parts), default=0)
