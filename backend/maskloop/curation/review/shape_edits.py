"""Changes of masks as people make them by mistake: a careless outline, a cut, a bridge, a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.masks import mask_to_segment, paste_segment, segment_iou, window_around
from maskloop.types import BoolMask, Segment

__all__ = ["bridge", "careless_outline", "cut", "moved", "shifted_copy"]

BORDER_IOU = (0.5, 0.85)  # of a poorly drawn region with the object
FARTHEST = 0.3  # of the square root of the area: how far a careless outline is from the object's
WAVES = 4  # around an outline, at most
TRIES = 8


def careless_outline(segment: Segment, size_hw: tuple[int, int], rng: np.random.Generator) -> Segment | None:
    """Return the region grown, shrunk, moved or waved: IoU with the object .5 to .85; None: not possible."""
    edge = max(1.0, np.sqrt(segment.area))
    mask_hw, corner_yx = window_around(segment, size_hw, round(edge * FARTHEST) + 2)
    edits = (_grown, _shrunk, _pushed, _waved)
    for attempt in range(TRIES):
        reach = max(1, round(edge * rng.uniform(0.08, FARTHEST)))
        drawn_hw = edits[(attempt + int(rng.integers(len(edits)))) % len(edits)](mask_hw, reach, rng)
        drawn = _placed(drawn_hw, corner_yx, segment.label)
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
    mask_hw, corner_yx = window_around(segment, size_hw, reach + 2)
    return _placed(_pushed(mask_hw, reach, rng), corner_yx, segment.label)


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


def _waved(mask_hw: BoolMask, reach: int, rng: np.random.Generator) -> BoolMask:
    """Return the mask whose outline goes in and out by up to `reach` pixels, in slow waves."""
    rows, columns = np.nonzero(mask_hw)
    y, x = np.mgrid[: mask_hw.shape[0], : mask_hw.shape[1]].astype(np.float32)
    y, x = y - np.float32(rows.mean()), x - np.float32(columns.mean())
    angle_hw, radius_hw = np.arctan2(y, x), np.hypot(y, x)
    wave_hw = np.zeros_like(angle_hw)
    for count in range(1, WAVES + 1):
        height, phase = rng.normal() / np.sqrt(count), rng.uniform(0, 2 * np.pi)
        wave_hw += np.float32(height) * np.cos(count * angle_hw + np.float32(phase))
    wave_hw *= reach / max(1e-6, float(np.abs(wave_hw).max()))
    # each pixel is read where the wave moved it from, along the ray from the middle
    moved_hw = np.maximum(radius_hw - wave_hw, 0) / np.maximum(radius_hw, 1e-6)
    return (
        cv2.remap(
            mask_hw.astype(np.uint8),
            (x * moved_hw + np.float32(columns.mean())).astype(np.float32),
            (y * moved_hw + np.float32(rows.mean())).astype(np.float32),
            cv2.INTER_NEAREST,
        )
        > 0
    )


def _placed(window_hw: BoolMask, corner_yx: tuple[int, int], label: str) -> Segment | None:
    drawn = mask_to_segment(window_hw, label=label)
    if drawn is None:
        return None
    offset_yx = (drawn.offset_yx[0] + corner_yx[0], drawn.offset_yx[1] + corner_yx[1])
    return replace(drawn, offset_yx=offset_yx)


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), dtype=np.uint8
    )
