"""The pixel decoder of Mask2Former and OneFormer, on tokens and channels-last maps from end to end."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.segmentation.fast.attention_modules import deformable_forward
from maskloop.segmentation.fast.deformable import Shapes, deformable_attention

__all__ = ["PixelFeatures", "centre_pixels", "decode_pixels", "sine_axes", "sine_positions"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelFeatures:
    """What the pixel decoder makes of the backbone's features."""

    levels_bsc: tuple[Tensor, ...]  # strides 32, 16, 8 as tokens
    shapes_l: tuple[tuple[int, int], ...]  # their heights and widths
    masks_bchw: Tensor  # stride 4: a mask is the product of these and a query's embedding


def decode_pixels(decoder: Any, features: Sequence[Tensor], *, triton: bool = False) -> PixelFeatures:
    """Return what the module makes of feature maps in eval mode.

    Args:
        decoder: Mask2FormerPixelDecoder or OneFormerPixelDecoder.
        features: (B, C, h, w) of all stages, the largest first.
        triton: as of deformable_attention.
    """
    inputs = features[::-1][: decoder.num_feature_levels]
    projected = [layers(level) for layers, level in zip(decoder.input_projections, inputs, strict=True)]
    shapes_l = tuple((level.shape[-2], level.shape[-1]) for level in projected)
    tokens_bsc = torch.cat([level.flatten(2).transpose(1, 2) for level in projected], dim=1)
    positions_1sc = torch.cat(
        [
            sine_positions(decoder.position_embedding, shape, tokens_bsc.device) + decoder.level_embed[level]
            for level, shape in enumerate(shapes_l)
        ],
        dim=1,
    ).to(tokens_bsc.dtype)
    pixels_1sl2 = centre_pixels(shapes_l, tokens_bsc.device)
    for layer in decoder.encoder.layers:
        tokens_bsc = _encode(layer, tokens_bsc, positions_1sc, pixels_1sl2, shapes_l, triton=triton)
    levels_bsc = tokens_bsc.split([height * width for height, width in shapes_l], dim=1)  # type: ignore[no-untyped-call]
    return PixelFeatures(
        levels_bsc=levels_bsc,
        shapes_l=shapes_l,
        masks_bchw=_upscale(decoder, features, levels_bsc, shapes_l),
    )


def _encode(
    layer: Any,
    tokens_bsc: Tensor,
    positions_1sc: Tensor,
    pixels_1sl2: Tensor,
    shapes_l: Shapes,
    *,
    triton: bool,
) -> Tensor:
    queries_bsc = tokens_bsc + positions_1sc
    if tokens_bsc.device.type == "cpu":
        attended_bsc, _ = deformable_forward(layer.self_attn, queries_bsc, tokens_bsc, pixels_1sl2, shapes_l)
    else:
        attended_bsc = _attend_grid(
            layer.self_attn, queries_bsc, tokens_bsc, pixels_1sl2, shapes_l, triton=triton
        )
    tokens_bsc = layer.self_attn_layer_norm(tokens_bsc + attended_bsc)
    wide_bsf = functional.relu(layer.fc1(tokens_bsc), inplace=True)
    output: Tensor = layer.final_layer_norm(tokens_bsc + layer.fc2(wide_bsf))
    return output


def _attend_grid(
    module: Any,
    queries_bsc: Tensor,
    tokens_bsc: Tensor,
    pixels_1sl2: Tensor,
    shapes_l: Shapes,
    *,
    triton: bool,
) -> Tensor:
    split = (*queries_bsc.shape[:2], module.n_heads, module.n_levels, module.n_points)
    sizes_l2 = pixels_1sl2.new_tensor([[width, height] for height, width in shapes_l])
    offsets = module.sampling_offsets(queries_bsc).view(*split, 2)
    locations = (pixels_1sl2[:, :, None, :, None] + 0.5 + offsets) / sizes_l2[:, None]
    weights = functional.softmax(module.attention_weights(queries_bsc).view(*split[:3], -1), -1).view(split)
    value_bshd = module.value_proj(tokens_bsc).unflatten(-1, (module.n_heads, -1))
    sampled = deformable_attention(value_bshd, shapes_l, locations, weights, triton=triton)
    output: Tensor = module.output_proj(sampled)
    return output


def _upscale(
    decoder: Any, features: Sequence[Tensor], levels_bsc: Sequence[Tensor], shapes_l: Shapes
) -> Tensor:
    laterals, outputs = (
        getattr(decoder, f"{kind}_convolutions", None) or getattr(decoder, f"{kind}_convs")
        for kind in ("lateral", "output")
    )
    finest_bchw = levels_bsc[-1].unflatten(1, shapes_l[-1]).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call]
    for lateral, output, feature in zip(
        laterals, outputs, features[: decoder.num_fpn_levels][::-1], strict=True
    ):
        side_bchw = lateral(feature)
        larger = functional.interpolate(finest_bchw, side_bchw.shape[-2:], mode="bilinear")
        finest_bchw = output(side_bchw + larger)
    masks_bchw: Tensor = decoder.mask_projection(finest_bchw)
    return masks_bchw


def sine_positions(embedder: Any, size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Return the output of a family's SinePositionEmbedding for a whole feature map.

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
