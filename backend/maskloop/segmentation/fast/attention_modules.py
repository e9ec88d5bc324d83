"""Subclasses of transformers' modules that compute the same faster; imported only where a model has them."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.models.mask2former import modeling_mask2former as mask2former
from transformers.models.oneformer import modeling_oneformer as oneformer

from maskloop.segmentation.fast.deformable import Shapes, sample_pixels
from maskloop.segmentation.fast.source_check import is_replaceable

__all__ = ["FastMask2FormerAttention", "FastOneFormerAttention", "deformable_forward", "fast_classes"]


def deformable_forward(
    module: Any,
    queries_bsc: Tensor,
    value_input_bsc: Tensor,
    pixels_sl2: Tensor,
    shapes_l: Shapes,
    *,
    hidden_mask_bs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what the deformable attention module of either family does, on the CPU.

    Args:
        module: with the weights.
        queries_bsc: with their position embeddings.
        value_input_bsc: without.
        pixels_sl2: (1 or B, S, L, 2) where each query lies in each level, x and y in its pixels.
        shapes_l: (height, width) of each level.
        hidden_mask_bs: True where a value does not count.

    Returns:
        (B, S, C), and the attention weights (B, S, heads, L, P).
    """
    batch, length, width = queries_bsc.shape
    heads, levels, points = module.n_heads, module.n_levels, module.n_points
    value_bsc = module.value_proj(value_input_bsc)
    if hidden_mask_bs is not None and bool(hidden_mask_bs.any()):
        value_bsc = value_bsc.masked_fill(hidden_mask_bs[..., None], 0.0)
    split = (batch, length, heads, levels, points)
    offsets = module.sampling_offsets
    # x and y apart: each of the many steps on them then runs over neighbours in memory
    x_bshlp, y_bshlp = (
        functional.linear(queries_bsc, offsets.weight[axis::2], offsets.bias[axis::2]).view(split)
        + pixels_sl2[:, :, None, :, None, axis]
        for axis in (0, 1)
    )
    weights_bshn = module.attention_weights(queries_bsc).view(batch, length, heads, levels * points)
    weights_bshlp = functional.softmax(weights_bshn, -1).view(split)
    value_bshd = value_bsc.view(batch, length, heads, width // heads)
    output_bsc = sample_pixels(value_bshd, shapes_l, x_bshlp, y_bshlp, weights_bshlp)
    return module.output_proj(output_bsc), weights_bshlp


class _FastDeformable:
    """The forward pass of both families: `embedding_bag` on the CPU, transformers' own elsewhere."""

    def forward(  # transformers' signature
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes_list: Shapes | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor]:
        shapes_l = spatial_shapes_list
        if shapes_l is None and others.get("spatial_shapes") is not None:  # as in transformers 5.17
            shapes_l = [(height, width) for height, width in others["spatial_shapes"].tolist()]
        known = reference_points is not None and reference_points.shape[-1] == 2
        if not known or not shapes_l or hidden_states.device.type != "cpu":
            if spatial_shapes_list is not None:
                others["spatial_shapes_list"] = spatial_shapes_list
            return super().forward(  # type: ignore[misc,no-any-return]
                hidden_states,
                attention_mask,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                position_embeddings=position_embeddings,
                reference_points=reference_points,
                **others,
            )
        assert reference_points is not None
        assert encoder_hidden_states is not None
        sizes_l2 = reference_points.new_tensor([[width, height] for height, width in shapes_l])
        return deformable_forward(
            self,
            hidden_states if position_embeddings is None else hidden_states + position_embeddings,
            encoder_hidden_states,
            reference_points * sizes_l2 - 0.5,
            shapes_l,
            hidden_mask_bs=attention_mask,
        )


class FastMask2FormerAttention(  # type: ignore[misc]
    _FastDeformable, mask2former.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention
):
    """Mask2Former's."""


class FastOneFormerAttention(  # type: ignore[misc]
    _FastDeformable, oneformer.OneFormerPixelDecoderEncoderMultiscaleDeformableAttention
):
    """OneFormer's."""


@functools.cache
def fast_classes(model_type: str) -> dict[type, type]:
    """Return class of transformers -> ours; empty where theirs is not known."""
    fast = {"mask2former": FastMask2FormerAttention, "oneformer": FastOneFormerAttention}[model_type]
    plain = fast.__mro__[2]
    return {plain: fast} if is_replaceable(f"{model_type} sampling") else {}
