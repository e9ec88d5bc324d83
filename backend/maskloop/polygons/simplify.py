"""Exact outlines -> rings of few vertices that fill nearly the same pixels; all parts of an image at once.

Each step works on every part that is still open: NumPy is called a few times for an image, not for a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from maskloop.polygons.crossings import overlap_shares, rings_to_shapes
from maskloop.polygons.outlines import Ring

__all__ = ["simplify_parts"]

MIN_IOU = 0.98  # between a part and its simplified rings
SMOOTHING_PX = 0.5  # how far an outline through the middles of its edges is away
SHRINK, GROW, LADDER_STEPS = 0.8, 1.5, 8  # of the tolerances that are tried
MAX_TOLERANCE_PX = 16.0
_Rings: TypeAlias = Sequence[Ring]  # of one part, the outer one first


def simplify_parts(parts: Sequence[_Rings], *, tolerance_px: float, max_vertices: int) -> list[_Rings]:
    """Return each part's rings with fewer vertices, in the same order; a part's holes all stay.

    Simplified by Douglas and Peucker, from the corners of the pixels and from the middles of their edges; the
    shorter of both outlines is taken at the largest tolerance up to `tolerance_px` at which one has an IoU of
    at least 0.98 with the part. Where it has too many vertices, the tolerance grows as far as the IoU allows.

    Args:
        parts: rings along pixel edges, in pixels.
        tolerance_px: how far an outline may move; more than 0.
        max_vertices: how many vertices a part should have at most.
    """
    work = _Work(parts)
    chosen = dict(enumerate(parts))
    pending = list(chosen)
    for step in SHRINK ** np.arange(LADDER_STEPS):
        for found in work.first_good(pending, tolerance_px * step):
            chosen[found] = min(parts[found], work.good[found], key=_count)
        pending = [part for part in pending if part not in work.good]
    pending = [part for part, rings in chosen.items() if _count(rings) > max_vertices]
    tolerance = tolerance_px
    while pending and tolerance < MAX_TOLERANCE_PX:
        tolerance *= GROW
        better = work.best_good(pending, tolerance)
        for part, rings in better.items():
            chosen[part] = min(chosen[part], rings, key=_count)
        pending = [part for part in better if _count(chosen[part]) > max_vertices]
    return [chosen[part] for part in range(len(parts))]


class _Work:
    """The parts, their smoothed outlines, what they fill, and what was found good so far."""

    def __init__(self, parts: Sequence[_Rings]) -> None:
        self.exact = parts
        self.smooth = _smooth_parts(parts)
        self.shapes = rings_to_shapes(parts)
        self.good: dict[int, _Rings] = {}

    def first_good(self, pending: Sequence[int], tolerance_px: float) -> list[int]:
        """Keep the shorter good outline of each part at this tolerance; return which parts have one."""
        tries = []
        for part in pending:
            sources = [(self.exact[part], tolerance_px)]
            if tolerance_px > SMOOTHING_PX:
                sources.append((self.smooth[part], tolerance_px - SMOOTHING_PX))
            tries.append(sorted((_simplified(*source) for source in sources), key=_count))
        found: dict[int, _Rings] = {}
        for rank in range(2):
            left = [
                (part, tried[rank])
                for part, tried in zip(pending, tries, strict=True)
                if part not in found and rank < len(tried)
            ]
            found |= self._good_of(left)
        self.good |= found
        return list(found)

    def best_good(self, pending: Sequence[int], tolerance_px: float) -> dict[int, _Rings]:
        """Return the shortest good outline at this tolerance of each part that has one."""
        best: dict[int, _Rings] = {}
        for source in (self.exact, self.smooth):
            tried = [(part, _simplified(source[part], tolerance_px)) for part in pending]
            for part, rings in self._good_of(tried).items():
                best[part] = min(best.get(part, rings), rings, key=_count)
        return best

    def _good_of(self, tried: Sequence[tuple[int, _Rings]]) -> dict[int, _Rings]:
        """Return those that fill nearly the same pixels and touch themselves only where the exact do."""
        if not tried:
            return {}
        shares = overlap_shares([self.shapes[part] for part, _ in tried], [rings for _, rings in tried])
        close = [one for one, share in zip(tried, shares, strict=True) if share >= MIN_IOU]
        valid = _are_valid([rings for _, rings in close])
        doubtful = [part for (part, _), fine in zip(close, valid, strict=True) if not fine]
        tangled = {
            part
            for part, fine in zip(doubtful, _are_valid([self.exact[part] for part in doubtful]), strict=True)
            if not fine
        }
        return {
            part: rings for (part, rings), fine in zip(close, valid, strict=True) if fine or part in tangled
        }


def _count(rings: _Rings) -> int:
    return sum(map(len, rings))


def _simplified(rings: _Rings, tolerance_px: float) -> _Rings:
    simple = [cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance_px, True)[:, 0] for ring in rings]
    # Too small for this tolerance: a small part or hole is kept as it is, never lost.
    return [
        few.astype(np.float64) if len(few) >= 4 else ring for few, ring in zip(simple, rings, strict=True)
    ]


def _are_valid(parts: Sequence[_Rings]) -> NDArray[np.bool_]:
    flat = [ring for rings in parts for ring in rings]
    if not flat:
        return np.zeros(0, dtype=np.bool_)
    ring_n = np.repeat(np.arange(len(flat)), [len(ring) for ring in flat])
    part_r = np.repeat(np.arange(len(parts)), [len(rings) for rings in parts])
    loops = shapely.linearrings(np.concatenate(flat), indices=ring_n)
    valid: NDArray[np.bool_] = shapely.is_valid(shapely.polygons(loops, indices=part_r))
    return valid


def _smooth_parts(parts: Sequence[_Rings]) -> list[_Rings]:
    """Return outlines through the middles of their edges, with the corners between edges of 2 and longer.

    So a slanted edge drawn in steps becomes the line between them, half a pixel or less away.
    """
    rings = [ring for part in parts for ring in part]
    if not rings:
        return []
    points, lengths = np.concatenate(rings), np.array([len(ring) for ring in rings])
    before, after = _neighbours(lengths)
    long_after = np.abs(points[after] - points).sum(axis=1) >= 2
    both = np.stack([points, (points + points[after]) / 2], axis=1)
    kept = np.stack([long_after[before] & long_after, np.ones_like(long_after)], axis=1)
    smooth = _without_straight(both[kept], np.add.reduceat(kept.sum(axis=1), _starts(lengths)))
    ends = np.cumsum([len(part) for part in parts])
    return [smooth[end - len(part) : end] for part, end in zip(parts, ends.tolist(), strict=True)]


def _without_straight(points: Ring, lengths: NDArray[np.int64]) -> list[Ring]:
    """Drop vertices on a straight line between their neighbours; rings that would be left with 3 stay."""
    before, after = _neighbours(lengths)
    come, go = points - points[before], points[after] - points
    turns = come[:, 0] * go[:, 1] - come[:, 1] * go[:, 0] != 0
    counts = np.add.reduceat(turns, _starts(lengths), dtype=np.int64)
    turns |= np.repeat(counts < 4, lengths)
    kept = np.where(counts < 4, lengths, counts)
    return np.split(points[turns], np.cumsum(kept)[:-1])


def _neighbours(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return of each vertex the indices of the one before and the one after it in its ring."""
    index = np.arange(int(lengths.sum()))
    starts = _starts(lengths)
    before, after = index - 1, index + 1
    before[starts], after[starts + lengths - 1] = starts + lengths - 1, starts
    return before, after


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(lengths) - lengths
