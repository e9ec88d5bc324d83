"""What an interactive request asks for: Label Studio's `params.context` -> prompts on objects.

Label Studio up to 1.23 sends the regions that its smart tools drew in `context.result`: labels come with
them, `is_positive` stands beside a key point's value. Its development line sends `context.event` as well, no
labels, and `positive` inside the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from maskloop.errors import CodecError
from maskloop.interactive.prompt import MAX_CLICKS, Click, Prompt, shrink_mask
from maskloop.types import BoolMask
from maskloop_studio.formats.controls import TaskImage
from maskloop_studio.formats.region_masks import DrawnSizes, read_mask
from maskloop_studio.formats.result_items import DrawnItem, kind_of_region

__all__ = ["Event", "Interaction", "ObjectPrompt", "is_on_image", "object_prompts", "read_interaction"]

Event: TypeAlias = Literal["predict", "prewarm", "release", "capabilities"]
MAX_REGIONS = 1000
SHOWN_CHARS = 40
EDGE_PERCENT = 0.5  # how far beyond the image a pointer may be, at its border
UNKNOWN_HW = (512, 512)  # for shapes in percent that come without the image's size
MAX_PIXELS = 2**28  # of a mask


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptRegion:
    """One region of the context."""

    index: int  # in `context.result`
    region: Mapping[str, Any]
    value: Mapping[str, Any]
    is_positive: bool
    label: str | None
    to_name: str | None  # the `<Image>`; None where the request does not name it
    item_index: int | None  # the page, of an image with several


@dataclass(frozen=True, kw_only=True, eq=False)
class Interaction:
    """An interactive request."""

    event: Event
    regions: tuple[PromptRegion, ...] = ()
    has_labels: bool = True  # False: the newer protocol, whose answer is a bitmask without a label


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPrompt:
    """What is asked about one object."""

    prompt: Prompt  # without classes
    label: str | None  # the tool's; None where it has none


def read_interaction(context: Mapping[str, Any] | None) -> Interaction | None:
    """Return what a request's context asks for; None where it asks for a plain prediction.

    A context without a `result`, such as the `{}` of the label-studio-ml host, asks for nothing.

    Raises:
        CodecError: the context asks for something that this backend does not do, or its regions are none.
    """
    if not context:
        return None
    event = context.get("event")
    if event is not None and event not in get_args(Event):
        raise _bad(
            "event",
            f"one of {', '.join(get_args(Event))}",
            repr(event)[:SHOWN_CHARS],
            "this backend answers clicks, boxes and areas on images; it follows no objects through videos",
        )
    regions = context.get("result")
    if event not in (None, "predict"):
        return Interaction(event=cast(Event, event), has_labels=False)
    if event is not None and not regions:
        raise _bad("result", "clicks or boxes", "none", "send them as regions in context.result")
    if not regions:
        return None
    if not isinstance(regions, list) or len(regions) > MAX_REGIONS:
        got = f"{len(regions)}" if isinstance(regions, list) else type(regions).__name__
        raise _bad("result", f"a list of at most {MAX_REGIONS} regions", got, "send fewer regions")
    read = tuple(_read_region(index, region) for index, region in enumerate(regions))
    labels = _labels_by_id(read)
    named = [
        _with_label(one, labels) for one in read if one.region.get("type") != "labels" or one.label is None
    ]
    is_newer = event is not None or any("positive" in one.value for one in read) or "frame" in context
    return Interaction(event="predict", regions=tuple(named or read), has_labels=not is_newer)


def is_on_image(region: PromptRegion, image: TaskImage) -> bool:
    """Return whether a region may be meant for an image."""
    return region.to_name in (None, image.to_name) and region.item_index in (None, image.item_index)


def object_prompts(regions: Sequence[PromptRegion]) -> list[ObjectPrompt]:
    """Return the objects that regions of one image ask about.

    Regions of one label are one object: its clicks, its scribbles, and at most one box or outline. Several
    boxes or outlines are as many objects, and each click belongs to the one that it lies in.

    Raises:
        CodecError: a region whose geometry cannot be read.
        PromptError: a region outside of the image or without an area, too many clicks, or nothing on an
            object.
    """
    found = []
    for label in dict.fromkeys(region.label for region in regions):
        mine = [region for region in regions if region.label == label]
        found += [ObjectPrompt(prompt=prompt, label=label) for prompt in _of_label(mine)]
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shape:
    box_xyxy: tuple[float, float, float, float] | None = None
    area_hw: BoolMask | None = None

    def contains(self, click: Click) -> bool:
        if self.box_xyxy is not None:
            left, top, right, bottom = self.box_xyxy
            return left <= click.x <= right and top <= click.y <= bottom
        assert self.area_hw is not None
        height, width = self.area_hw.shape
        return bool(
            self.area_hw[min(height - 1, int(click.y * height)), min(width - 1, int(click.x * width))]
        )


def _of_label(regions: Sequence[PromptRegion]) -> list[Prompt]:
    clicks: list[Click] = []
    scribbles: list[BoolMask] = []
    shapes: list[_Shape] = []
    forbidden: list[BoolMask] = []
    for one in regions:
        kind = kind_of_region(one.region)
        if kind in (None, "keypoint"):
            clicks.append(_click(one))
            continue
        shape = _box(one) if kind == "rectangle" and not one.value.get("rotation") else None
        if shape is None or not one.is_positive:
            area_hw = _area(one)
            if not one.is_positive:
                forbidden.append(area_hw)
            elif kind in ("brush", "bitmask"):
                scribbles.append(area_hw)
            else:
                shapes.append(_Shape(area_hw=area_hw))
        else:
            shapes.append(shape)
    if len(clicks) > MAX_CLICKS:
        raise _bad("result", f"at most {MAX_CLICKS} clicks on one object", str(len(clicks)), "use fewer")
    apart_hw = _joined(forbidden)
    if scribbles:
        shapes.append(_Shape(area_hw=_joined(scribbles)))
    if len(shapes) <= 1:
        shape = shapes[0] if shapes else _Shape()
        return [
            Prompt(
                clicks=tuple(clicks), box_xyxy=shape.box_xyxy, area_hw=shape.area_hw, forbidden_hw=apart_hw
            )
        ]
    prompts = []
    for shape in shapes:
        inside = tuple(click for click in clicks if shape.contains(click))
        prompts.append(
            Prompt(clicks=inside, box_xyxy=shape.box_xyxy, area_hw=shape.area_hw, forbidden_hw=apart_hw)
        )
    return prompts


def _joined(masks: Iterable[BoolMask]) -> BoolMask | None:
    joined_hw: BoolMask | None = None
    for mask_hw in masks:
        if joined_hw is None:
            joined_hw = mask_hw
        elif mask_hw.shape == joined_hw.shape:
            joined_hw = joined_hw | mask_hw
        else:
            raise _bad("result", "regions of one image", "masks of several sizes", "draw them again")
    return joined_hw


def _click(one: PromptRegion) -> Click:
    x, y = (_share(one, name) for name in ("x", "y"))
    return Click(x=x, y=y, is_positive=one.is_positive)


def _box(one: PromptRegion) -> _Shape:
    left, top = (_share(one, name) for name in ("x", "y"))
    right = _clamped(_percent(one, "x") + _percent(one, "width"))
    bottom = _clamped(_percent(one, "y") + _percent(one, "height"))
    return _Shape(box_xyxy=(left, top, right, bottom))


def _area(one: PromptRegion) -> BoolMask:
    """Return a drawn region as a mask of the whole image, no finer than is of use."""
    kind = kind_of_region(one.region)
    assert kind is not None
    place = f"predict, params.context.result[{one.index}]"
    sides = [one.region.get(f"original_{name}") for name in ("height", "width")]
    known = all(isinstance(side, int) and 0 < side < 2**20 for side in sides)
    size_hw = (int(sides[0]), int(sides[1])) if known else UNKNOWN_HW  # type: ignore[arg-type]
    if size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise _bad(f"result[{one.index}]", f"an image of at most {MAX_PIXELS} pixels", "more", "shrink it")
    region = {"origin": "manual", **one.region}
    item = DrawnItem(region=region, index=one.index, place=place, kind=kind, known_type=True)
    sizes = DrawnSizes(drawn_hw=size_hw, image_hw=size_hw, max_pixels=MAX_PIXELS)
    crop_hw, (top, left) = read_mask(item, one.value, sizes, lambda _: None)
    if not crop_hw.size:
        raise _bad(f"result[{one.index}]", "an area above zero", "none", "draw it again")
    mask_hw = np.zeros(size_hw, dtype=np.bool_)
    mask_hw[top : top + crop_hw.shape[0], left : left + crop_hw.shape[1]] = crop_hw
    return shrink_mask(mask_hw)


def _read_region(index: int, region: object) -> PromptRegion:
    value = region.get("value") if isinstance(region, dict) else None
    if not isinstance(region, dict) or not isinstance(value, dict):
        raise _bad(f"result[{index}]", "a region with a value", "none", "send a region of Label Studio")
    sign = region.get("is_positive", value.get("positive", value.get("is_positive", True)))
    to_name, item_index = region.get("to_name"), region.get("item_index", value.get("item_index"))
    return PromptRegion(
        index=index,
        region=region,
        value=value,
        is_positive=sign not in (False, 0, "false", "0"),
        label=_label(region, value),
        to_name=to_name if isinstance(to_name, str) else None,
        item_index=item_index if isinstance(item_index, int) and not isinstance(item_index, bool) else None,
    )


def _label(region: Mapping[str, Any], value: Mapping[str, Any]) -> str | None:
    for key in (str(region.get("type")), "labels"):
        names = value.get(key)
        if isinstance(names, list) and names and isinstance(names[0], str):
            return names[0]
    return None


def _labels_by_id(regions: Iterable[PromptRegion]) -> dict[object, str]:
    """Return the labels that stand in items of their own, by the id that they share with the geometry."""
    return {
        str(one.region["id"]): one.label
        for one in regions
        if one.region.get("type") == "labels" and one.label is not None and "id" in one.region
    }


def _with_label(one: PromptRegion, labels: Mapping[object, str]) -> PromptRegion:
    label = one.label or labels.get(str(one.region.get("id")))
    return PromptRegion(**{**vars(one), "label": label})


def _share(one: PromptRegion, name: str) -> float:
    return _clamped(_percent(one, name))


def _clamped(percent: float) -> float:
    """Return 0..1; what is just beyond the border is on it."""
    if -EDGE_PERCENT <= percent <= 100 + EDGE_PERCENT:
        return min(1.0, max(0.0, percent / 100))
    return percent / 100


def _percent(one: PromptRegion, name: str) -> float:
    value = one.value.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    got = "none" if value is None else repr(value)[:SHOWN_CHARS]
    raise _bad(
        f"result[{one.index}].value.{name}", "a finite number of percent", got, "send the region again"
    )


def _bad(where: str, expected: str, got: str, remedy: str) -> CodecError:
    return CodecError(f"predict, params.context.{where}", expected=expected, got=got, remedy=remedy)
