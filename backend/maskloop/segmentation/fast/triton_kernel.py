"""Triton's kernel for multi-scale deformable attention; imported late, since only CUDA builds have Triton.

Written with Triton's builtins alone, so that its interpreter runs it on a CPU too (`TRITON_INTERPRET=1`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskloop.segmentation.fast.grid_sample import Shapes

__all__ = ["attend_kernel", "launch_attend"]

TILE = 1024  # numbers that a program sums at once: 8 a thread, 16 bytes of bfloat16
WARPS = 4


# one build serves any image size
@triton.jit(do_not_specialize=["pixels", "queries", "pairs"])  # type: ignore[untyped-decorator]
def attend_kernel(  # type: ignore[no-untyped-def]
    value_bshd,  # noqa: ANN001  # pointers; the axes as in deformable_attention
    locations_bqhlp2,  # noqa: ANN001
    weights_bqhlp,  # noqa: ANN001
    output_bqhd,  # noqa: ANN001
    heights_l,  # noqa: ANN001  # floats: of whole numbers in a tuple Triton compiles each combination anew
    widths_l,  # noqa: ANN001
    pixels,  # noqa: ANN001  # S
    queries,  # noqa: ANN001  # Q
    pairs,  # noqa: ANN001  # B * Q * heads
    HEADS: tl.constexpr,  # noqa: N803
    LEVELS: tl.constexpr,  # noqa: N803
    POINTS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803  # D
    ROWS: tl.constexpr,  # noqa: N803  # pairs of query and head in a program
    COLUMNS: tl.constexpr,  # noqa: N803  # the power of two that holds D
) -> None:
    """Sum over levels, points and neighbours, for the pairs of a query and a head that are this program's."""
    pair_n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel_d = tl.arange(0, COLUMNS)
    there_n = pair_n < pairs
    head_n = pair_n % HEADS
    image_n = pair_n // HEADS // queries
    first_n = image_n * pixels  # 64 bits, as pair_n: a batch may have more than 2 ** 31 numbers
    kept_d = (channel_d < WIDTH)[None, :]
    total_nd = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for level in tl.static_range(LEVELS):
        height_f, width_f = heights_l[level], widths_l[level]
        height, width = tl.cast(height_f, tl.int32), tl.cast(width_f, tl.int32)
        for point in tl.static_range(POINTS):
            sample_n = pair_n * (LEVELS * POINTS) + (level * POINTS + point)
            x_n = tl.load(locations_bqhlp2 + 2 * sample_n, mask=there_n, other=0.0).to(tl.float32)
            y_n = tl.load(locations_bqhlp2 + 2 * sample_n + 1, mask=there_n, other=0.0).to(tl.float32)
            weight_n = tl.load(weights_bqhlp + sample_n, mask=there_n, other=0.0).to(tl.float32)
            x_n = tl.minimum(tl.maximum(x_n * width_f - 0.5, -1.0), width_f)  # farther out is zero as well
            y_n = tl.minimum(tl.maximum(y_n * height_f - 0.5, -1.0), height_f)
            left_n, top_n = tl.floor(x_n), tl.floor(y_n)
            right_share_n, bottom_share_n = x_n - left_n, y_n - top_n
            column_n, row_n = left_n.to(tl.int32), top_n.to(tl.int32)
            for bottom in tl.static_range(2):
                y_share_n = bottom_share_n if bottom else 1.0 - bottom_share_n
                for right in tl.static_range(2):
                    x_share_n = right_share_n if right else 1.0 - right_share_n
                    near_row_n, near_column_n = row_n + bottom, column_n + right
                    inside_n = there_n & (near_row_n >= 0) & (near_row_n < height)
                    inside_n = inside_n & (near_column_n >= 0) & (near_column_n < width)
                    pixel_n = first_n + near_row_n * width + near_column_n
                    value_nd = tl.load(
                        value_bshd + ((pixel_n * HEADS + head_n) * WIDTH)[:, None] + channel_d[None, :],
                        mask=inside_n[:, None] & kept_d,
                        other=0.0,
                    ).to(tl.float32)
                    total_nd += (weight_n * (y_share_n * x_share_n))[:, None] * value_nd
        first_n += height * width
    tl.store(
        output_bqhd + (pair_n * WIDTH)[:, None] + channel_d[None, :],
        total_nd.to(output_bqhd.dtype.element_ty),
        mask=there_n[:, None] & kept_d,
    )


def launch_attend(
    value_bshd: Tensor, shapes_l: Shapes, locations_bqhlp2: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    """Return what deformable_attention does, in one launch on the values' device."""
    batch, pixels, heads, width_d = value_bshd.shape
    queries, levels, points = locations_bqhlp2.shape[1], *locations_bqhlp2.shape[3:5]
    output_bqc = value_bshd.new_empty(batch, queries, heads * width_d)
    if not output_bqc.numel():
        return output_bqc
    columns = triton.next_power_of_2(width_d)
    rows = max(1, TILE // columns)
    pairs = batch * queries * heads
    with torch.cuda.device_of(value_bshd):  # type: ignore[no-untyped-call]  # Triton launches on the current one
        attend_kernel[(triton.cdiv(pairs, rows),)](
            value_bshd.contiguous(),
            locations_bqhlp2.contiguous(),
            weights_bqhlp.contiguous(),
            output_bqc,
            tuple(float(height) for height, _ in shapes_l),
            tuple(float(width) for _, width in shapes_l),
            pixels,
            queries,
            pairs,
            HEADS=heads,
            LEVELS=levels,
            POINTS=points,
            WIDTH=width_d,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return output_bqc
