"""The gate's verdict as a picture: each image's difference, the gain, its interval and the margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskloop_studio.dashboard.holdout_images import ImageScore

__all__ = ["Dot", "GatePicture", "draw_gate"]

WIDTH, HEIGHT, EDGE = 720.0, 190.0, 30.0
DOTS_Y, GAIN_Y, AXIS_Y = (20.0, 105.0), 130.0, 155.0
MOST_DOTS = 400
SAME = 0.005  # a smaller difference counts as none


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One holdout image."""

    x: float
    y: float
    kind: str  # up, down or same
    title: str


@dataclass(frozen=True, kw_only=True)
class GatePicture:
    """Places in a drawing of `width` by `height`; None for what is not known."""

    width: float
    height: float
    axis_y: float
    gain_y: float
    dots: tuple[Dot, ...]
    left_out: int  # images without a dot, where there are too many
    zero_x: float
    margin_x: float | None
    gain_x: float | None
    interval_x: tuple[float, float] | None
    ticks: tuple[tuple[float, str], ...]
    better: int  # images
    worse: int
    same: int
    text: str  # what it shows, in words


def draw_gate(gate: Mapping[str, Any], scores: Sequence[ImageScore]) -> GatePicture | None:
    """Return the picture of a decision; None where the two models were not compared.

    Args:
        gate: `PromotionDecision.as_json`.
        scores: each holdout image.
    """
    gain = _number(gate.get("gain"))
    if gain is None or _number(gate.get("before")) is None:
        return None
    bounds = gate.get("interval")
    low, high = (
        (_number(bound) for bound in bounds)
        if isinstance(bounds, list) and len(bounds) == 2
        else (None, None)
    )
    rule = gate.get("rule")
    margin = _number(rule.get("margin")) if isinstance(rule, Mapping) else None
    known = sorted(
        ((one, difference) for one in scores if (difference := one.difference) is not None),
        key=lambda pair: pair[1],
    )
    reach = max(
        [0.05, abs(gain), *(abs(value) for value in (low, high, margin) if value is not None)]
        + [abs(difference) for _, difference in known]
    )

    def across(value: float) -> float:
        return round(WIDTH / 2 + value / reach * (WIDTH / 2 - EDGE), 1)

    stride = -(-len(known) // MOST_DOTS) or 1
    shown = known[::stride]
    step = (DOTS_Y[1] - DOTS_Y[0]) / max(1, len(shown) - 1)
    dots = tuple(
        Dot(
            x=across(difference),
            y=round(DOTS_Y[0] + place * step, 1),
            kind=_kind(difference),
            title=f"task {one.task_id}: {difference:+.3f}",
        )
        for place, (one, difference) in enumerate(shown)
    )
    kinds = [_kind(difference) for _, difference in known]
    better, worse, same = (kinds.count(kind) for kind in ("up", "down", "same"))
    interval = None if low is None or high is None else (across(low), across(high))
    words = f"Gain {gain:+.3f}" + ("" if interval is None else f", interval {low:+.3f} to {high:+.3f}")
    return GatePicture(
        width=WIDTH,
        height=HEIGHT,
        axis_y=AXIS_Y,
        gain_y=GAIN_Y,
        dots=dots,
        left_out=len(known) - len(shown),
        zero_x=across(0.0),
        margin_x=None if not margin else across(margin),
        gain_x=across(gain),
        interval_x=interval,
        ticks=tuple(
            (across(value), f"{value:+.2f}") for value in (-reach, -reach / 2, 0.0, reach / 2, reach)
        ),
        better=better,
        worse=worse,
        same=same,
        text=f"{words}; better on {better} images, worse on {worse}, about the same on {same}",
    )


def _kind(difference: float) -> str:
    if abs(difference) < SAME:
        return "same"
    return "up" if difference > 0 else "down"


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
