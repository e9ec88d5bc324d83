"""Bilinear upsampling of a window: what `interpolate(align_corners=False)` gives there, without the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Window", "reach_window", "upsample_window"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of the image; bottom and right are exclusive, in pixels."""

    top: int
    left: int
    bottom: int
    right: int


def upsample_window(values_nhw: Tensor, size_hw: tuple[int, int], window: Window) -> Tensor:
    """Return the window of `interpolate(values, size_hw, mode="bilinear", align_corners=False)`.

    Args:
        values_nhw: float (N, h, w), N low-resolution maps.
        size_hw: of the whole image, larger or smaller than (h, w).
        window: the part of the image that is wanted.

    Returns:
        float (N, bottom - top, right - left).
    """
    _, height, width = values_nhw.shape
    upper, lower, weight_y = _taps(height, size_hw[0], window.top, window.bottom)
    before, after, weight_x = _taps(width, size_hw[1], window.left, window.right)
    # columns first, while there are few rows: the second step then copies whole rows
    first = int(upper[0])
    values_nhw = values_nhw[:, first : int(lower[-1]) + 1]
    wide_nhw = _blend(values_nhw, 2, before, after, weight_x)
    return _blend(wide_nhw, 1, upper - first, lower - first, weight_y[:, None])


def reach_window(values_hw: Tensor, size_hw: tuple[int, int], level: float) -> Window | None:
    """Return a window that holds every pixel whose upsampled value is above `level`; None where none can be.

    An upsampled value lies between its four neighbours, so it can only pass the level next to one that does.
    """
    above_hw = values_hw > level
    rows = torch.nonzero(above_hw.any(dim=1)).flatten()
    if rows.numel() == 0:
        return None
    columns = torch.nonzero(above_hw.any(dim=0)).flatten()
    top, bottom = _reach(int(rows[0]), int(rows[-1]), values_hw.shape[0], size_hw[0])
    left, right = _reach(int(columns[0]), int(columns[-1]), values_hw.shape[1], size_hw[1])
    return Window(top=top, left=left, bottom=bottom, right=right) if top < bottom and left < right else None


def _reach(first: int, last: int, low_size: int, full_size: int) -> tuple[int, int]:
    scale = full_size / low_size
    start = int((first - 0.5) * scale) - 1
    stop = int((last + 1.5) * scale) + 2
    return max(0, start), min(full_size, stop)


def _blend(values_nhw: Tensor, dim: int, before: Tensor, after: Tensor, weight: Tensor) -> Tensor:
    device = values_nhw.device
    first, second = (values_nhw.index_select(dim, index.to(device)) for index in (before, after))
    return torch.lerp(first, second, weight.to(values_nhw.dtype).to(device))


def _taps(low_size: int, full_size: int, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each pixel of start..stop its two neighbours and the second one's weight, on the CPU."""
    pixels = torch.arange(start, stop, dtype=torch.float64)
    source = ((pixels + 0.5) * (low_size / full_size) - 0.5).clamp_(0, low_size - 1)
    before = source.floor().long()
    after = (before + 1).clamp_(max=low_size - 1)
    return before, after, source - before
