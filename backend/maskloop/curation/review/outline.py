"""Numbers of a region's outline: its shape, and how well probabilities fit it."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.types import BoolMask, Segment

__all__ = ["BAND", "LEAST", "MOST_LOSS", "cross_entropy", "outline_shape"]

BAND = 0.08  # of the square root of the area: half the width of the band along an outline
LEAST = 1e-3  # probability
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
