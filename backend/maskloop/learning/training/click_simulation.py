"""Clicks, boxes and earlier masks as annotators would give them, made of the ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.interactive.click_tier import FIRST_REACH
from maskloop.interactive.prompt import Click
from maskloop.types import BoolMask

__all__ = ["Given", "click_on", "deformed", "disc", "next_given", "start_of"]

CENTRED = 0.6  # share of first clicks in the middle; the others are anywhere on the object
BOXES, EARLIER = 0.2, 0.2  # shares of objects that start with a box, or with an earlier mask
MOST_SHIFT = 2  # cells


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What is known of one object."""

    clicks: tuple[Click, ...]
    mask_hw: BoolMask | None  # where it is first looked for; None: at the first click
    box: bool = field(default=False)  # the mask is a box


def start_of(truth_hw: BoolMask, rng: np.random.Generator) -> Given:
    """Return a first click, a box, or an earlier mask with clicks on its errors.

    Args:
        truth_hw: bool (H, W), at least one cell.
        rng: draws.
    """
    chance = rng.random()
    first = click_on(truth_hw, rng, is_positive=True, centred=rng.random() < CENTRED)
    if chance < BOXES:
        left, top, across, down = cv2.boundingRect(truth_hw.astype(np.uint8))
        box_hw = np.zeros_like(truth_hw)
        box_hw[top : top + down, left : left + across] = True
        return Given(clicks=(), mask_hw=box_hw, box=True)
    if chance < BOXES + EARLIER:
        mask_hw = deformed(truth_hw, rng)
        errors = ((truth_hw & ~mask_hw, True), (mask_hw & ~truth_hw, False))
        later = [
            click_on(error_hw, rng, is_positive=sign, centred=True)
            for error_hw, sign in errors
            if error_hw.any()
        ]
        return Given(clicks=(first, *later), mask_hw=mask_hw if mask_hw.any() else None)
    return Given(clicks=(first,), mask_hw=None)


def next_given(given: Given, truth_hw: BoolMask, answer_hw: BoolMask, rng: np.random.Generator) -> Given:
    """Return what is known after an answer: its mask, and a click in the middle of its largest error."""
    errors = (truth_hw & ~answer_hw, answer_hw & ~truth_hw)
    depths = [float(_depths(error_hw).max()) for error_hw in errors]
    clicks = given.clicks
    if max(depths) > 0:
        number = int(depths[1] > depths[0])
        clicks = (*clicks, click_on(errors[number], rng, is_positive=number == 0, centred=True))
    return replace(given, clicks=clicks, mask_hw=answer_hw if answer_hw.any() else given.mask_hw, box=False)


def click_on(mask_hw: BoolMask, rng: np.random.Generator, *, is_positive: bool, centred: bool) -> Click:
    """Return a click in the middle of a mask that is not empty, or anywhere on it."""
    cells = np.flatnonzero(mask_hw)
    place = int(_depths(mask_hw).argmax() if centred else rng.choice(cells))
    row, column = divmod(place, mask_hw.shape[1])
    return Click(
        x=(column + 0.5) / mask_hw.shape[1], y=(row + 0.5) / mask_hw.shape[0], is_positive=is_positive
    )


def disc(click: Click, size_hw: tuple[int, int], reach: float = FIRST_REACH) -> BoolMask:
    """Return the cells around a click; the one that it lies in at least."""
    height, width = size_hw
    y_h, x_w = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    inside_hw: BoolMask = np.hypot((y_h - click.y)[:, None], (x_w - click.x)[None]) <= reach
    inside_hw[click.cell(size_hw)] = True
    return inside_hw


def deformed(mask_hw: BoolMask, rng: np.random.Generator) -> BoolMask:
    """Return a mask as a worse model would draw it: larger or smaller, moved, with a wrong piece.

    Source:
        Zhang et al., "MP-Former: Mask-Piloted Transformer for Image Segmentation", CVPR 2023, noised masks.
    """
    side = int(rng.integers(1, 4))
    kernel = np.ones((side, side), dtype=np.uint8)
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    changed_hw = change(mask_hw.astype(np.uint8), kernel) > 0
    changed_hw = np.roll(changed_hw, rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, 2), (0, 1))
    if rng.random() < 0.5:
        x, y = rng.random(2)
        place = Click(x=float(x), y=float(y), is_positive=True)
        piece_hw = disc(place, (mask_hw.shape[0], mask_hw.shape[1]), rng.uniform(0.05, 0.2))
        changed_hw = np.where(piece_hw, rng.random() < 0.5, changed_hw)
    return np.asarray(changed_hw)


def _depths(mask_hw: BoolMask) -> NDArray[np.float32]:
    padded_hw = np.pad(mask_hw, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded_hw, cv2.DIST_L2, 3)[1:-1, 1:-1], dtype=np.float32)
