"""Multi-scale deformable attention on CUDA without gradients: one launch of a Triton kernel.

The kernel stands behind an operator of torch: `torch.compile` takes it into its graph as it is, and inside
it a kernel that does not build on this machine gives way to `grid_sample`, compiled graph or not.
"""

from __future__ import annotations

import importlib.util
import logging

import torch
from torch import Tensor

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.segmentation.fast.grid_sample import Shapes, grid_sampled

__all__ = ["can_use_triton", "is_off", "triton_attention"]

HAS_TRITON = importlib.util.find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LOG = logging.getLogger(__name__)
_FAILED: list[str] = []  # why the kernel is off; at most one line


def can_use_triton(value_bshd: Tensor, locations_bqhlp2: Tensor, weights_bqhlp: Tensor) -> bool:
    """Return whether triton_attention can be used: on CUDA, with Triton, and without gradients."""
    tensors = (value_bshd, locations_bqhlp2, weights_bqhlp)
    return (
        HAS_TRITON
        and value_bshd.device.type == "cuda"
        and all(tensor.dtype in DTYPES for tensor in tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def triton_attention(
    value_bshd: Tensor, shapes_l: Shapes, locations_bqhlp2: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    """Return what deformable_attention does, summed in float32; without a gradient.

    Args:
        value_bshd: (B, S, heads, D), the levels' pixels one after the other; of `DTYPES`, as all three.
        shapes_l: (height, width) of each level.
        locations_bqhlp2: (B, Q, heads, L, P, 2).
        weights_bqhlp: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * D), as the values' dtype.
    """
    sizes = [size for shape_hw in shapes_l for size in shape_hw]
    output_bqc: Tensor = _attend(value_bshd, sizes, locations_bqhlp2, weights_bqhlp)
    return output_bqc


def is_off() -> bool:
    """Return whether the kernel failed in this process, so that triton_attention is `grid_sample`."""
    return bool(_FAILED)


@torch.library.custom_op("maskloop::deformable_attention", mutates_args=())
def _attend(value_bshd: Tensor, sizes: list[int], locations_bqhlp2: Tensor, weights_bqhlp: Tensor) -> Tensor:
    shapes_l = list(zip(sizes[::2], sizes[1::2], strict=True))
    if not _FAILED:
        try:
            from maskloop.segmentation.fast.triton_kernel import launch_attend

            return launch_attend(value_bshd, shapes_l, locations_bqhlp2, weights_bqhlp)
        except torch.OutOfMemoryError:
            raise
        except Exception as exc:  # of Triton, its compilers, the driver or a C compiler that is not there
            _FAILED.append(first_line(exc))
            log_action(
                _LOG,
                "acceleration_off",
                level=logging.WARNING,
                part="deformable attention",
                device=value_bshd.device.type,
                error=_FAILED[0],
            )
    return grid_sampled(value_bshd, shapes_l, locations_bqhlp2, weights_bqhlp).contiguous()


@_attend.register_fake
def _like_attend(
    value_bshd: Tensor, sizes: list[int], locations_bqhlp2: Tensor, weights_bqhlp: Tensor
) -> Tensor:
    batch, _, heads, width_d = value_bshd.shape
    return value_bshd.new_empty(batch, locations_bqhlp2.shape[1], heads * width_d)
