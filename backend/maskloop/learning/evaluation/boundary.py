"""How well two masks agree along their edges, which plain IoU hardly notices on large objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.types import BoolMask

__all__ = ["boundary_iou", "inner_rim"]


def boundary_iou(first_hw: BoolMask, second_hw: BoolMask, *, width_px: int) -> float:
    """Return the IoU of the inner rims of two masks.

    A mask's rim is made of its pixels that lie at most `width_px` from a pixel outside it, counted as a
    chess king walks. What lies beyond the image is outside.

    Args:
        first_hw: bool (H, W).
        second_hw: bool (H, W), of the same size.
        width_px: at least 1; the paper takes 2 % of the image's diagonal.

    Returns:
        0..1, where a rim wider than both masks gives their plain IoU; 1 where both are empty.

    Raises:
        ValueError: not two bool masks of one size, or a width below 1.

    Source:
        Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
        Evaluation", CVPR 2021, section 4; erosion as in their reference code.
    """
    if first_hw.dtype != np.bool_ or second_hw.dtype != np.bool_ or first_hw.ndim != 2:
        raise ValueError(
            f"boundary_iou: expected bool (H, W) twice, got {first_hw.dtype} {first_hw.shape}"
            f" and {second_hw.dtype} {second_hw.shape}"
        )
    if first_hw.shape != second_hw.shape:
        raise ValueError(f"boundary_iou: expected one size, got {first_hw.shape} and {second_hw.shape}")
    if width_px < 1:
        raise ValueError(f"boundary_iou: expected a width of at least 1 px, got {width_px}")
    first_rim_hw = inner_rim(first_hw, width_px=width_px)
    second_rim_hw = inner_rim(second_hw, width_px=width_px)
    union = np.count_nonzero(first_rim_hw | second_rim_hw)
    return np.count_nonzero(first_rim_hw & second_rim_hw) / union if union else 1.0


def inner_rim(mask_hw: BoolMask, *, width_px: int) -> BoolMask:
    """Return bool (H, W): the mask's pixels that lie at most `width_px` from a pixel outside it.

    Args:
        mask_hw: bool (H, W); what lies beyond it is outside.
        width_px: at least 1.
    """
    if not mask_hw.size:
        return mask_hw
    side = 2 * min(width_px, max(mask_hw.shape)) + 1  # beyond that nothing is left anyway
    # one axis after the other: the square's cost would grow with the square of the width
    rows_hw = _erode(mask_hw.astype(np.uint8), np.ones((side, 1), np.uint8))
    inner_hw = _erode(rows_hw, np.ones((1, side), np.uint8)).astype(np.bool_)
    return mask_hw & ~inner_hw


def _erode(mask_hw: NDArray[np.uint8], kernel_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    eroded = cv2.erode(mask_hw, kernel_hw, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return eroded.astype(np.uint8, copy=False)
