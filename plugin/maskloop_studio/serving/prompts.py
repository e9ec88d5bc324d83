"""What an interactive request asks for: clicks and boxes, and which predicted segments they mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskloop.errors import CodecError
from maskloop.types import Prediction, Segment

__all__ = ["Prompt", "keep_prompted", "read_prompts"]

KNOWN_EVENT = "predict"
MAX_PROMPTS = 1000
SHOWN_CHARS = 40


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A click, or a box with a width and a height; all in percent of the image."""

    x: float
    y: float
    width: float | None = None  # None: a click
    height: float | None = None
    to_name: str | None = None  # the `<Image>` it was made on; None where the request does not name it
    item_index: int | None = None  # the page, of an image with several


def read_prompts(context: Mapping[str, Any] | None) -> tuple[Prompt, ...]:
    """Return the prompts of Label Studio's `params.context`; none where it asks for a plain prediction.

    A context without a `result`, such as the `{}` of the label-studio-ml host, asks for nothing.

    Raises:
        CodecError: the context asks for something else than a prediction from clicks and boxes, or with
            coordinates that are no finite numbers.
    """
    if not context:
        return ()
    event = context.get("event")
    if event is not None and event != KNOWN_EVENT:
        raise _bad(
            "event",
            f"no event, or {KNOWN_EVENT!r}",
            repr(event)[:SHOWN_CHARS],
            "this backend answers clicks and boxes in context.result; it has no other interactive event",
        )
    regions = context.get("result")
    if event is not None and not regions:
        raise _bad(
            "result",
            "clicks or boxes",
            "none",
            "send them as regions of Label Studio in context.result",
        )
    if regions is None:
        return ()
    if not isinstance(regions, list) or len(regions) > MAX_PROMPTS:
        got = f"{len(regions)}" if isinstance(regions, list) else type(regions).__name__
        raise _bad("result", f"a list of at most {MAX_PROMPTS} regions", got, "send fewer regions")
    return tuple(_read_prompt(index, region) for index, region in enumerate(regions))


def keep_prompted(prediction: Prediction, prompts: Sequence[Prompt]) -> Prediction:
    """Return the prediction with only those segments that the prompts touch.

    A click keeps the smallest segment below it, a box those whose centre lies in it.
    """
    kept = [segment for prompt in prompts for segment in _touched(prediction, prompt)]
    return dataclasses.replace(prediction, segments=tuple(dict.fromkeys(kept)))


def _read_prompt(index: int, region: object) -> Prompt:
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(region, dict) or not isinstance(value, dict):
        raise _bad(f"result[{index}]", "a region with a value", "none", "send a region of Label Studio")
    is_box = str(region.get("type", "")).startswith("rectangle")
    names = ("x", "y", "width", "height") if is_box else ("x", "y")
    numbers = {name: _percent(index, name, value.get(name)) for name in names}
    to_name, item_index = region.get("to_name"), region.get("item_index", value.get("item_index"))
    return Prompt(
        **numbers,
        to_name=to_name if isinstance(to_name, str) else None,
        item_index=item_index if isinstance(item_index, int) else None,
    )


def _percent(index: int, name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    got = "none" if value is None else repr(value)[:SHOWN_CHARS]
    raise _bad(f"result[{index}].value.{name}", "a finite number of percent", got, "send the region again")


def _bad(where: str, expected: str, got: str, remedy: str) -> CodecError:
    return CodecError(f"predict, params.context.{where}", expected=expected, got=got, remedy=remedy)


def _touched(prediction: Prediction, prompt: Prompt) -> list[Segment]:
    height, width = prediction.size_hw
    x, y = prompt.x / 100 * width, prompt.y / 100 * height
    if prompt.width is not None and prompt.height is not None:
        right, bottom = x + prompt.width / 100 * width, y + prompt.height / 100 * height
        return [segment for segment in prediction.segments if _centre_in(segment, x, y, right, bottom)]
    below = [segment for segment in prediction.segments if _covers(segment, math.floor(y), math.floor(x))]
    return sorted(below, key=lambda segment: segment.area)[:1]


def _covers(segment: Segment, y: int, x: int) -> bool:
    top, left, bottom, right = segment.box_yxyx
    return top <= y < bottom and left <= x < right and bool(segment.mask_hw[y - top, x - left])


def _centre_in(segment: Segment, left: float, top: float, right: float, bottom: float) -> bool:
    box_top, box_left, box_bottom, box_right = segment.box_yxyx
    return left <= (box_left + box_right) / 2 <= right and top <= (box_top + box_bottom) / 2 <= bottom
