"""Numbers of a region's outline: its shape, and how well probabilities fit it."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.types import BoolMask, Segment

__all__ = ["BAND", "LEAST", "MOST_LOSS", "cross_entropy", "outline_shape", "share_at_image_edge", "waist"]

BAND = 0.08  # of the square root of the area: half the width of the band along an outline
LEAST = 1e-3  # probability
MOST_SIDE = 96  # pixels of a mask's longer side; of a larger one only some rows and columns are read
WORN = (0.3, 0.5, 0.7)  # of the greatest depth
MOST_LOSS = -float(np.log(LEAST))


def cross_entropy(probs_hw: NDArray[np.float32], truth_hw: BoolMask, where_hw: BoolMask) -> float:
    """Return the mean loss of probabilities where a mask is true; 0 where it is nowhere."""
    of_truth_hw = np.where(truth_hw, probs_hw, 1 - probs_hw)
    return -float(np.log(np.clip(of_truth_hw[where_hw], LEAST, 1)).mean()) if where_hw.any() else 0.0


def outline_shape(region: Segment) -> Mapping[str, float]:
    """Return solidity, roundness and number of parts, at most 4."""
    outlines, _ = cv2.findContours(
        np.pad(region.mask_hw.view(np.uint8), 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    points = np.concatenate([outline for outline in outlines])
    hull = float(cv2.contourArea(cv2.convexHull(points)))
    around = sum(float(cv2.arcLength(outline, True)) for outline in outlines)
    return {
        "solidity": min(1.0, region.area / max(hull + around / 2, 1.0)),
        "roundness": min(1.0, 4 * np.pi * region.area / max(around, 1.0) ** 2),
        "parts": float(min(len(outlines), 4)),
    }


def share_at_image_edge(region: Segment, size_hw: tuple[int, int]) -> float:
    """Return how many of a region's pixels lie at the image's edge, in edges of a square of its area.

    What the image cuts off is straight there and small without any mistake.
    """
    top, left, bottom, right = region.box_yxyx
    at_edge = sum(
        int(line.sum())
        for line, is_last in (
            (region.mask_hw[0], top == 0),
            (region.mask_hw[-1], bottom == size_hw[0]),
            (region.mask_hw[:, 0], left == 0),
            (region.mask_hw[:, -1], right == size_hw[1]),
        )
        if is_last
    )
    return at_edge / float(np.sqrt(region.area))


def waist(mask_hw: BoolMask) -> float:
    """Return how large a second part comes off where a mask is worn away, 0..0.5 of what is then left.

    Two objects that were drawn as one hang together at a narrow place.
    """
    step = -(-max(mask_hw.shape) // MOST_SIDE)
    drawn_hw = np.pad(mask_hw[::step, ::step].astype(np.uint8), 1)
    depth_hw = cv2.distanceTransform(drawn_hw, cv2.DIST_L2, 5)
    largest = 0.0
    for share in WORN:
        left_hw = (depth_hw > share * depth_hw.max()).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(left_hw)
        if count > 2:
            areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
            largest = max(largest, float(areas[-2] / areas.sum()))
    return largest
