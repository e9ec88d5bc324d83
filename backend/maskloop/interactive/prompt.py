"""What a person points at in an image: clicks, a box, a drawn area; free of any foreign format."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from maskloop.errors import MaskloopError
from maskloop.types import BoolMask

__all__ = ["MAX_CLICKS", "MAX_DRAWN_SIDE", "Click", "Prompt", "PromptError", "shrink_mask"]

MAX_CLICKS = 100  # of one object
MAX_DRAWN_SIDE = 1024  # pixels: a drawn area is kept no finer, since features are coarser anyway


class PromptError(MaskloopError):
    """A prompt that means nothing on this image."""


@dataclass(frozen=True, kw_only=True)
class Click:
    """One point; 0..1 of the image's width and height."""

    x: float
    y: float
    is_positive: bool = True  # False: this pixel is not part of the object

    def cell(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the row and column in which it lies, of an image or a map of this size."""
        height, width = size_hw
        return min(height - 1, int(self.y * height)), min(width - 1, int(self.x * width))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """What is known of one object. At least one positive click, a box, or an area."""

    clicks: tuple[Click, ...] = ()  # in the order in which they were made
    box_xyxy: tuple[float, float, float, float] | None = None  # left, top, right, bottom; 0..1
    area_hw: BoolMask | None = None  # the whole image at any size: a scribble on the object, or its outline
    forbidden_hw: BoolMask | None = None  # the same: what is not part of the object
    previous_hw: BoolMask | None = None  # the same: the answer that these clicks are to improve
    labels: frozenset[str] = frozenset()  # classes of the model that the object may have; empty: any

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            PromptError: no number, a place outside of the image, an empty box or area, too many clicks, or
                nothing that says where the object is.
        """
        if len(self.clicks) > MAX_CLICKS:
            raise _bad(
                "clicks", f"at most {MAX_CLICKS} of one object", str(len(self.clicks)), "use fewer clicks"
            )
        for index, click in enumerate(self.clicks):
            _demand_inside(f"click {index + 1}", (click.x, click.y))
        if self.box_xyxy is not None:
            _demand_inside("box", self.box_xyxy)
            left, top, right, bottom = self.box_xyxy
            if right <= left or bottom <= top:
                raise _bad("box", "an area above zero", "none", "drag the box from one corner to the other")
        for name in ("area_hw", "forbidden_hw", "previous_hw"):
            mask_hw = getattr(self, name)
            if mask_hw is not None and (mask_hw.dtype != np.bool_ or mask_hw.ndim != 2 or not mask_hw.size):
                raise ValueError(f"Prompt.{name}: expected bool (H, W), got {mask_hw.dtype} {mask_hw.shape}")
        if self.area_hw is not None and not self.area_hw.any():
            raise _bad("area", "at least one pixel", "none", "draw it again")
        if not self.positive and self.box_xyxy is None and self.area_hw is None and self.previous_hw is None:
            got = "only places that are not part of it" if self.clicks else "nothing"
            raise _bad("object", "a click, a box or an area on the object", got, "click on the object first")

    @property
    def positive(self) -> tuple[Click, ...]:
        """The clicks on the object."""
        return tuple(click for click in self.clicks if click.is_positive)

    @property
    def negative(self) -> tuple[Click, ...]:
        """The clicks beside it."""
        return tuple(click for click in self.clicks if not click.is_positive)


def shrink_mask(mask_hw: BoolMask) -> BoolMask:
    """Return a mask of at most MAX_DRAWN_SIDE pixels a side; no drawn pixel is lost."""
    scale = MAX_DRAWN_SIDE / max(mask_hw.shape)
    if scale >= 1:
        return mask_hw
    height, width = (max(1, round(side * scale)) for side in mask_hw.shape)
    shares_hw = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares_hw > 0)


def _demand_inside(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise _bad(name, "finite numbers", repr(value)[:40], "send the region again")
        if not 0.0 <= value <= 1.0:
            raise _bad(
                name,
                "a place inside the image",
                f"{100 * value:.4g} %",
                "click inside the image",
            )


def _bad(where: str, expected: str, got: str, remedy: str) -> PromptError:
    return PromptError(f"prompt, {where}", expected=expected, got=got, remedy=remedy)
