"""What an image itself says of its objects: their colours against those around them, and edges on outlines.

A model that has learnt little says little; the colours of an image's other regions still tell an object from
what is none on many images. How much that is worth in a project is for the calibration to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskloop.curation.review.outline import BAND, cross_entropy
from maskloop.types import BoolMask, RgbImage, Segment

__all__ = ["Appearance", "ColourModel", "appearance_of", "covered_on_view", "on_view"]

LONGEST = 320  # pixels of a view's longer side
FINE_LONGEST = 512  # of the view on which borders are compared
COLOURS = 24  # of a view
ALIKE_PIXELS = 40.0  # of the whole view's colours, that count as objects'
RARE = 0.01  # share of the pixels: a colour must be more frequent to say something
UNKNOWN = {  # what is said of a segment where the image says nothing
    "colour_inside": 0.5,  # mean over its pixels: how far their colours are objects'
    "colour_ring": 0.5,  # the same in a band around it
    "colour_band": float(np.log(2)),  # cross-entropy in the band along the outline
    "edge": 1.0,  # mean gradient on the outline, in means of the image
    "edge_gain": 0.0,  # that less the mean of outlines a little inside and outside
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """A small view of an image."""

    colours_hw: NDArray[np.uint8]  # (h, w): number of the colour among the view's own
    edges_hw: NDArray[np.float16]  # (h, w): length of the gradient, mean 1
    lab_hwc: NDArray[np.uint8]  # (H', W', 3): CIE Lab of a finer view


def appearance_of(image: RgbImage) -> Appearance:
    """Return the view of an image.

    Args:
        image: uint8 (H, W, 3), upright RGB.
    """
    smooth_hwc = _smooth_view(image, LONGEST)
    palette = Image.fromarray(smooth_hwc).quantize(COLOURS, dither=Image.Dither.NONE)
    lab_hwc = cv2.cvtColor(smooth_hwc, cv2.COLOR_RGB2LAB).astype(np.float32)
    steps = [cv2.Sobel(lab_hwc, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1))]
    edges_hw = np.sqrt(sum(np.square(step).sum(axis=2) for step in steps))
    return Appearance(
        colours_hw=np.asarray(palette, dtype=np.uint8),
        edges_hw=(edges_hw / max(float(edges_hw.mean()), 1e-3)).astype(np.float16),
        lab_hwc=np.asarray(
            cv2.cvtColor(_smooth_view(image, FINE_LONGEST), cv2.COLOR_RGB2LAB), dtype=np.uint8
        ),
    )


def _smooth_view(image: RgbImage, longest: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    view_hwc = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(view_hwc, (3, 3), 0), dtype=np.uint8)


def on_view(
    segment: Segment, size_hw: tuple[int, int], view_hw: tuple[int, int]
) -> tuple[tuple[int, int], BoolMask]:
    """Return a segment's mask at the pixels of a smaller view: where its box begins, and bool (h, w).

    Args:
        segment: in the image's pixels.
        size_hw: of the image.
        view_hw: of the view.
    """
    top, left, bottom, right = segment.box_yxyx
    rows = ((np.arange(view_hw[0]) + 0.5) * size_hw[0] / view_hw[0]).astype(np.int64)
    columns = ((np.arange(view_hw[1]) + 0.5) * size_hw[1] / view_hw[1]).astype(np.int64)
    first, last = np.searchsorted(rows, (top, bottom))
    start, end = np.searchsorted(columns, (left, right))
    mask_hw = segment.mask_hw[rows[first:last, None] - top, columns[None, start:end] - left]
    return (int(first), int(start)), mask_hw


def covered_on_view(
    segments: Sequence[Segment], size_hw: tuple[int, int], view_hw: tuple[int, int]
) -> BoolMask:
    """Return which pixels of a smaller view segments cover, bool (h, w); arguments as for `on_view`."""
    covered_hw = np.zeros(view_hw, np.bool_)
    for segment in segments:
        (top, left), mask_hw = on_view(segment, size_hw, view_hw)
        covered_hw[top : top + mask_hw.shape[0], left : left + mask_hw.shape[1]] |= mask_hw
    return covered_hw


class ColourModel:
    """Which colours of one image are its regions', and which are not.

    A region is never judged by its own pixels: these count neither as object nor as the rest.
    """

    def __init__(self, appearance: Appearance, regions: Sequence[Segment], size_hw: tuple[int, int]) -> None:
        self._appearance, self._size_hw = appearance, size_hw
        self.view_hw: tuple[int, int] = appearance.colours_hw.shape  # type: ignore[assignment]
        self.covered_hw = covered_on_view(regions, size_hw, self.view_hw)
        self._object_c = self._count(appearance.colours_hw[self.covered_hw])
        self._rest_c = self._count(appearance.colours_hw[~self.covered_hw])

    def object_probs(self) -> NDArray[np.float32]:
        """Return float32 (h, w): how far a pixel's colour is an object's, 0..1; .5: both alike."""
        return self._probs(self._object_c, self._rest_c)[self._appearance.colours_hw]

    def numbers(self, segment: Segment) -> dict[str, float]:
        """Return what the view says of a segment, by the names of `UNKNOWN`."""
        (top, left), mask_hw = on_view(segment, self._size_hw, self.view_hw)
        area = int(mask_hw.sum())
        if area < 4:
            return dict(UNKNOWN)
        reach = max(1, round(BAND * np.sqrt(area)))
        window = (
            slice(max(0, top - reach - 1), top + mask_hw.shape[0] + reach + 1),
            slice(max(0, left - reach - 1), left + mask_hw.shape[1] + reach + 1),
        )
        colours_hw, edges_hw = self._appearance.colours_hw[window], self._appearance.edges_hw[window]
        drawn_hw = np.zeros(colours_hw.shape, np.uint8)
        y, x = top - window[0].start, left - window[1].start
        drawn_hw[y : y + mask_hw.shape[0], x : x + mask_hw.shape[1]] = mask_hw
        inside_hw = drawn_hw > 0
        covered_hw = self.covered_hw[window]
        own_c = self._count(colours_hw[inside_hw & covered_hw])
        own_rest_c = self._count(colours_hw[inside_hw & ~covered_hw])
        probs_hw = self._probs(self._object_c - own_c, self._rest_c - own_rest_c)[colours_hw]
        kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        grown_hw = cv2.dilate(drawn_hw, kernel)
        shrunk_hw = cv2.erode(drawn_hw, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        ring_hw = (grown_hw > 0) & ~inside_hw
        on_outline = _mean(edges_hw, _outline(drawn_hw), 1.0)
        beside = (_mean(edges_hw, _outline(grown_hw), 1.0) + _mean(edges_hw, _outline(shrunk_hw), 1.0)) / 2
        return {
            "colour_inside": _mean(probs_hw, inside_hw, 0.5),
            "colour_ring": _mean(probs_hw, ring_hw, 0.5),
            "colour_band": cross_entropy(probs_hw, inside_hw, grown_hw != shrunk_hw),
            "edge": on_outline,
            "edge_gain": on_outline - beside,
        }

    @staticmethod
    def _count(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.bincount(colours.ravel(), minlength=COLOURS).astype(np.float64)

    @staticmethod
    def _probs(object_c: NDArray[np.float64], rest_c: NDArray[np.float64]) -> NDArray[np.float32]:
        whole_c = object_c + rest_c
        # few pixels of objects say little: their colours are then like those of the whole view
        common_c = ALIKE_PIXELS * whole_c / max(float(whole_c.sum()), 1.0)
        of_object_c = (object_c + common_c) / (object_c.sum() + ALIKE_PIXELS)
        of_rest_c = rest_c / max(float(rest_c.sum()), 1.0)
        probs_c = (of_object_c + RARE) / (of_object_c + of_rest_c + 2 * RARE)
        return np.asarray(probs_c, dtype=np.float32)


def _outline(drawn_hw: NDArray[Any]) -> BoolMask:
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(drawn_hw, kernel) != cv2.erode(drawn_hw, kernel))


def _mean(values_hw: NDArray[np.float16] | NDArray[np.float32], where_hw: BoolMask, empty: float) -> float:
    return float(values_hw[where_hw].mean(dtype=np.float64)) if where_hw.any() else empty
