"""A mask moved to the image's edges: the model's masks have a quarter of its resolution, colours have all."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.interactive.prompt import Prompt
from maskloop.types import BoolMask, RgbImage

__all__ = ["snap_mask"]

MOST_SIDE = 96  # pixels of the window in which colours are compared: its time grows with their number
MARGIN = 0.2  # of the mask's sides, around it
LEAST_IOU = 0.3  # with the mask before: colours that say something else do not belong to this object
ITERATIONS = 2
SURE = 0.25  # of the square root of the area: what is farther from the border than this stays as it is


def snap_mask(mask_hw: BoolMask, image: RgbImage, grid_hw: tuple[int, int], prompt: Prompt) -> BoolMask:
    """Return the mask with its border where colours change.

    Args:
        mask_hw: bool (H, W), of the whole image, not empty.
        image: uint8 RGB, of any size.
        grid_hw: the size of the masks that the model makes.
        prompt: its clicks keep their side.

    Returns:
        The mask itself where colours do not tell the object from its surroundings, or where the model's own
        masks are finer than what is compared here.

    Source:
        Rother et al., "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts", SIGGRAPH 2004.
    """
    height, width = mask_hw.shape
    left, top, across, down = cv2.boundingRect(mask_hw.astype(np.uint8))
    pad_x, pad_y = int(MARGIN * across) + 4, int(MARGIN * down) + 4
    x0, y0 = max(0, left - pad_x), max(0, top - pad_y)
    x1, y1 = min(width, left + across + pad_x), min(height, top + down + pad_y)
    scale = min(1.0, MOST_SIDE / max(x1 - x0, y1 - y0))
    size_wh = max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale))
    cells = max((x1 - x0) / width * grid_hw[1], (y1 - y0) / height * grid_hw[0])
    if cells > max(size_wh):
        return mask_hw
    window_hw = mask_hw[y0:y1, x0:x1].astype(np.uint8)
    before_hw = np.asarray(cv2.resize(window_hw, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    marks_hw = _marks(before_hw, cells / max(size_wh))
    for click in prompt.clicks:
        place = int((click.x * width - x0) * scale), int((click.y * height - y0) * scale)
        cv2.circle(marks_hw, place, 1, cv2.GC_FGD if click.is_positive else cv2.GC_BGD, -1)
    if not {cv2.GC_FGD, cv2.GC_PR_FGD} & set(np.unique(marks_hw)) or not {cv2.GC_BGD, cv2.GC_PR_BGD} & set(
        np.unique(marks_hw)
    ):
        return mask_hw
    colours = _crop(image, (x0 / width, y0 / height, x1 / width, y1 / height), size_wh)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(colours, marks_hw, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    after_hw = (marks_hw == cv2.GC_FGD) | (marks_hw == cv2.GC_PR_FGD)
    both = np.count_nonzero(after_hw & (before_hw > 0))
    if both < LEAST_IOU * np.count_nonzero(after_hw | (before_hw > 0)):
        return mask_hw
    snapped_hw: BoolMask = np.zeros_like(mask_hw)
    shares_hw = cv2.resize(after_hw.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    snapped_hw[y0:y1, x0:x1] = shares_hw > 0.5
    return snapped_hw


def _marks(before_hw: NDArray[np.uint8], cells_per_pixel: float) -> NDArray[np.uint8]:
    """Return what is surely and what is probably the object."""
    inside_hw = (before_hw > 0).astype(np.uint8)
    sure = SURE * float(np.sqrt(inside_hw.sum())) + 1 / max(cells_per_pixel, 1e-6)
    within_hw = cv2.distanceTransform(np.pad(inside_hw, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    beyond_hw = cv2.distanceTransform(1 - inside_hw, cv2.DIST_L2, 5)
    marks_hw = np.where(inside_hw > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks_hw[within_hw > sure] = cv2.GC_FGD
    marks_hw[beyond_hw > 2 * sure] = cv2.GC_BGD
    return marks_hw


def _crop(image: RgbImage, window: tuple[float, float, float, float], size_wh: tuple[int, int]) -> RgbImage:
    height, width = image.shape[:2]
    left, top = int(window[0] * width), int(window[1] * height)
    right, bottom = max(left + 1, round(window[2] * width)), max(top + 1, round(window[3] * height))
    crop = image[top:bottom, left:right]
    smaller = crop.shape[1] >= size_wh[0]
    return np.asarray(
        cv2.resize(crop, size_wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    )
