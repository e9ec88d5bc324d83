"""Bilinear upsampling of a window: what `interpolate(align_corners=False)` gives there, without the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Window", "reach_window", "upsample_strips", "upsample_window"]


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


def upsample_strips(
    values_hw: Tensor, size_hw: tuple[int, int], window: Window, *, most_values: int
) -> Iterator[Tensor]:
    """Yield what `upsample_window` returns for one map in strips of whole rows, top to bottom.

    Args:
        values_hw: float (h, w), one low-resolution map, on the CPU.
        size_hw: of the whole image, larger or smaller than (h, w).
        window: the part of the image that is wanted.
        most_values: of a strip, unless a single row has more.

    Yields:
        float32 (rows, right - left), which the caller may overwrite.
    """
    height, width = values_hw.shape
    before, after, weight_x = _taps(width, size_hw[1], window.left, window.right)
    upper, lower, weight_y = _taps(height, size_hw[0], window.top, window.bottom)
    first = int(upper[0])
    wide_hw = _blend(values_hw[first : int(lower[-1]) + 1].float(), 1, before, after, weight_x)
    upper, lower, weight_y = upper - first, lower - first, weight_y[:, None]
    rows = max(1, most_values // (window.right - window.left))
    for strip in (slice(top, top + rows) for top in range(0, len(upper), rows)):
        yield _blend(wide_hw, 0, upper[strip], lower[strip], weight_y[strip])


def reach_window(values_hw: Tensor, size_hw: tuple[int, int], level: float) -> Window | None:
    """Return a window that holds every pixel whose upsampled value is above `level`; None where none can be.

    An upsampled value lies between its four neighbours, so it can only pass the level next to one that does.
    """
    above_hw = np.greater(values_hw.float().cpu().numpy(), level)  # ten times as fast as torch's on one core
    left, top, width, height = cv2.boundingRect(above_hw.view(np.uint8))
    if width == 0:
        return None
    top, bottom = _reach(top, top + height - 1, values_hw.shape[0], size_hw[0])
    left, right = _reach(left, left + width - 1, values_hw.shape[1], size_hw[1])
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
    before, after, weight = (torch.from_numpy(taps[start:stop]) for taps in _axis_taps(low_size, full_size))
    return before, after, weight


@lru_cache(maxsize=16)  # the same for every mask of an image, and for every strip of one
def _axis_taps(
    low_size: int, full_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    source = np.clip((np.arange(full_size) + 0.5) * (low_size / full_size) - 0.5, 0, low_size - 1)
    before = np.floor(source).astype(np.int64)
    return before, np.minimum(before + 1, low_size - 1), source - before
