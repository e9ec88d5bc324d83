"""Curves with bands, drawn by hand as SVG: no plotting library, and the same file for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "COLOURS",
    "LEFT",
    "OTHER_COLOUR",
    "PANEL_H",
    "PANEL_W",
    "Curve",
    "curves_svg",
    "draw_legend",
    "draw_panel",
    "svg_page",
]

PANEL_W, PANEL_H = 250, 150  # of the plotting area, pixels
LEFT = 95  # of the first panel
COLOURS = ("#0b62a4", "#d1602d", "#3a8c3f", "#8a4fb0", "#b08a00", "#00848c")
OTHER_COLOUR = "#777777"
_TICKS_AT_MOST = 7


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line with its band."""

    name: str
    colour: str
    x: tuple[float, ...]  # ascending
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def curves_svg(
    curves: Sequence[Curve], *, title: str, x_title: str, marks: Sequence[tuple[str, float]] = ()
) -> str:
    """Return one panel with a legend as a whole SVG file.

    Args:
        curves: at least one point each.
        title: above the panel.
        x_title: below it.
        marks: words and heights of dashed lines.
    """
    wide, high = 560, 300
    width, height = LEFT + wide + 40, high + 130
    parts = [
        *draw_legend([(curve.name, curve.colour) for curve in curves]),
        *draw_panel(
            curves, corner_xy=(LEFT, 60), title=title, size_wh=(wide, high), marks=marks, from_zero=False
        ),
        f'<text x="{LEFT + wide / 2:g}" y="{height - 20}" text-anchor="middle">{escape(x_title)}</text>',
    ]
    return svg_page(parts, width=width, height=height)


def svg_page(parts: Sequence[str], *, width: float, height: float) -> str:
    """Return the elements as an SVG file on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" font-family="sans-serif" font-size="12" fill="#222">',
            f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def draw_legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line and a name for each (name, colour), side by side at the top."""
    parts = []
    for place, (name, colour) in enumerate(entries):
        x = LEFT + 110 * place
        parts.append(f'<path d="M{x} 16h24" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 30}" y="20">{escape(name)}</text>')
    return parts


def draw_panel(
    curves: Sequence[Curve],
    *,
    corner_xy: tuple[float, float],
    title: str = "",
    size_wh: tuple[int, int] = (PANEL_W, PANEL_H),
    marks: Sequence[tuple[str, float]] = (),
    doubling: bool = False,
    from_zero: bool = True,
) -> list[str]:
    """Return axes, bands, lines and points of one panel.

    Args:
        curves: may be none.
        corner_xy: top left of the plotting area.
        title: above it.
        size_wh: of the plotting area.
        marks: words and heights of dashed lines.
        doubling: whether each doubling of x takes as much room.
        from_zero: whether heights begin at 0; else where the lowest band ends.
    """
    (left, top), (wide, high) = corner_xy, size_wh
    numbers = sorted({x for curve in curves for x in curve.x})
    if not numbers:
        return []
    to_x = _to_x(numbers, left, wide, doubling)
    tops = [*(max(curve.high) for curve in curves), *(value for _, value in marks)]
    lowest = 0.0 if from_zero else min(min(curve.low) for curve in curves)
    step = 0.2 if from_zero else _nice_step(max(tops) - lowest)
    first = math.floor(lowest / step + 1e-9)
    last = max(math.ceil(max(tops) / step - 1e-9), first + 1)

    def to_y(value: float) -> float:
        return top + high * (1 - (value - first * step) / ((last - first) * step))

    digits = max(1, -math.floor(math.log10(step) + 1e-9))
    parts = []
    if title:
        parts.append(
            f'<text x="{left + wide / 2:g}" y="{top - 8:g}" text-anchor="middle">{escape(title)}</text>'
        )
    for tick in range(first, last + 1):
        y = to_y(tick * step)
        parts.append(f'<path d="M{left:g} {y:.1f}h{wide}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 5:g}" y="{y + 4:.1f}" text-anchor="end">{tick * step:.{digits}f}</text>'
        )
    parts += [
        f'<text x="{to_x(number):.1f}" y="{top + high + 16:g}" text-anchor="middle">{number:g}</text>'
        for number in numbers
    ]
    for word, value in marks:
        y = to_y(value)
        parts.append(f'<path d="M{left:g} {y:.1f}h{wide}" stroke="#555" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{left + 6:g}" y="{y - 4:.1f}" font-size="11">{escape(word)}</text>')
    for curve in curves:
        parts += _draw_curve(curve, to_x, to_y)
    return parts


def _draw_curve(curve: Curve, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> list[str]:
    """Return band, line and points."""
    upper = [f"{to_x(x):.1f},{to_y(value):.1f}" for x, value in zip(curve.x, curve.high, strict=True)]
    lower = [f"{to_x(x):.1f},{to_y(value):.1f}" for x, value in zip(curve.x, curve.low, strict=True)]
    means = [(to_x(x), to_y(value)) for x, value in zip(curve.x, curve.mean, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
    return [
        f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{curve.colour}" opacity="0.18"/>',
        f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{curve.colour}"/>' for x, y in means),
    ]


def _to_x(numbers: Sequence[float], left: float, wide: float, doubling: bool) -> Callable[[float], float]:
    scale: Callable[[float], float] = math.log2 if doubling else float
    low, high = scale(numbers[0]), scale(numbers[-1])
    return lambda number: (
        left + wide * ((scale(number) - low) / (high - low) * 0.94 + 0.03 if high > low else 0.5)
    )


def _nice_step(span: float) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten that cuts a span into a few parts."""
    least = max(span, 1e-3) / _TICKS_AT_MOST
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least - 1e-12)
