"""Answers to a box: which one fills it best, and the ellipse in it where the model sees nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from maskloop.interactive.query_choice import box_overlaps
from maskloop.types import Segment

__all__ = ["ELLIPSE_WEIGHT", "WELL_FITTING", "box_fit", "ellipse_logits"]

WELL_FITTING = 0.8  # of `box_fit`: no other answer is looked for
ELLIPSE_WEIGHT = 0.8  # of its fit, which is good whatever is in the box
MOST_LOGIT = 8.0


def box_fit(segment: Segment, box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> float:
    """Return the IoU of a segment's own box and a drawn one: people draw boxes close to their object.

    Args:
        segment: an answer.
        box_xyxy: 0..1 of the image.
        size_hw: of the image.
    """
    top, left, bottom, right = segment.box_yxyx
    height, width = size_hw
    own_14 = torch.tensor([[left / width, top / height, right / width, bottom / height]])
    return float(box_overlaps(own_14, box_xyxy)[0])


def ellipse_logits(box_xyxy: tuple[float, float, float, float], grid_hw: tuple[int, int]) -> Tensor:
    """Return float32 (h, w): above zero in the ellipse in a box; its border moves to where colours change.

    Args:
        box_xyxy: 0..1 of the image.
        grid_hw: of the masks.
    """
    left, top, right, bottom = box_xyxy
    height, width = grid_hw
    y_h = ((torch.arange(height) + 0.5) / height - (top + bottom) / 2) / ((bottom - top) / 2)
    x_w = ((torch.arange(width) + 0.5) / width - (left + right) / 2) / ((right - left) / 2)
    # linear from the middle outwards, so that the border stays where it is between two cells
    return MOST_LOGIT * (1 - torch.hypot(y_h[:, None], x_w[None]))
