"""Shared pixels of two lists of segments, and maps of a model's own resolution at an image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.masks import segment_intersection
from maskloop.types import Segment

__all__ = ["Overlaps", "box_array", "overlaps", "read_map", "shared_pixels"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """How R regions and N objects of an image overlap."""

    iou_rn: NDArray[np.float64]
    shared_rn: NDArray[np.int64]  # pixels
    area_r: NDArray[np.int64]
    area_n: NDArray[np.int64]
    score_n: NDArray[np.float64]


def overlaps(regions: Sequence[Segment], objects: Sequence[Segment]) -> Overlaps:
    """Return the overlaps of each region with each object."""
    shared_rn = shared_pixels(regions, objects)
    area_r = np.array([region.area for region in regions], dtype=np.int64)
    area_n = np.array([segment.area for segment in objects], dtype=np.int64)
    union_rn = area_r[:, None] + area_n[None] - shared_rn
    return Overlaps(
        iou_rn=shared_rn / np.maximum(union_rn, 1),
        shared_rn=shared_rn,
        area_r=area_r,
        area_n=area_n,
        score_n=np.array([segment.score for segment in objects], dtype=np.float64),
    )


def box_array(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """Return int64 (N, 4): top, left, bottom, right of each segment."""
    return np.array([segment.box_yxyx for segment in segments], dtype=np.int64).reshape(-1, 4)


def shared_pixels(first: Sequence[Segment], second: Sequence[Segment]) -> NDArray[np.int64]:
    """Return int64 (N, M): the pixels that each of the first shares with each of the second."""
    shared_nm = np.zeros((len(first), len(second)), dtype=np.int64)
    if not first or not second:
        return shared_nm
    boxes_n4, boxes_m4 = box_array(first), box_array(second)
    top_nm = np.maximum(boxes_n4[:, None, 0], boxes_m4[None, :, 0])
    left_nm = np.maximum(boxes_n4[:, None, 1], boxes_m4[None, :, 1])
    bottom_nm = np.minimum(boxes_n4[:, None, 2], boxes_m4[None, :, 2])
    right_nm = np.minimum(boxes_n4[:, None, 3], boxes_m4[None, :, 3])
    for row, column in zip(*np.nonzero((bottom_nm > top_nm) & (right_nm > left_nm)), strict=True):
        shared_nm[row, column] = segment_intersection(first[row], second[column])
    return shared_nm


def read_map(
    values_hw: NDArray[np.float16] | NDArray[np.float32],
    size_hw: tuple[int, int],
    box_yxyx: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """Return a map's values at the pixels of a box of the image, bilinear between its own.

    Args:
        values_hw: float (h, w), over the whole image.
        size_hw: of the image.
        box_yxyx: top, left, bottom, right in pixels, inside the image.
    """
    top, left, bottom, right = box_yxyx
    scale_y, scale_x = values_hw.shape[0] / size_hw[0], values_hw.shape[1] / size_hw[1]
    rows = (np.arange(top, bottom, dtype=np.float32) + 0.5) * scale_y - 0.5
    columns = (np.arange(left, right, dtype=np.float32) + 0.5) * scale_x - 0.5
    return np.asarray(
        cv2.remap(
            values_hw.astype(np.float32),
            np.broadcast_to(columns[None], (len(rows), len(columns))).copy(),
            np.broadcast_to(rows[:, None], (len(rows), len(columns))).copy(),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        dtype=np.float32,
    )
