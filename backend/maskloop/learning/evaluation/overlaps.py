"""Shared pixels of two sets of segments of one image, pair by pair; work and memory are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import ResourceError
from maskloop.types import Segment

__all__ = ["Overlaps", "find_overlaps"]

MAX_PAIRS = 200_000  # of segments whose boxes overlap: about two seconds
MAX_PIXELS = 4_000_000_000  # compared in all: about four seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """The pairs of an N-segment set and an M-segment set that share pixels."""

    shared: dict[tuple[int, int], int]  # (position in the first set, in the second) -> pixels, all above 0
    first_areas_n: NDArray[np.int64]  # pixels
    second_areas_m: NDArray[np.int64]

    def iou(self, first: int, second: int) -> float:
        """Return the intersection over union of a pair, 0..1."""
        shared = self.shared.get((first, second), 0)
        union = int(self.first_areas_n[first]) + int(self.second_areas_m[second]) - shared
        return shared / union if union else 0.0

    def first_inside(self, first: int, second: int) -> float:
        """Return the share of a segment of the first set that lies in one of the second, 0..1."""
        return self.shared.get((first, second), 0) / max(int(self.first_areas_n[first]), 1)

    def second_inside(self, first: int, second: int) -> float:
        """Return the share of a segment of the second set that lies in one of the first, 0..1."""
        return self.shared.get((first, second), 0) / max(int(self.second_areas_m[second]), 1)


def find_overlaps(first: Sequence[Segment], second: Sequence[Segment]) -> Overlaps:
    """Return the pairs that share pixels, with the number of pixels.

    Args:
        first: segments of an image; they may overlap each other.
        second: other segments of the same image.

    Raises:
        ResourceError: more than 200000 pairs of overlapping boxes, or too many pixels to compare.
    """
    boxes_m4 = np.array([segment.box_yxyx for segment in second], dtype=np.int64).reshape(-1, 4)
    shared: dict[tuple[int, int], int] = {}
    pairs = pixels = 0
    for row, segment in enumerate(first):
        top, left, bottom, right = segment.box_yxyx
        tops_m, lefts_m = np.maximum(boxes_m4[:, 0], top), np.maximum(boxes_m4[:, 1], left)
        bottoms_m, rights_m = np.minimum(boxes_m4[:, 2], bottom), np.minimum(boxes_m4[:, 3], right)
        heights_m, widths_m = np.maximum(bottoms_m - tops_m, 0), np.maximum(rights_m - lefts_m, 0)
        near = np.flatnonzero(heights_m * widths_m)
        pairs += len(near)
        pixels += int((heights_m * widths_m).sum())
        _demand_bounded(pairs, pixels)
        for column in near:
            window = int(tops_m[column]), int(lefts_m[column]), int(bottoms_m[column]), int(rights_m[column])
            count = np.count_nonzero(_cut(segment, window) & _cut(second[column], window))
            if count:
                shared[row, int(column)] = int(count)
    return Overlaps(
        shared=shared,
        first_areas_n=np.array([segment.area for segment in first], dtype=np.int64),
        second_areas_m=np.array([segment.area for segment in second], dtype=np.int64),
    )


def _cut(segment: Segment, window_yxyx: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    y, x = segment.offset_yx
    top, left, bottom, right = window_yxyx
    return segment.mask_hw[top - y : bottom - y, left - x : right - x]


def _demand_bounded(pairs: int, pixels: int) -> None:
    if pairs > MAX_PAIRS or pixels > MAX_PIXELS:
        raise ResourceError(
            "comparison of segments",
            expected=f"at most {MAX_PAIRS} overlapping pairs and {MAX_PIXELS} pixels to compare",
            got="more",
            remedy="draw fewer overlapping regions",
        )
