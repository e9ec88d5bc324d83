"""An annotator's click or box -> which of the predicted segments were meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from maskloop.types import Prediction, Segment

__all__ = ["keep_prompted"]


def keep_prompted(prediction: Prediction, context: Mapping[str, Any]) -> Prediction:
    """Return the prediction with only those segments that the prompt touches.

    Args:
        prediction: of the whole image.
        context: Label Studio's `params.context`: `result` holds key points or rectangles in percent. A
            point keeps the smallest segment below it, a rectangle those whose middle lies in it.
    """
    regions = context.get("result")
    kept: list[Segment] = []
    for region in regions if isinstance(regions, list) else []:
        kept.extend(_touched(prediction, region) if isinstance(region, dict) else [])
    return dataclasses.replace(prediction, segments=tuple(dict.fromkeys(kept)))


def _touched(prediction: Prediction, region: Mapping[str, Any]) -> list[Segment]:
    value = region.get("value")
    if not isinstance(value, dict):
        return []
    try:
        height, width = prediction.size_hw
        x, y = float(value["x"]) / 100 * width, float(value["y"]) / 100 * height
        if str(region.get("type", "")).startswith("rectangle"):
            right = x + float(value["width"]) / 100 * width
            bottom = y + float(value["height"]) / 100 * height
            return [segment for segment in prediction.segments if _middle_in(segment, x, y, right, bottom)]
    except (KeyError, TypeError, ValueError):
        return []
    below = [segment for segment in prediction.segments if _covers(segment, int(y), int(x))]
    return sorted(below, key=lambda segment: segment.area)[:1]


def _covers(segment: Segment, y: int, x: int) -> bool:
    top, left, bottom, right = segment.box_yxyx
    return top <= y < bottom and left <= x < right and bool(segment.mask_hw[y - top, x - left])


def _middle_in(segment: Segment, left: float, top: float, right: float, bottom: float) -> bool:
    box_top, box_left, box_bottom, box_right = segment.box_yxyx
    return left <= (box_left + box_right) / 2 <= right and top <= (box_top + box_bottom) / 2 <= bottom
