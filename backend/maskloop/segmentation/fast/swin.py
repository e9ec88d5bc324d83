"""Swin as a backbone: windows are gathered by one index, and only those that a shift cut get a mask."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["StageWindows", "Windows", "swin_features", "swin_windows"]

APART = -100.0  # what transformers adds where two tokens of a window are no neighbours


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Where the tokens of a feature map go; whole windows first, then those that a shift joins up anew."""

    gather_t: Tensor  # int64: for each place in a window the token that stands there
    padding_t: Tensor  # int64: places where none does
    scatter_t: Tensor  # int64: for each token its place
    whole: int  # how many windows are whole
    apart_nss: Tensor  # float32 (windows - whole, S, S): APART where tokens must not see each other


StageWindows: TypeAlias = Sequence[Sequence[Windows]]  # of each stage's blocks


def swin_features(
    backbone: Any, pixel_values_bchw: Tensor, windows: StageWindows | None = None
) -> list[Tensor]:
    """Return the feature maps of a transformers SwinBackbone in eval mode.

    Args:
        backbone: without absolute position embeddings.
        pixel_values_bchw: float.
        windows: as `swin_windows` gives them for this shape, for a compiler: it cannot trace their making.

    Returns:
        (B, C, h, w) for each stage of `out_features`, channels last in memory.
    """
    tokens_blc, (height, width) = backbone.swin.embeddings(pixel_values_bchw)
    tokens_blc = tokens_blc.contiguous()
    if windows is None:
        windows = swin_windows(backbone, pixel_values_bchw.shape, pixel_values_bchw.device)
    features: list[Tensor] = []
    stages = zip(backbone.stage_names[1:], backbone.swin.encoder.layers, windows, strict=True)
    for name, stage, stage_windows in stages:
        for block, block_windows in zip(stage.blocks, stage_windows, strict=True):
            tokens_blc = _block(block, tokens_blc, block_windows)
        if name in backbone.out_features:
            normed_blc = backbone.hidden_states_norms[name](tokens_blc)
            features.append(normed_blc.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        if stage.downsample is not None:
            tokens_blc = stage.downsample(tokens_blc, (height, width))
            height, width = (height + 1) // 2, (width + 1) // 2
    return features


def swin_windows(backbone: Any, shape_bchw: Sequence[int], device: torch.device) -> StageWindows:
    """Return the windows of every block for a shape of input; those of the last shapes are kept."""
    batch, _, height, width = shape_bchw
    patch_h, patch_w = backbone.swin.embeddings.patch_embeddings.patch_size
    height, width = -(-height // patch_h), -(-width // patch_w)
    stages = []
    for stage in backbone.swin.encoder.layers:
        sides = [(int(block.window_size), int(block.shift_size)) for block in stage.blocks]
        stages.append(
            [_windows((batch, height, width), side=side, shift=shift, device=device) for side, shift in sides]
        )
        if stage.downsample is not None:
            height, width = (height + 1) // 2, (width + 1) // 2
    return stages


def _block(block: Any, tokens_blc: Tensor, windows: Windows) -> Tensor:
    batch, length, channels = tokens_blc.shape
    normed_tc = block.layernorm_before(tokens_blc).view(-1, channels)
    gathered_tc = normed_tc.index_select(0, windows.gather_t)
    if len(windows.padding_t):
        gathered_tc.index_fill_(0, windows.padding_t, 0.0)
    attended_tc = _attend(block.attention, gathered_tc, windows, int(block.window_size) ** 2)
    tokens_blc = tokens_blc + attended_tc.index_select(0, windows.scatter_t).view(batch, length, channels)
    change_blc: Tensor = block.mlp(block.layernorm_after(tokens_blc))
    return tokens_blc + change_blc


def _attend(attention: Any, tokens_tc: Tensor, windows: Windows, area: int) -> Tensor:
    heads = attention.num_attention_heads
    split = (-1, area, heads, attention.head_dim)
    query, key, value = (
        projection(tokens_tc).view(split).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias_1hss = attention.relative_position_bias()
    parts: list[Tensor] = []
    for chosen, mask in (
        (slice(None, windows.whole), bias_1hss),
        (slice(windows.whole, None), bias_1hss + windows.apart_nss[:, None]),
    ):
        if len(query[chosen]):
            parts.append(
                functional.scaled_dot_product_attention(
                    query[chosen],
                    key[chosen],
                    value[chosen],
                    attn_mask=mask.to(query.dtype),
                    scale=attention.scaling,
                ).transpose(1, 2)
            )
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    output: Tensor = attention.o_proj(joined.reshape(tokens_tc.shape))
    return output


@functools.lru_cache(maxsize=64)
def _windows(shape_bhw: tuple[int, int, int], *, side: int, shift: int, device: torch.device) -> Windows:
    batch, height, width = shape_bhw
    with torch.inference_mode(False):
        places_hw = torch.full((-(-height // side) * side, -(-width // side) * side), -1)
        places_hw[:height, :width] = torch.arange(height * width).view(height, width)
        regions_hw = _regions(places_hw.shape[0], side, shift)[:, None] * 3
        regions_hw = regions_hw + _regions(places_hw.shape[1], side, shift)
        token_ns = _cut(places_hw.roll((-shift, -shift), (0, 1)), side)
        region_ns = _cut(regions_hw, side)
        whole_n = (region_ns == region_ns[:, :1]).all(dim=1)
        order_n = torch.argsort(~whole_n, stable=True)
        whole = int(whole_n.sum())
        token_ns, region_ns = token_ns[order_n], region_ns[order_n][whole:]
        apart_nss = torch.where(region_ns[:, :, None] == region_ns[:, None, :], 0.0, APART)
        images_b11 = torch.arange(batch).view(-1, 1, 1) * (height * width)
        token_bns = torch.where(token_ns < 0, -1, token_ns + images_b11)
        gather_t = torch.cat((token_bns[:, :whole].flatten(), token_bns[:, whole:].flatten()))
        filled_t = torch.nonzero(gather_t >= 0).flatten()
        scatter_t = torch.empty(batch * height * width, dtype=torch.int64)
        scatter_t[gather_t[filled_t]] = filled_t
        return Windows(
            gather_t=gather_t.clamp(min=0).to(device),
            padding_t=torch.nonzero(gather_t < 0).flatten().to(device),
            scatter_t=scatter_t.to(device),
            whole=whole * batch,
            apart_nss=apart_nss.repeat(batch, 1, 1).to(device),
        )


def _regions(length: int, side: int, shift: int) -> Tensor:
    place = torch.arange(length)
    if shift <= 0:
        return torch.zeros_like(place)
    return (place >= length - side).long() + (place >= length - shift).long()


def _cut(map_hw: Tensor, side: int) -> Tensor:
    height, width = map_hw.shape
    cut = map_hw.view(height // side, side, width // side, side).transpose(1, 2)
    return cut.reshape(-1, side * side)
