"""Line plots with bands as SVG, drawn by matplotlib (extra `plots`); the same numbers give the same file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import DependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "OTHER_COLOUR", "Curve", "Panel", "curves_svg", "import_matplotlib", "panels_svg"]

COLOURS = ("#0b62a4", "#d1602d", "#3a8c3f", "#8a4fb0", "#b08a00", "#00848c")
OTHER_COLOUR = "#777777"
MIN_Y_RANGE = 0.2  # of a panel from zero: small values look small
_STYLE = {
    "svg.hashsalt": "maskloop",  # element ids are the same in every run
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line with its band; all values have the same length, at least 1."""

    name: str
    colour: str  # "#rrggbb"
    x: tuple[float, ...]  # ascending
    mean: tuple[float, ...]
    low: tuple[float, ...]  # lower edge of the band
    high: tuple[float, ...]  # upper edge of the band


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One coordinate system with its curves."""

    curves: tuple[Curve, ...]  # may be empty
    title: str = ""  # above it
    row_title: str = ""  # at its left
    marks: tuple[tuple[str, float], ...] = ()  # text and height of dashed lines
    log_x: bool = False  # logarithmic x axis
    ticks_at_points: bool = True  # whether the x axis names each x of the curves, or even numbers
    from_zero: bool = True  # whether the y axis starts at 0, and ends at MIN_Y_RANGE or above


def curves_svg(
    curves: Sequence[Curve], *, title: str, x_title: str, marks: Sequence[tuple[str, float]] = ()
) -> str:
    """Return an SVG file with one panel and a legend.

    Args:
        curves: at least one.
        title: above the panel.
        x_title: below the panel.
        marks: text and height of dashed lines.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    panel = Panel(curves=tuple(curves), title=title, marks=tuple(marks), from_zero=False)
    return panels_svg([[panel]], x_title=x_title, panel_inches=(6.5, 4.0))


def panels_svg(
    rows: Sequence[Sequence[Panel]], *, x_title: str, panel_inches: tuple[float, float] = (3.0, 2.1)
) -> str:
    """Return an SVG file with a grid of panels and one legend for all of them.

    Args:
        rows: rows of panels, all of one length; none gives an empty page.
        x_title: below the lowest panels.
        panel_inches: width and height of a panel.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    matplotlib = import_matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width, height = panel_inches
    columns = max((len(row) for row in rows), default=1)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(columns * width, len(rows) * height + 0.5), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(rows), columns, squeeze=False) if rows else ()
        handles: dict[str, Any] = {}
        for axes_row, row in zip(grid, rows, strict=True):
            for axes, panel in zip(axes_row, row, strict=True):
                handles |= _draw(axes, panel)
        figure.supxlabel(x_title)
        if handles:
            figure.legend(
                handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles), frameon=False
            )
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _draw(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw a panel and return curve name -> legend handle."""
    handles = {}
    if panel.log_x:
        axes.set_xscale("log", base=2)
    for curve in panel.curves:
        band = axes.fill_between(curve.x, curve.low, curve.high, color=curve.colour, alpha=0.18, linewidth=0)
        (line,) = axes.plot(curve.x, curve.mean, color=curve.colour, marker="o", markersize=3)
        band.set_gid(f"band {curve.name}")
        line.set_gid(f"line {curve.name}")
        handles[curve.name] = line
    for text, height in panel.marks:
        axes.axhline(height, color="#555555", linestyle="--", linewidth=1)
        axes.annotate(text, (0.01, height), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    numbers = sorted({x for curve in panel.curves for x in curve.x})
    if numbers and panel.ticks_at_points:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.minorticks_off()
    if panel.from_zero:
        axes.set_ylim(0.0, max(axes.get_ylim()[1], MIN_Y_RANGE))
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.row_title)
    return handles


def import_matplotlib() -> Any:
    """Return the module.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise DependencyError(
            "plot",
            expected="the package matplotlib",
            got=f"{type(exc).__name__}: {exc}",
            remedy="pip install 'maskloop[plots]'",
        ) from exc
    return matplotlib
