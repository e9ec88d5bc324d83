"""The part of a mask that a prompt allows: clicks are obeyed here, whatever found the mask."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.interactive.prompt import Prompt
from maskloop.types import BoolMask

__all__ = ["LEAST_PART", "allowed_part"]

LEAST_PART = 0.02  # of the area: smaller separate parts are not drawn
BOX_SLACK = 0.05  # of a box's sides, by which an object may reach beyond it
CUT_SHARE = 0.5  # of the way from a click beside the object to the nearest one on it
LEAST_CUT = 0.1  # of the square root of the area: the radius of what a click inside the answer takes away


def allowed_part(mask_hw: BoolMask, prompt: Prompt, *, clicked_only: bool) -> BoolMask:
    """Return the part of a mask that the prompt allows."""
    size_hw = (mask_hw.shape[0], mask_hw.shape[1])
    if prompt.box_xyxy is not None:
        mask_hw = mask_hw & _box_area(prompt.box_xyxy, size_hw)
    if prompt.forbidden_hw is not None:
        mask_hw = mask_hw & ~_scaled(prompt.forbidden_hw, size_hw)
    return _keep_parts(_cut_negatives(mask_hw, prompt), prompt, clicked_only=clicked_only)


def _cut_negatives(mask_hw: BoolMask, prompt: Prompt) -> BoolMask:
    """Return the mask without the clicks beside the object: whole parts, or a disc around the click."""
    size_hw = (mask_hw.shape[0], mask_hw.shape[1])
    pixels = [click.cell(size_hw) for click in prompt.negative]
    if not pixels or not mask_hw.any():
        return mask_hw
    on_object = [click.cell(size_hw) for click in prompt.positive]
    side = math.sqrt(float(mask_hw.sum()))
    parts_hw: NDArray[Any] | None = None
    cut_hw = np.zeros(mask_hw.shape, dtype=np.uint8)
    for row, column in pixels:
        reach = CUT_SHARE * min((math.hypot(row - y, column - x) for y, x in on_object), default=side / 2)
        if mask_hw[row, column]:
            if parts_hw is None:
                _, parts_hw = cv2.connectedComponents(mask_hw.astype(np.uint8))
            part = int(parts_hw[row, column])
            if on_object and part not in {int(parts_hw[place]) for place in on_object}:
                cut_hw[parts_hw == part] = 1
                continue
        else:
            # A pinhole obeys the click, but nobody who clicks means a pinhole.
            reach = min(reach, LEAST_CUT * side)
            if _share_around(mask_hw, row, column, reach) < 0.5:
                continue
        cv2.circle(cut_hw, (column, row), max(0, int(reach)), 1, thickness=-1)
    return np.asarray(mask_hw & (cut_hw == 0))


def _share_around(mask_hw: BoolMask, row: int, column: int, radius: float) -> float:
    """Return which share of the square around a pixel is inside."""
    half = max(0, int(radius))
    window = (slice(max(0, row - half), row + half + 1), slice(max(0, column - half), column + half + 1))
    return float(mask_hw[window].mean())


def _keep_parts(mask_hw: BoolMask, prompt: Prompt, *, clicked_only: bool) -> BoolMask:
    """Return the mask without specks, or with the clicked parts only; empty where a click is not inside."""
    if not prompt.positive:
        return mask_hw
    kept_hw: BoolMask = np.zeros_like(mask_hw)
    left, top, across, down = cv2.boundingRect(mask_hw.view(np.uint8))
    if not across:
        return kept_hw
    window = (slice(top, top + down), slice(left, left + across))  # an object is a small part of its image
    inside_hw = np.ascontiguousarray(mask_hw[window]).view(np.uint8)
    count, parts_hw = cv2.connectedComponents(inside_hw, connectivity=4)
    slack = max(1, max(mask_hw.shape) // 128)
    clicked = set()
    for index, click in enumerate(prompt.positive):
        row, column = click.cell((mask_hw.shape[0], mask_hw.shape[1]))
        part = _part_at(parts_hw, row - top, column - left, slack)
        if part:
            clicked.add(part)
        elif index == 0 and prompt.previous_hw is None:
            return kept_hw
    kept_hw[window] = _kept_parts(parts_hw, count, clicked, clicked_only=clicked_only)
    return kept_hw


def _kept_parts(parts_hw: NDArray[Any], count: int, clicked: set[int], *, clicked_only: bool) -> BoolMask:
    """Return where the clicked parts are, and others that are large enough."""
    of_clicked_hw: BoolMask = np.zeros(parts_hw.shape, dtype=np.bool_)
    for part in clicked:
        of_clicked_hw |= parts_hw == part
    area = np.count_nonzero(parts_hw)
    if clicked_only or area - np.count_nonzero(of_clicked_hw) < LEAST_PART * area:
        return of_clicked_hw  # all others together are too small
    areas = np.bincount(parts_hw.ravel(), minlength=count)
    is_kept = areas >= LEAST_PART * area
    is_kept[0] = False
    return of_clicked_hw | is_kept.take(parts_hw)


def _part_at(parts_hw: NDArray[Any], row: int, column: int, slack: int) -> int:
    """Return the part at a pixel, or the nearest one within what a mask's grid cannot resolve."""
    height, width = parts_hw.shape
    if 0 <= row < height and 0 <= column < width and parts_hw[row, column]:
        return int(parts_hw[row, column])
    near = parts_hw[
        max(0, row - slack) : max(0, row + slack + 1), max(0, column - slack) : max(0, column + slack + 1)
    ]
    found = near[near > 0]
    return int(np.bincount(found).argmax()) if found.size else 0


def _box_area(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> BoolMask:
    left, top, right, bottom = box_xyxy
    slack_x, slack_y = BOX_SLACK * (right - left), BOX_SLACK * (bottom - top)
    height, width = size_hw
    rows = slice(max(0, math.floor((top - slack_y) * height)), math.ceil((bottom + slack_y) * height))
    columns = slice(max(0, math.floor((left - slack_x) * width)), math.ceil((right + slack_x) * width))
    area_hw = np.zeros(size_hw, dtype=np.bool_)
    area_hw[rows, columns] = True
    return area_hw


def _scaled(mask_hw: BoolMask, size_hw: tuple[int, int]) -> BoolMask:
    return np.asarray(
        cv2.resize(mask_hw.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
    )
