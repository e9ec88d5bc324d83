"""Does the image's own border agree with the drawn one? Colours deep inside a region against those around it.

A model's masks have a quarter of its input's resolution: on small objects a border that is a pixel or two off
lies within one of their cells. The image has all its pixels. The region's middle is the object even where its
border is poorly drawn, and what is farther away is not; the pixels in between go to the side they look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.appearance import covered_on_view, on_view
from maskloop.curation.review.outline import BAND, cross_entropy
from maskloop.masks import window_around
from maskloop.types import BoolMask, Segment

__all__ = ["NOTHING_LOCAL", "LocalColours"]

NOTHING_LOCAL = {  # what is said of a segment where its colours are not told from those around it
    "local_band": float(np.log(2)),  # cross-entropy in the band along the outline
    "local_iou": 0.5,  # with the pixels that look like its middle
    "local_outside": 0.2,  # such pixels outside it, as a share of its area
    "local_inside": 0.2,  # share of it that does not look like its middle
    "local_distance": 0.1,  # mean distance of its outline from that of these pixels, in edges of a square
    "local_apart": 0.0,  # how far the middle's colours are from those around, in standard deviations
}
REACH = 0.5  # of the square root of the area: the window around a region
MIDDLE = 0.5  # share of the region's pixels that is farthest from its outline
AROUND = 0.15  # of the square root of the area: what is farther outside is not the object
NEAR = 0.35  # of it: what is farther outside is not asked
MOST_SIDE = 96  # pixels of a window's longer side; of a larger one only some rows and columns are read
LEAST_PIXELS = 5  # of the middle and of what is around
LEAST_VARIANCE = 4.0  # of a colour channel, 0..255: noise of a photo
OPENED = 60  # pixels: threads are cut off what is larger
MOST_APART = 8.0


class LocalColours:
    """One image's view with its regions."""

    def __init__(
        self, lab_hwc: NDArray[np.uint8], regions: Sequence[Segment], size_hw: tuple[int, int]
    ) -> None:
        """Keep the view.

        Args:
            lab_hwc: uint8 (h, w, 3), CIE Lab, of the whole image.
            regions: of the image; pixels of others say nothing of what is around one.
            size_hw: of the image.
        """
        self._lab_hwc, self._size_hw = lab_hwc, size_hw
        self._view_hw = (lab_hwc.shape[0], lab_hwc.shape[1])
        self._covered_hw = covered_on_view(regions, size_hw, self._view_hw)

    def numbers(self, segment: Segment) -> dict[str, float]:
        """Return what the colours say of a segment's border, by the names of `NOTHING_LOCAL`."""
        offset_yx, mask_hw = on_view(segment, self._size_hw, self._view_hw)
        if not mask_hw.any():
            return dict(NOTHING_LOCAL)
        reach = max(3, round(REACH * float(np.sqrt(mask_hw.sum()))))
        seen = replace(segment, mask_hw=mask_hw, offset_yx=offset_yx)
        drawn_hw, (first, start) = window_around(seen, self._view_hw, reach)
        step = -(-max(drawn_hw.shape) // MOST_SIDE)
        window = (
            slice(first, first + drawn_hw.shape[0], step),
            slice(start, start + drawn_hw.shape[1], step),
        )
        drawn_hw = np.asarray(drawn_hw[::step, ::step]).copy()
        others_hw = self._covered_hw[window] & ~drawn_hw
        return _compare(drawn_hw, others_hw, self._lab_hwc[window].astype(np.float64))


def _compare(drawn_hw: BoolMask, others_hw: BoolMask, lab_hwc: NDArray[np.float64]) -> dict[str, float]:
    area = int(drawn_hw.sum())
    if area < LEAST_PIXELS or drawn_hw.all():
        return dict(NOTHING_LOCAL)
    edge = float(np.sqrt(area))
    # where the image ends no border is drawn: what lies beyond is neither near nor far
    within_hw, beyond_hw = (
        np.asarray(cv2.distanceTransform(one.view(np.uint8), cv2.DIST_L2, 5), dtype=np.float32)
        for one in (drawn_hw, ~drawn_hw)
    )
    middle_hw = drawn_hw & (within_hw >= np.quantile(within_hw[drawn_hw], 1 - MIDDLE))
    around_hw = (beyond_hw > max(1.5, AROUND * edge)) & ~others_hw
    if min(middle_hw.sum(), around_hw.sum()) < LEAST_PIXELS:
        return dict(NOTHING_LOCAL)
    logit_hw, apart = _discriminant(lab_hwc, middle_hw, around_hw)
    probs_hw = (1 / (1 + np.exp(-np.clip(logit_hw, -20, 20)))).astype(np.float32)
    reach = max(1, round(BAND * edge))
    band_hw = (beyond_hw <= reach) & (within_hw <= reach) & ~others_hw
    alike_hw = _connected((probs_hw > 0.5) & ~others_hw & (beyond_hw <= NEAR * edge + 1), middle_hw)
    shared = int((alike_hw & drawn_hw).sum())
    return {
        "local_band": cross_entropy(probs_hw, drawn_hw, band_hw),
        "local_iou": shared / max(1, int((alike_hw | drawn_hw).sum())),
        "local_outside": (int(alike_hw.sum()) - shared) / area,
        "local_inside": (area - shared) / area,
        "local_distance": _distance(drawn_hw, alike_hw, others_hw) / edge,
        "local_apart": min(apart, MOST_APART),
    }


def _discriminant(
    lab_hwc: NDArray[np.float64], middle_hw: BoolMask, around_hw: BoolMask
) -> tuple[NDArray[np.float64], float]:
    """Return the log odds (h, w) that a pixel is like the middle, and the distance of both in deviations.

    Source: Fisher 1936, The use of multiple measurements in taxonomic problems.
    """
    middle_nc, around_nc = lab_hwc[middle_hw], lab_hwc[around_hw]
    means = middle_nc.mean(axis=0), around_nc.mean(axis=0)
    spread_cc = (
        np.cov(middle_nc.T, ddof=0) * len(middle_nc) + np.cov(around_nc.T, ddof=0) * len(around_nc)
    ) / (len(middle_nc) + len(around_nc))
    direction_c = np.linalg.solve(spread_cc + LEAST_VARIANCE * np.eye(3), means[0] - means[1])
    logit_hw = (lab_hwc - (means[0] + means[1]) / 2) @ direction_c
    return logit_hw, float(np.sqrt(max(0.0, direction_c @ (means[0] - means[1]))))


def _connected(alike_hw: BoolMask, middle_hw: BoolMask) -> BoolMask:
    """Return the part that has most of the middle."""
    opened_hw: Any = alike_hw.astype(np.uint8)
    if opened_hw.sum() > OPENED:
        opened_hw = cv2.morphologyEx(opened_hw, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts_hw = cv2.connectedComponents(opened_hw)
    inside_p = np.bincount(parts_hw[middle_hw], minlength=count)
    inside_p[0] = 0
    return np.asarray((parts_hw == inside_p.argmax()) & (inside_p.max() > 0))


def _distance(drawn_hw: BoolMask, alike_hw: BoolMask, others_hw: BoolMask) -> float:
    """Return the mean distance of the drawn outline from the other one, in pixels."""
    outline_hw = _outline(drawn_hw) & ~others_hw
    if not outline_hw.any():
        return 0.0
    if not alike_hw.any():
        return float(np.sqrt(drawn_hw.sum())) / 2
    away_hw = cv2.distanceTransform((~_outline(alike_hw)).astype(np.uint8), cv2.DIST_L2, 5)
    return float(away_hw[outline_hw].mean())


def _outline(mask_hw: BoolMask) -> BoolMask:
    drawn_hw, kernel = mask_hw.astype(np.uint8), np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(drawn_hw, kernel) != cv2.erode(drawn_hw, kernel))
