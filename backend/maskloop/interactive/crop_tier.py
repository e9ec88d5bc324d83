"""An answer from a crop: a small object is looked at again, alone and at a higher resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import cv2
import numpy as np

from maskloop.interactive.answer import Answer, find_answer
from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.prompt import Click, Prompt
from maskloop.segmentation.upsample import Window
from maskloop.types import Segment

__all__ = ["CropUse", "crop_answer", "crop_window", "find_with_crop", "is_small"]

# What a crop had to do with an answer: it is the answer; there is one, but the whole image was answered from;
# there is none, and the object is too large for one; there is none, and one may help with the next click.
CropUse: TypeAlias = Literal["used", "refused", "large", "wanted"]

CROP_SHARE = 0.5  # of the image's shorter side: a crop's sides
LEAST_SIDE = 16  # pixels of a crop: less shows the model nothing
SMALL_SHARE = 0.5  # of a crop's sides: a larger object is not worth a look of its own
FORETOLD_SHARE = 0.5  # of the later clicks: more of them agree with the crop's answer to the first


def crop_window(prompt: Prompt, size_hw: tuple[int, int]) -> Window | None:
    """Return the square around the first click, moved into the image; later clicks do not change it.

    Args:
        prompt: what is known of the object.
        size_hw: of the image.

    Returns:
        None where a crop does not answer: a box or an area says how large the object is, and is answered in
        the whole image; so is an image that is too small to be cut.
    """
    drawn = (prompt.box_xyxy, prompt.area_hw, prompt.forbidden_hw, prompt.previous_hw)
    side = int(CROP_SHARE * min(size_hw))
    if not prompt.positive or any(one is not None for one in drawn) or side < LEAST_SIDE:
        return None
    row, column = prompt.positive[0].cell(size_hw)
    top = min(max(0, row - side // 2), size_hw[0] - side)
    left = min(max(0, column - side // 2), size_hw[1] - side)
    return Window(top=top, left=left, bottom=top + side, right=left + side)


def find_with_crop(
    features: ImageFeatures, prompt: Prompt, window: Window, closer: ImageFeatures | None
) -> tuple[Answer | None, CropUse]:
    """Return the answer of a crop where it is the better one, else that of the whole image.

    Whether a crop sees the object or a part of it, later clicks tell: people click where an answer is wrong.
    The crop's answer to the first click alone has to have more than half of the later ones on their side.

    Args:
        features: of the whole image.
        prompt: what is known of the object.
        window: where its crop lies, see `crop_window`.
        closer: features of the crop; None where it was not looked at.
    """
    if closer is None:
        found = find_answer(features, prompt)
        # a click beside the object says that it is smaller than what was found
        is_wanted = bool(prompt.negative) or is_small(found, prompt, window, features.size_hw)
        return found, "wanted" if is_wanted else "large"
    found = None
    if _is_foretold(closer, window, prompt, features.size_hw):
        found = crop_answer(closer, window, prompt, features.size_hw)
    return (found, "used") if found is not None else (find_answer(features, prompt), "refused")


def is_small(found: Answer | None, prompt: Prompt, window: Window, size_hw: tuple[int, int]) -> bool:
    """Return whether the part of an answer below the first click is at most half as long as the crop.

    Only that part counts: a model that cannot tell small objects apart answers with all of them.

    Args:
        found: the answer; None, where nothing was found, may be small.
        prompt: what it answers.
        window: of the crop.
        size_hw: of the image.
    """
    if found is None:
        return True
    most = int(SMALL_SHARE * (window.bottom - window.top))
    if max(found.segment.mask_hw.shape) <= most:
        return True
    row, column = prompt.positive[0].cell(size_hw)
    row, column = row - found.segment.offset_yx[0], column - found.segment.offset_yx[1]
    top, left = max(0, row - most), max(0, column - most)
    near_hw = found.segment.mask_hw[top : max(0, row + most + 1), left : max(0, column + most + 1)]
    places = np.argwhere(near_hw)
    if not len(places):
        return False
    nearest = places[np.abs(places - (row - top, column - left)).sum(1).argmin()]
    _, parts_hw, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(near_hw).view(np.uint8), connectivity=4
    )
    # a part that leaves what is looked at here has already become too long
    part = parts_hw[tuple(nearest)]
    return bool(max(stats[part, cv2.CC_STAT_WIDTH], stats[part, cv2.CC_STAT_HEIGHT]) <= most)


def crop_answer(
    features: ImageFeatures, window: Window, prompt: Prompt, size_hw: tuple[int, int]
) -> Answer | None:
    """Return what a crop shows of the object that a prompt means, in the whole image's pixels.

    Args:
        features: of the crop.
        window: where it lies, see `crop_window`.
        prompt: about the whole image.
        size_hw: of the image.

    Returns:
        None where the crop does not show it, or not all of it: a positive click lies beyond the crop, or the
        answer reaches a border that the image does not have there.
    """
    if not all(_is_inside(click, window, size_hw) for click in prompt.positive):
        return None
    # negative clicks beyond the crop are obeyed by any answer that lies in it
    clicks = [_moved(one, window, size_hw) for one in prompt.clicks if _is_inside(one, window, size_hw)]
    found = find_answer(features, replace(prompt, clicks=tuple(clicks)))
    if found is None or _is_cut_off(found.segment, window, size_hw):
        return None
    top, left = found.segment.offset_yx
    segment = replace(found.segment, offset_yx=(window.top + top, window.left + left))
    return Answer(segment=segment, tier="crop")


def _is_foretold(features: ImageFeatures, window: Window, prompt: Prompt, size_hw: tuple[int, int]) -> bool:
    """Return whether the crop's answer to the first click has enough of the later ones on their side."""
    first = prompt.positive[0]
    later = [click for click in prompt.clicks if click is not first]
    found = crop_answer(features, window, replace(prompt, clicks=(first,)), size_hw) if later else None
    if found is None:
        return False
    right = sum(_has(found.segment, click, size_hw) == click.is_positive for click in later)
    return right > FORETOLD_SHARE * len(later)


def _has(segment: Segment, click: Click, size_hw: tuple[int, int]) -> bool:
    row, column = click.cell(size_hw)
    top, left, bottom, right = segment.box_yxyx
    inside = top <= row < bottom and left <= column < right
    return inside and bool(segment.mask_hw[row - top, column - left])


def _is_inside(click: Click, window: Window, size_hw: tuple[int, int]) -> bool:
    row, column = click.cell(size_hw)
    return window.top <= row < window.bottom and window.left <= column < window.right


def _moved(click: Click, window: Window, size_hw: tuple[int, int]) -> Click:
    """Return the middle of the click's pixel in the crop: it stays in the pixel that it has to obey."""
    row, column = click.cell(size_hw)
    return replace(
        click,
        y=(row - window.top + 0.5) / (window.bottom - window.top),
        x=(column - window.left + 0.5) / (window.right - window.left),
    )


def _is_cut_off(segment: Segment, window: Window, size_hw: tuple[int, int]) -> bool:
    """Return whether a segment of the crop reaches a side of it that is not the image's own border."""
    top, left, bottom, right = segment.box_yxyx
    sides = (
        (window.top > 0, top <= 0),
        (window.left > 0, left <= 0),
        (window.bottom < size_hw[0], bottom >= window.bottom - window.top),
        (window.right < size_hw[1], right >= window.right - window.left),
    )
    return any(is_inner and reaches for is_inner, reaches in sides)
