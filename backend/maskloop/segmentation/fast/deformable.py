"""Multi-scale deformable attention; on the CPU as one sum of table rows, which reads each value once.

Four rows and weights stand for a sample between pixels: attention is a weighted sum of rows (embedding_bag).
Elsewhere it is `grid_sample` for each level; on CUDA one launch of a Triton kernel (deformable_cuda.py) where
a setting wants it: that kernel has not been measured on a GPU.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskloop.segmentation.fast.deformable_cuda import can_use_triton, triton_attention
from maskloop.segmentation.fast.grid_sample import Shapes, grid_sampled

__all__ = ["Shapes", "deformable_attention", "embedding_bag_sums", "sample_pixels"]

TOP, LEFT, BOTTOM = 1, 1, 3  # zeros around a level, so that no sample needs a test of whether it is inside


def deformable_attention(
    value_bshd: Tensor,
    shapes_l: Shapes,
    locations_bqhlp2: Tensor,
    weights_bqhlp: Tensor,
    *,
    triton: bool = False,
) -> Tensor:
    """Return the weighted sums of values sampled between pixels, zeros beyond the edge; differentiable.

    Args:
        value_bshd: (B, S, heads, D), the levels' pixels one after the other, row by row.
        shapes_l: (height, width) of each level; their areas add up to S.
        locations_bqhlp2: (B, Q, heads, L, P, 2), x and y of samples, 0 to 1 from edge to edge.
        weights_bqhlp: (B, Q, heads, L, P), of samples.
        triton: use our Triton kernel where it can be used: on CUDA, without gradients.

    Returns:
        (B, Q, heads * D), as the values' dtype.

    Source:
        Zhu et al., "Deformable DETR", ICLR 2021, section 4.1.
    """
    if triton and can_use_triton(value_bshd, locations_bqhlp2, weights_bqhlp):
        return triton_attention(value_bshd, shapes_l, locations_bqhlp2, weights_bqhlp)
    if value_bshd.device.type != "cpu":
        return grid_sampled(value_bshd, shapes_l, locations_bqhlp2, weights_bqhlp)
    sizes_l12 = locations_bqhlp2.new_tensor([[[width, height]] for height, width in shapes_l])
    x_bqhlp, y_bqhlp = (locations_bqhlp2 * sizes_l12 - 0.5).unbind(-1)
    return sample_pixels(value_bshd, shapes_l, x_bqhlp, y_bqhlp, weights_bqhlp)


def sample_pixels(
    value_bshd: Tensor, shapes_l: Shapes, x_bqhlp: Tensor, y_bqhlp: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    """Return what deformable_attention does, of locations in pixels of their level: 0 is a pixel's middle.

    Meant for the CPU. A sample beyond the edge counts as the zeros that lie there.
    """
    batch, _, heads, width_d = value_bshd.shape
    queries, samples = x_bqhlp.shape[1], x_bqhlp[0, 0, 0].numel()
    table_rd = _padded_table(value_bshd, shapes_l)
    layout = _layout(tuple(shapes_l), x_bqhlp.shape[-1], heads, batch)
    flat = (batch, queries, heads, samples)
    x_bqhs = _precise(x_bqhlp).reshape(flat).clamp(layout.low_s, layout.right_s)
    y_bqhs = _precise(y_bqhlp).reshape(flat).clamp(layout.low_s, layout.below_s)
    left_bqhs, top_bqhs = x_bqhs.detach().floor(), y_bqhs.detach().floor()
    row_bqhs = (top_bqhs * layout.stride_s + left_bqhs).to(torch.int32) * heads + layout.first_bqhs
    rows_nk = (row_bqhs[..., None, :] + layout.corner_cs).reshape(-1, 4 * samples)
    right_bqhs, bottom_bqhs = x_bqhs - left_bqhs, y_bqhs - top_bqhs
    bottom_bqhs = bottom_bqhs * (weights := _precise(weights_bqhlp).reshape(flat))
    weight_bqhys = torch.stack((weights - bottom_bqhs, bottom_bqhs), dim=-2)
    weight_bqhxs = torch.stack((1 - right_bqhs, right_bqhs), dim=-2)
    weights_nk = (weight_bqhys[..., None, :] * weight_bqhxs[..., None, :, :]).reshape(rows_nk.shape)
    sums_nd = embedding_bag_sums(rows_nk, table_rd, weights_nk.to(table_rd.dtype))
    return sums_nd.view(batch, queries, heads * width_d)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


class _Layout:
    """Where levels, images and heads lie in the table, and how far samples of a level may go."""

    def __init__(self, shapes_l: Shapes, points: int, heads: int, batch: int) -> None:
        areas_l = [_padded_area(shape) for shape in shapes_l]
        spread = functools.partial(_spread, points=points)
        starts_l = [sum(areas_l[:level]) for level in range(len(areas_l))]
        strides_l = [width + LEFT for _, width in shapes_l]
        first_l = [start + TOP * stride + LEFT for start, stride in zip(starts_l, strides_l, strict=True)]
        self.low_s = torch.tensor(-1.0)
        self.right_s = spread([float(width) for _, width in shapes_l])
        self.below_s = spread([float(height) for height, _ in shapes_l])
        self.stride_s = spread([float(stride) for stride in strides_l])
        image_b = torch.arange(batch, dtype=torch.int32).view(-1, 1, 1, 1) * (sum(areas_l) * heads)
        head_h = torch.arange(heads, dtype=torch.int32).view(-1, 1)
        self.first_bqhs = image_b + head_h + spread([first * heads for first in first_l])
        below_s = spread([stride * heads for stride in strides_l])
        ones_s = torch.full_like(below_s, heads)
        self.corner_cs = torch.stack((0 * below_s, ones_s, below_s, below_s + ones_s))


@functools.lru_cache(maxsize=16)
def _layout(shapes_l: Shapes, points: int, heads: int, batch: int) -> _Layout:
    with torch.inference_mode(False):  # kept for callers that want gradients
        return _Layout(shapes_l, points, heads, batch)


def _spread(values_l: Sequence[float], points: int) -> Tensor:
    dtype = torch.int32 if isinstance(values_l[0], int) else torch.float32
    return torch.tensor(values_l, dtype=dtype).repeat_interleave(points)


def _padded_area(shape_hw: tuple[int, int]) -> int:
    # a row's left zero is also the right zero of the row before
    return (shape_hw[0] + TOP + BOTTOM) * (shape_hw[1] + LEFT)


def _padded_table(value_bshd: Tensor, shapes_l: Shapes) -> Tensor:
    batch, _, heads, width_d = value_bshd.shape
    areas_l = [_padded_area(shape) for shape in shapes_l]
    table_brc = value_bshd.new_zeros(batch, sum(areas_l), heads * width_d)
    pixel, start = 0, 0
    for (height, width), area in zip(shapes_l, areas_l, strict=True):
        level_bhwc = value_bshd[:, pixel : pixel + height * width].reshape(batch, height, width, -1)
        place_bhwc = table_brc[:, start : start + area].view(batch, -1, width + LEFT, heads * width_d)
        place_bhwc[:, TOP : TOP + height, LEFT:] = level_bhwc
        pixel, start = pixel + height * width, start + area
    return table_brc.view(-1, width_d)


def embedding_bag_sums(rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
    """Return (N, D), for each n the sum over k of a weight times a row; differentiable, on the CPU.

    Args:
        rows_nk: int32, which rows.
        table_rd: of which they are.
        weights_nk: of the table's dtype.
    """
    if torch.is_grad_enabled() and (table_rd.requires_grad or weights_nk.requires_grad):
        sums_nd: Tensor = _EmbeddingBagSums.apply(rows_nk, table_rd, weights_nk)  # type: ignore[no-untyped-call]
        return sums_nd
    return _sums(rows_nk, table_rd, weights_nk)


class _EmbeddingBagSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
        ctx.save_for_backward(rows_nk, table_rd, weights_nk)
        return _sums(rows_nk, table_rd, weights_nk)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nd: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        rows_nk, table_rd, weights_nk = ctx.saved_tensors
        grad_nd = grad_nd.float().contiguous()
        table = weights = None
        if ctx.needs_input_grad[1]:
            table = _transposed_sums(rows_nk, weights_nk.float(), grad_nd, len(table_rd)).to(table_rd.dtype)
        if ctx.needs_input_grad[2]:
            weights = _products(rows_nk, grad_nd, table_rd.float()).to(weights_nk.dtype)
        return None, table, weights


def _sums(rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
    return functional.embedding_bag(rows_nk, table_rd, mode="sum", per_sample_weights=weights_nk)


def _transposed_sums(rows_nk: Tensor, weights_nk: Tensor, values_nd: Tensor, rows: int) -> Tensor:
    """Return (R, D), for each row the sum of the values of all bags that it is in, by its weight there."""
    from scipy.sparse import csr_matrix  # used in training alone

    bags, size = rows_nk.shape
    starts = np.arange(0, bags * size + 1, size, dtype=np.int32)
    flat = weights_nk.reshape(-1).numpy(), rows_nk.reshape(-1).numpy(), starts
    by_row = csr_matrix(flat, shape=(bags, rows), copy=False).tocsc()
    return functional.embedding_bag(
        torch.from_numpy(by_row.indices),
        values_nd,
        torch.from_numpy(by_row.indptr),
        mode="sum",
        per_sample_weights=torch.from_numpy(by_row.data),
        include_last_offset=True,
    )


def _products(rows_nk: Tensor, left_nd: Tensor, right_rd: Tensor) -> Tensor:
    """Return (N, K): the products of each n with its rows."""
    _quiet_sparse()
    bags, size = rows_nk.shape
    starts = torch.arange(0, bags * size + 1, size, dtype=torch.int32)
    places = torch.sparse_csr_tensor(
        starts,
        rows_nk.reshape(-1),
        left_nd.new_zeros(bags * size),
        (bags, len(right_rd)),
        check_invariants=False,
    )
    products: Tensor = torch.sparse.sampled_addmm(places, left_nd, right_rd.T, beta=0.0).values()
    return products.view(bags, size)


@functools.cache
def _quiet_sparse() -> None:
    """Take the one warning that torch gives in each process, that its sparse matrices may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()
