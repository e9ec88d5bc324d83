"""Values at points between pixels: bilinear, zero outside, as `grid_sample` with align_corners=False.

Points are (x, y) in 0..1 of an image's width and height, as in the losses of both families.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.learning.losses.soft_labels import CERTAIN

__all__ = ["draw_points", "object_labels", "row_labels", "sample_features", "sample_rows"]


def draw_points(rows: int, count: int, device: torch.device) -> Tensor:
    """Return random points (rows, count, 2)."""
    return torch.rand(rows, count, 2, device=device)


def sample_features(features_bchw: Tensor, points_bp2: Tensor) -> Tensor:
    """Return (B, C, P): all channels of each image at the points of that image."""
    grid = (2.0 * points_bp2 - 1.0).to(features_bchw.dtype)[:, :, None]
    return functional.grid_sample(features_bchw, grid, align_corners=False).squeeze(3)


def sample_rows(planes_rhw: Tensor, points_rp2: Tensor) -> Tensor:
    """Return (R, P): each plane at its own points."""
    if not len(planes_rhw):
        return planes_rhw.new_zeros(0, points_rp2.shape[1]) + planes_rhw.sum()
    return sample_features(planes_rhw[:, None], points_rp2)[:, 0]


def object_labels(
    index_bhw: Tensor, points_bp2: Tensor, objects: int, shares_bhw: Tensor | None = None
) -> Tensor:
    """Return (B, N, P): the coverage of the points by objects 1 to N of an index map, 0..1.

    Args:
        index_bhw: int, the object of each pixel; 0 and less is none.
        points_bp2: points of each image.
        objects: N.
        shares_bhw: uint8, how much of each pixel counts, in 255ths; None: all.
    """
    ids_n1 = torch.arange(1, objects + 1, device=index_bhw.device, dtype=index_bhw.dtype)[:, None]
    size_hw = (index_bhw.shape[1], index_bhw.shape[2])
    labels_bnp = points_bp2.new_zeros(len(index_bhw), objects, points_bp2.shape[1])
    for position_bp, weight_bp in _corners(points_bp2, size_hw):
        found_bp = index_bhw.flatten(1).gather(1, position_bp)
        if shares_bhw is not None:
            weight_bp = weight_bp * (shares_bhw.flatten(1).gather(1, position_bp) / CERTAIN)
        labels_bnp += (found_bp[:, None] == ids_n1) * weight_bp[:, None]
    return labels_bnp


def row_labels(
    index_bhw: Tensor,
    images_r: Tensor,
    objects_r: Tensor,
    points_rp2: Tensor,
    shares_bhw: Tensor | None = None,
) -> Tensor:
    """Return (R, P): the coverage of the points of each row by one object of one image, 0..1.

    Args:
        index_bhw: as for `object_labels`.
        images_r: image of each row.
        objects_r: object of each row, from 0.
        points_rp2: points of each row.
        shares_bhw: as for `object_labels`.
    """
    size_hw = (index_bhw.shape[1], index_bhw.shape[2])
    start_r1 = (images_r * (size_hw[0] * size_hw[1]))[:, None]
    ids_r1 = (objects_r + 1).to(index_bhw.dtype)[:, None]
    flat = index_bhw.reshape(-1)
    labels_rp = points_rp2.new_zeros(points_rp2.shape[:2])
    for position_rp, weight_rp in _corners(points_rp2, size_hw):
        if shares_bhw is not None:
            weight_rp = weight_rp * (shares_bhw.reshape(-1)[position_rp + start_r1] / CERTAIN)
        labels_rp += (flat[position_rp + start_r1] == ids_r1) * weight_rp
    return labels_rp


def _corners(points: Tensor, size_hw: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield index in the flat plane and weight of the four pixels around each point; 0 outside."""
    height, width = size_hw
    # the order of operations of grid_sample, so that rounding is the same
    x = ((2.0 * points[..., 0] - 1.0 + 1.0) * width - 1.0) / 2.0
    y = ((2.0 * points[..., 1] - 1.0 + 1.0) * height - 1.0) / 2.0
    left, top = x.floor(), y.floor()
    for column, weight_x in ((left, left + 1.0 - x), (left + 1.0, x - left)):
        for row, weight_y in ((top, top + 1.0 - y), (top + 1.0, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            position = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            yield position, weight_x * weight_y * inside
