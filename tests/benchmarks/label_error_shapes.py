"""The errors that the benchmark draws: in other ways than those that the ranking calibrates itself on."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from maskloop.curation.review.injection import ErrorShapes
from maskloop.masks import mask_to_segment, paste_segment, segment_iou
from maskloop.types import Segment


def coarse_polygon(segment: Segment, size_hw: tuple[int, int], rng: np.random.Generator) -> Segment | None:
    """Return the region as drawn with a few careless clicks: IoU with the object is .5 to .85."""
    mask_hw = paste_segment(segment, size_hw).astype(np.uint8)
    outlines, _ = cv2.findContours(mask_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)[:, 0].astype(np.float64)
    middle = outline.mean(axis=0)
    for _ in range(20):
        corners = int(rng.integers(4, 8))
        first = rng.integers(len(outline))
        picked = outline[(first + np.arange(corners) * len(outline) // corners) % len(outline)]
        picked = middle + (picked - middle) * rng.uniform(0.7, 1.45, (corners, 1))
        drawn_hw = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(drawn_hw, [np.rint(picked).astype(np.int32)], 1)
        drawn = mask_to_segment(drawn_hw > 0, label=segment.label)
        if drawn is not None and 0.5 <= segment_iou(drawn, segment) <= 0.85:
            return drawn
    return None


def blob(
    segment: Segment,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    is_free: Callable[[Segment], bool],
) -> Segment | None:
    """Return a turned ellipse of about the segment's area at a free place."""
    for _ in range(40):
        stretch = rng.uniform(1.0, 2.0)
        radius = np.sqrt(segment.area * rng.uniform(0.5, 1.5) / np.pi)
        axes = (max(2, round(radius * np.sqrt(stretch))), max(2, round(radius / np.sqrt(stretch))))
        middle = (int(rng.integers(size_hw[1])), int(rng.integers(size_hw[0])))
        drawn_hw = np.zeros(size_hw, np.uint8)
        cv2.ellipse(drawn_hw, middle, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        drawn = mask_to_segment(drawn_hw > 0, label=segment.label)
        if drawn is not None and drawn.area >= segment.area / 4 and is_free(drawn):
            return drawn
    return None


def drawn_again(segment: Segment, size_hw: tuple[int, int], rng: np.random.Generator) -> Segment | None:
    """Return the region with a smoother and slightly larger or smaller outline."""
    mask_hw = paste_segment(segment, size_hw).astype(np.float32)
    blurred_hw = cv2.GaussianBlur(mask_hw, (0, 0), max(0.8, 0.06 * np.sqrt(segment.area)))
    return mask_to_segment(blurred_hw > rng.uniform(0.35, 0.65), label=segment.label)


def across(segment: Segment, rng: np.random.Generator) -> float:
    """Return the angle of a cut across the longer side of the box, give or take 20 degrees."""
    height, width = segment.mask_hw.shape
    return float((0.0 if height > width else np.pi / 2) + rng.uniform(-0.35, 0.35))


BENCHMARK = ErrorShapes(outline=coarse_polygon, angle=across, copy=drawn_again, spurious=blob)
