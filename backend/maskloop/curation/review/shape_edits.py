"""Changes of masks as people make them by mistake: a careless outline, a cut, a bridge, a copy."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.masks import mask_to_segment, paste_segment, segment_iou
from maskloop.types import BoolMask, Segment

__all__ = ["bridge", "careless_outline", "cut", "moved", "shifted_copy"]

BORDER_IOU = (0.5, 0.85)  # of a poorly drawn region with the object
TRIES = 8


def careless_outline(segment: Segment, size_hw: tuple[int, int], rng: np.random.Generator) -> Segment | None:
    """Return the region grown, shrunk or moved: IoU with the object .5 to .85; None: not possible."""
    mask_hw = paste_segment(segment, size_hw)
    edge = max(1.0, np.sqrt(segment.area))
    for attempt in range(TRIES):
        reach = max(1, round(edge * rng.uniform(0.08, 0.3)))
        drawn_hw = (_grown, _shrunk, _pushed)[(attempt + int(rng.integers(3))) % 3](mask_hw, reach, rng)
        drawn = mask_to_segment(drawn_hw, label=segment.label)
        if drawn is not None and BORDER_IOU[0] <= segment_iou(drawn, segment) <= BORDER_IOU[1]:
            return drawn
    return None


def cut(segment: Segment, size_hw: tuple[int, int], angle: float) -> tuple[Segment, Segment] | None:
    """Return the two parts of a region on both sides of a line through its middle; None: too small."""
    mask_hw = paste_segment(segment, size_hw)
    rows, columns = np.nonzero(mask_hw)
    side = (rows - rows.mean()) * np.cos(angle) + (columns - columns.mean()) * np.sin(angle) > 0
    if min(side.sum(), (~side).sum()) < 4:
        return None
    parts = []
    for chosen in (side, ~side):
        part_hw = np.zeros(size_hw, np.bool_)
        part_hw[rows[chosen], columns[chosen]] = True
        parts.append(mask_to_segment(part_hw, label=segment.label))
    first, second = parts
    return None if first is None or second is None else (first, second)


def bridge(first: Segment, second: Segment, size_hw: tuple[int, int]) -> Segment | None:
    """Return one region of two objects and of the narrow gap between them, with the larger one's label."""
    both_hw = paste_segment(first, size_hw) | paste_segment(second, size_hw)
    gap = max(1, round(gap_between(first, second)))
    closed_hw = cv2.morphologyEx(both_hw.astype(np.uint8), cv2.MORPH_CLOSE, _disc(gap + 1)) > 0
    larger = max(first, second, key=lambda part: part.area)
    return mask_to_segment(closed_hw | both_hw, label=larger.label)


def gap_between(first: Segment, second: Segment) -> float:
    """Return the pixels between two segments' boxes; 0 where these touch."""
    one, other = first.box_yxyx, second.box_yxyx
    down = max(one[0] - other[2], other[0] - one[2], 0)
    across = max(one[1] - other[3], other[1] - one[3], 0)
    return float(np.hypot(down, across))


def shifted_copy(segment: Segment, size_hw: tuple[int, int], rng: np.random.Generator) -> Segment | None:
    """Return the region again, drawn a little elsewhere."""
    reach = max(1, round(np.sqrt(segment.area) * 0.08))
    return mask_to_segment(_pushed(paste_segment(segment, size_hw), reach, rng), label=segment.label)


def moved(
    segment: Segment,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    is_free: Callable[[Segment], bool],
) -> Segment | None:
    """Return the shape, turned by chance, at a place that is free; None where none was found."""
    height, width = size_hw
    turned_hw = np.rot90(segment.mask_hw, int(rng.integers(4)))
    if turned_hw.shape[0] > height or turned_hw.shape[1] > width:
        return None
    for _ in range(4 * TRIES):
        top = int(rng.integers(height - turned_hw.shape[0] + 1))
        left = int(rng.integers(width - turned_hw.shape[1] + 1))
        placed = Segment(mask_hw=np.ascontiguousarray(turned_hw), offset_yx=(top, left), label=segment.label)
        if is_free(placed):
            return placed
    return None


def _grown(mask_hw: BoolMask, reach: int, rng: np.random.Generator) -> BoolMask:
    del rng
    return cv2.dilate(mask_hw.astype(np.uint8), _disc(reach)) > 0


def _shrunk(mask_hw: BoolMask, reach: int, rng: np.random.Generator) -> BoolMask:
    del rng
    return cv2.erode(mask_hw.astype(np.uint8), _disc(max(1, reach // 2))) > 0


def _pushed(mask_hw: BoolMask, reach: int, rng: np.random.Generator) -> BoolMask:
    angle = rng.uniform(0, 2 * np.pi)
    matrix = np.float32([[1, 0, reach * np.cos(angle)], [0, 1, reach * np.sin(angle)]])  # type: ignore[arg-type]
    size_wh = (mask_hw.shape[1], mask_hw.shape[0])
    return cv2.warpAffine(mask_hw.astype(np.uint8), np.asarray(matrix), size_wh, flags=cv2.INTER_NEAREST) > 0


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), dtype=np.uint8
    )
