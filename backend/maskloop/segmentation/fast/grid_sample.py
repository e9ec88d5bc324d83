"""Multi-scale deformable attention by torch's own `grid_sample`, a call for each level; for any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Shapes", "grid_sampled"]

Shapes = Sequence[tuple[int, int]]  # (height, width) of each level


def grid_sampled(
    value_bshd: Tensor, shapes_l: Shapes, locations_bqhlp2: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    """Return what deformable_attention does; differentiable."""
    batch, queries = locations_bqhlp2.shape[:2]
    levels = value_bshd.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes_l], dim=-1)  # type: ignore[no-untyped-call]
    grids_lnqp2 = (2 * locations_bqhlp2 - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    weights_lnqp = weights_bqhlp.permute(3, 0, 2, 1, 4).flatten(1, 2)
    # bfloat16 knows a place in a map of 128 pixels to a quarter of a pixel only
    exact = torch.promote_types(value_bshd.dtype, locations_bqhlp2.dtype)
    total_ndq: Tensor | None = None
    for level_nds, shape_hw, grid, weights in zip(levels, shapes_l, grids_lnqp2, weights_lnqp, strict=True):
        sampled_ndqp = functional.grid_sample(
            level_nds.unflatten(-1, shape_hw).to(exact), grid.to(exact), align_corners=False
        )
        part_ndq = (sampled_ndqp * weights[:, None]).sum(-1)
        total_ndq = part_ndq if total_ndq is None else total_ndq + part_ndq
    assert total_ndq is not None
    return total_ndq.view(batch, -1, queries).transpose(1, 2).to(value_bshd.dtype)
