"""Sine positions of pixels: rows and columns are computed apart, for each depends on one axis only."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

__all__ = ["centre_pixels", "sine_axes", "sine_positions"]


def sine_positions(embedder: Any, size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Return what a family's SinePositionEmbedding says of a whole feature map.

    Args:
        embedder: of transformers, normalised.
        size_hw: of the map.
        device: where.

    Returns:
        float32 (1, h * w, 2 * its features), rows of pixels one after the other.
    """
    height, width = size_hw
    rows_hd, columns_wd = sine_axes(embedder, size_hw, device)
    both = (rows_hd[:, None].expand(-1, width, -1), columns_wd.expand(height, -1, -1))
    return torch.cat(both, dim=-1).view(1, height * width, -1)


def sine_axes(embedder: Any, size_hw: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first half of the positions, of rows (h, D), and the second, of columns (w, D)."""
    steps = (embedder.num_position_features, embedder.temperature, embedder.scale, device)
    return _axis(size_hw[0], *steps), _axis(size_hw[1], *steps)


@functools.lru_cache(maxsize=256)
def _axis(length: int, features: int, temperature: float, scale: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        place_l = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        place_l = place_l / (place_l[-1:] + 1e-6) * scale
        step_d = torch.arange(features, dtype=torch.int64, device=device).float()
        step_d = temperature ** (2 * torch.div(step_d, 2, rounding_mode="floor") / features)
        angle_ld = place_l[:, None] / step_d
        return torch.stack((angle_ld[:, 0::2].sin(), angle_ld[:, 1::2].cos()), dim=2).flatten(1)


@functools.lru_cache(maxsize=16)
def centre_pixels(shapes_l: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Return float32 (1, S, L, 2): where the middle of every pixel lies in each level's pixels, x and y."""
    with torch.inference_mode(False):
        centres = []
        for height, width in shapes_l:
            y_h = (torch.arange(height, device=device) + 0.5) / height
            x_w = (torch.arange(width, device=device) + 0.5) / width
            centres.append(torch.stack((x_w.expand(height, -1), y_h[:, None].expand(-1, width)), dim=-1))
        centre_s2 = torch.cat([centre.flatten(0, 1) for centre in centres])
        sizes_l2 = torch.tensor([[width, height] for height, width in shapes_l], device=device)
        return (centre_s2[:, None] * sizes_l2 - 0.5)[None]
