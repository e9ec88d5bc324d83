"""Multi-scale deformable attention on CUDA: the fused kernel against `grid_sample` for each level."""

from __future__ import annotations

import functools

from ..harness.case import Budget, Case, Result, Skip
from ..harness.timing import side_by_side

__all__ = ["CASES"]

HEADS, POINTS, WIDTH = 8, 4, 32  # as published
LEVELS = [(32, 32), (64, 64), (128, 128)]  # of an image of 1024 px
TOLERANCES = {
    "float32": (1e-5, 1e-4),
    "bfloat16": (1e-3, 2**-7),
}  # absolute and relative, by bits of the type
AIM = 3.0


def deformable_gpu(budget: Budget) -> list[Result]:
    """Sample one layer's values as the pixel decoder does, in float32 and bfloat16, one image and 16."""
    import torch

    from maskloop.segmentation.fast import deformable_cuda as fused
    from maskloop.segmentation.fast.grid_sample import grid_sampled

    if not torch.cuda.is_available():
        raise Skip("no CUDA device")
    if not fused.HAS_TRITON:
        raise Skip("Triton is not installed")
    generator = torch.Generator("cuda").manual_seed(1)
    draw = functools.partial(torch.rand, generator=generator, device="cuda")
    pixels = sum(height * width for height, width in LEVELS)
    results = []
    for batch in (1,) if budget.quick else (1, 16):
        split = (batch, pixels, HEADS, len(LEVELS), POINTS)
        locations, weights = draw(*split, 2) * 1.2 - 0.1, draw(split) / (len(LEVELS) * POINTS)
        for name, (absolute, relative) in TOLERANCES.items():
            value = (draw(batch, pixels, HEADS, WIDTH) - 0.5).to(getattr(torch, name))
            inputs = (value, LEVELS, locations, weights)
            with torch.inference_mode():
                pair = side_by_side(
                    functools.partial(fused.triton_attention, *inputs),
                    functools.partial(grid_sampled, *inputs),
                    budget,
                    warmup=3,
                    synchronise=torch.cuda.synchronize,
                )
            assert not fused.is_off(), "the kernel did not run: both ways were grid_sample"
            torch.testing.assert_close(pair.ours, pair.reference, atol=absolute, rtol=relative)
            apart = float((pair.ours.float() - pair.reference.float()).abs().max())
            results.append(
                pair.result(
                    f"deformable-gpu/1024 px batch {batch} {name}",
                    against="grid_sample",
                    same=f"equal to {apart:.1g}",
                    aim=AIM,
                )
            )
    return results


CASES = [
    Case(
        name="deformable-gpu", summary="deformable attention on CUDA, against grid_sample", run=deformable_gpu
    )
]
