"""The lean forward pass written so that a tracer keeps height, width and batch open: one graph for all sizes.

Windows, positions and sampling points are arithmetic on the sizes here, where `lean_forward` looks them up. A
graph whose sizes are set afterwards has them as constants again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskloop.segmentation.fast.model_forward import decoder_parts
from maskloop.segmentation.fast.query_decoder import attend, attend_projected, decode_queries
from maskloop.segmentation.fast.swin import APART

__all__ = ["SymbolicForward"]

Sizes: TypeAlias = Sequence[tuple[Any, Any]]  # heights and widths: numbers, or tensors while they are traced


class SymbolicForward(nn.Module):
    """A Mask2Former or OneFormer in eval mode, of inputs whose sides are multiples of 32."""

    def __init__(self, model: Any, *, swin: bool) -> None:
        """Args:
        model: of which the forward pass is.
        swin: its backbone is a SwinBackbone that `swin_features` knows.
        """
        super().__init__()
        self.model = model
        self._swin = swin

    def forward(self, pixel_values_bchw: Tensor, task_inputs_bt: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the tensors of a LeanOutput: logits, pixel embeddings, layers, and each level's tokens."""
        model = self.model.model
        backbone, module = model.pixel_level_module.encoder, model.transformer_module
        features = (
            _swin_features(backbone, pixel_values_bchw)
            if self._swin
            else list(backbone(pixel_values_bchw).feature_maps)
        )
        maps, masks_bchw = _decode_pixels(model.pixel_level_module.decoder, features)
        levels = []
        for index, map_bchw in enumerate(maps):
            projection = module.input_projections[index]
            tokens_bsc = _tokens(map_bchw)
            if isinstance(projection, nn.Conv2d):
                tokens_bsc = functional.linear(tokens_bsc, projection.weight.flatten(1), projection.bias)
            values_bsc = tokens_bsc + module.level_embed.weight[index]
            keys_bsc = values_bsc + _positions(module.position_embedder, map_bchw)
            levels.append((keys_bsc, values_bsc, (map_bchw.shape[2], map_bchw.shape[3])))
        decoder, classify = decoder_parts(self.model)
        if task_inputs_bt is None:
            queries_bqc = module.queries_features.weight[None].expand(masks_bchw.shape[0], -1, -1)
        else:
            queries_bqc = _task_queries(model, masks_bchw, task_inputs_bt)
        positions_1qc = module.queries_embedder.weight[None]
        layers = decode_queries(decoder, queries_bqc, positions_1qc, levels, masks_bchw)
        normed_bqc = decoder.norm(layers[-1])
        embeddings_bqc = decoder.to_masks(normed_bqc)
        masks_bqs = torch.bmm(embeddings_bqc, masks_bchw.flatten(2))
        masks_bqhw = masks_bqs.reshape(*embeddings_bqc.shape[:2], *masks_bchw.shape[2:])
        tokens = (values_bsc for _, values_bsc, _ in levels)
        return (classify(normed_bqc), masks_bqhw, masks_bchw, torch.stack(layers), *tokens)


def _tokens(map_bchw: Tensor) -> Tensor:
    return map_bchw.flatten(2).transpose(1, 2)


def _map(tokens_bsc: Tensor, size_hw: tuple[Any, Any]) -> Tensor:
    return tokens_bsc.transpose(1, 2).reshape(tokens_bsc.shape[0], tokens_bsc.shape[2], *size_hw)


def _positions(embedder: Any, map_bchw: Tensor) -> Tensor:
    """Return what `sine_positions` does for the map's size."""
    height, width = map_bchw.shape[2], map_bchw.shape[3]
    rows_hd, columns_wd = _axis(embedder, height), _axis(embedder, width)
    both = (rows_hd[:, None].expand(-1, width, -1), columns_wd[None].expand(height, -1, -1))
    return torch.cat(both, dim=-1).flatten(0, 1)[None]


def _axis(embedder: Any, length: Any) -> Tensor:
    features = embedder.num_position_features
    place_l = torch.arange(1, length + 1).float()
    place_l = place_l / (place_l[-1:] + 1e-6) * embedder.scale
    step_d = torch.arange(features, dtype=torch.int64).float()
    step_d = embedder.temperature ** (2 * torch.div(step_d, 2, rounding_mode="floor") / features)
    angle_ld = place_l[:, None] / step_d
    return torch.stack((angle_ld[:, 0::2].sin(), angle_ld[:, 1::2].cos()), dim=2).flatten(1)


def _swin_features(backbone: Any, pixel_values_bchw: Tensor) -> list[Tensor]:
    """Return what `swin_features` does."""
    embeddings = backbone.swin.embeddings
    map_bchw = embeddings.patch_embeddings.projection(pixel_values_bchw)
    size_hw = map_bchw.shape[2], map_bchw.shape[3]
    tokens_bsc = embeddings.norm(_tokens(map_bchw))
    features = []
    for name, stage in zip(backbone.stage_names[1:], backbone.swin.encoder.layers, strict=True):
        windows: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor | None]] = {}
        for block in stage.blocks:
            side, shift = int(block.window_size), int(block.shift_size)
            if (side, shift) not in windows:
                windows[side, shift] = _windows(size_hw, side, shift)
            tokens_bsc = _block(block, tokens_bsc, windows[side, shift], side)
        if name in backbone.out_features:
            features.append(_map(backbone.hidden_states_norms[name](tokens_bsc), size_hw))
        if stage.downsample is not None:
            map_bhwc = tokens_bsc.reshape(tokens_bsc.shape[0], *size_hw, tokens_bsc.shape[2])
            corners = [map_bhwc[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
            size_hw = (size_hw[0] + 1) // 2, (size_hw[1] + 1) // 2
            merged_bsc = torch.cat(corners, dim=-1).flatten(1, 2)
            tokens_bsc = stage.downsample.reduction(stage.downsample.norm(merged_bsc))
    return features


def _windows(size_hw: tuple[Any, Any], side: int, shift: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return for each place in a window its token (the one after the last where none stands there).

    Further for each token its place, and for shifted windows what is added where tokens are no neighbours.
    """
    height, width = size_hw
    down, across = (height + side - 1) // side, (width + side - 1) // side
    padded_h, padded_w = down * side, across * side
    y_h1, x_1w = torch.arange(height)[:, None], torch.arange(width)[None]
    y_h1, x_1w = (y_h1 + padded_h - shift) % padded_h, (x_1w + padded_w - shift) % padded_w
    window_hw = y_h1 // side * across + x_1w // side
    scatter_t = (window_hw * side * side + y_h1 % side * side + x_1w % side).flatten()
    # (windows down, windows across, row in the window, column in it)
    inside = torch.arange(side)
    y_nnss = torch.arange(down)[:, None, None, None] * side + inside[:, None] + torch.zeros_like(inside)
    y_nnss = y_nnss + 0 * torch.arange(across)[:, None, None]
    x_nnss = torch.arange(across)[:, None, None] * side + inside + torch.zeros_like(inside)[:, None]
    x_nnss = x_nnss + 0 * torch.arange(down)[:, None, None, None]
    token_y, token_x = (y_nnss + shift) % padded_h, (x_nnss + shift) % padded_w
    stands = (token_y < height) & (token_x < width)
    gather_t = torch.where(stands, token_y * width + token_x, height * width).flatten()
    if shift <= 0:
        return gather_t, scatter_t, None
    regions = _regions(y_nnss, padded_h, side, shift) * 3 + _regions(x_nnss, padded_w, side, shift)
    region_ns = regions.reshape(-1, side * side)
    apart_nss = torch.where(region_ns[:, :, None] == region_ns[:, None, :], 0.0, APART)
    return gather_t, scatter_t, apart_nss


def _regions(places: Tensor, length: Any, side: int, shift: int) -> Tensor:
    shifted: Tensor = (places >= length - side).long() + (places >= length - shift).long()
    return shifted


def _block(
    block: Any, tokens_bsc: Tensor, windows: tuple[Tensor, Tensor, Tensor | None], side: int
) -> Tensor:
    gather_t, scatter_t, apart_nss = windows
    batch, channels = tokens_bsc.shape[0], tokens_bsc.shape[2]
    normed_bsc = block.layernorm_before(tokens_bsc)
    normed_bsc = torch.cat((normed_bsc, torch.zeros_like(normed_bsc[:, :1])), dim=1)
    gathered_btc = normed_bsc.index_select(1, gather_t)
    attention = block.attention
    split = (batch, -1, side * side, attention.num_attention_heads, attention.head_dim)
    query, key, value = (
        projection(gathered_btc).reshape(split).transpose(2, 3)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias_1hss = attention.relative_position_bias()
    if apart_nss is not None:
        bias_1hss = bias_1hss + apart_nss[:, None]
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias_1hss[None], scale=attention.scaling
    )
    attended_btc = attention.o_proj(attended.transpose(2, 3).reshape(batch, -1, channels))
    tokens_bsc = tokens_bsc + attended_btc.index_select(1, scatter_t)
    change_bsc: Tensor = block.mlp(block.layernorm_after(tokens_bsc))
    return tokens_bsc + change_bsc


def _decode_pixels(decoder: Any, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return the maps of strides 32, 16, 8 and the pixel embeddings, as `decode_pixels` does."""
    inputs = features[::-1][: decoder.num_feature_levels]
    projected = [layers(level) for layers, level in zip(decoder.input_projections, inputs, strict=True)]
    sizes: Sizes = [(level.shape[2], level.shape[3]) for level in projected]
    areas = [height * width for height, width in sizes]
    tokens_bsc = torch.cat([_tokens(level) for level in projected], dim=1)
    positions_1sc = torch.cat(
        [
            _positions(decoder.position_embedding, level) + decoder.level_embed[index]
            for index, level in enumerate(projected)
        ],
        dim=1,
    )
    centres_s2 = torch.cat([_centres(size_hw) for size_hw in sizes])
    for layer in decoder.encoder.layers:
        queries_bsc = tokens_bsc + positions_1sc
        attended_bsc = _sample(layer.self_attn, queries_bsc, tokens_bsc, centres_s2, sizes)
        tokens_bsc = layer.self_attn_layer_norm(tokens_bsc + attended_bsc)
        wide_bsf = functional.relu(layer.fc1(tokens_bsc))
        tokens_bsc = layer.final_layer_norm(tokens_bsc + layer.fc2(wide_bsf))
    maps, start = [], 0
    for size_hw, area in zip(sizes, areas, strict=True):
        maps.append(_map(tokens_bsc[:, start : start + area], size_hw))
        start = start + area
    laterals, outputs = (
        getattr(decoder, f"{kind}_convolutions", None) or getattr(decoder, f"{kind}_convs")
        for kind in ("lateral", "output")
    )
    finest_bchw = maps[-1]
    for lateral, output, feature in zip(
        laterals, outputs, features[: decoder.num_fpn_levels][::-1], strict=True
    ):
        side_bchw = lateral(feature)
        size_hw = side_bchw.shape[2], side_bchw.shape[3]
        finest_bchw = output(side_bchw + functional.interpolate(finest_bchw, size_hw, mode="bilinear"))
    return maps, decoder.mask_projection(finest_bchw)


def _centres(size_hw: tuple[Any, Any]) -> Tensor:
    """Return (h * w, 2): x and y of each pixel's middle, 0..1."""
    height, width = size_hw
    y_h = (torch.arange(height) + 0.5) / height
    x_w = (torch.arange(width) + 0.5) / width
    both = (x_w[None].expand(height, -1), y_h[:, None].expand(-1, width))
    return torch.stack(both, dim=-1).flatten(0, 1)


def _sample(module: Any, queries_bsc: Tensor, tokens_bsc: Tensor, centres_s2: Tensor, sizes: Sizes) -> Tensor:
    """Return what the deformable attention of either family does."""
    batch, heads, points = tokens_bsc.shape[0], module.n_heads, module.n_points
    split = (batch, -1, heads, module.n_levels, points, 2)
    offsets = module.sampling_offsets(queries_bsc).reshape(split)
    weights = module.attention_weights(queries_bsc).reshape(batch, -1, heads, module.n_levels * points)
    weights = functional.softmax(weights, dim=-1)
    values_bsc = module.value_proj(tokens_bsc)
    depth = values_bsc.shape[2] // heads
    sampled_bds: Any = 0
    start: Any = 0
    for level, (height, width) in enumerate(sizes):
        end = start + height * width
        value = values_bsc[:, start:end].transpose(1, 2).reshape(-1, depth, height, width)
        start = end
        size_2 = torch.stack((torch.as_tensor(width), torch.as_tensor(height))).float()
        places = (centres_s2[None, :, None, None] + offsets[:, :, :, level] / size_2) * 2 - 1
        places = places.transpose(1, 2).flatten(0, 1)  # (batch * heads, queries, points, 2)
        found = functional.grid_sample(value, places, align_corners=False)
        shares = weights[..., level * points : (level + 1) * points].transpose(1, 2).flatten(0, 1)
        sampled_bds = sampled_bds + (found * shares[:, None]).sum(-1)
    joined_bsc = sampled_bds.reshape(batch, heads * depth, -1).transpose(1, 2)
    output: Tensor = module.output_proj(joined_bsc)
    return output


def _task_queries(model: Any, masks_bchw: Tensor, task_inputs_bt: Tensor) -> Tensor:
    """Return what `task_queries` does."""
    module = model.transformer_module
    decoder = module.decoder
    task_bc = model.task_encoder(task_inputs_bt.float())
    task_b1c = (decoder.decoder_norm(task_bc) if decoder.use_task_norm else task_bc)[:, None]
    positions_1qc = module.queries_embedder.weight[None, :-1]
    queries_bqc = task_b1c if decoder.use_task_norm else torch.zeros_like(task_b1c)
    queries_bqc = queries_bqc.expand(-1, positions_1qc.shape[1], -1)
    tokens_bsc = _tokens(masks_bchw)
    places_1sc = _positions(module.position_embedder, masks_bchw)
    reader = decoder.query_transformer.decoder
    for layer in reader.layers:
        placed_bqc = queries_bqc + positions_1qc
        queries_bqc = layer.norm1(queries_bqc + attend(layer.self_attn, placed_bqc, placed_bqc, queries_bqc))
        asked_bqc = queries_bqc + positions_1qc
        read_bqc = _read(
            layer.multihead_attn, asked_bqc, tokens_bsc, places_1sc, decoder.query_input_projection
        )
        queries_bqc = layer.norm2(queries_bqc + read_bqc)
        change_bqc = layer.linear2(layer.activation(layer.linear1(queries_bqc)))
        queries_bqc = layer.norm3(queries_bqc + change_bqc)
    if reader.norm is not None:
        queries_bqc = reader.norm(queries_bqc)
    return torch.cat((queries_bqc, task_b1c), dim=1)


def _read(
    attention: Any, asked_bqc: Tensor, tokens_bsc: Tensor, places_1sc: Tensor, projection: Any
) -> Tensor:
    query_weight, key_weight, value_weight = attention.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = attention.in_proj_bias.chunk(3)
    # two linear maps, one after the other, are one
    both_weight = key_weight @ projection.weight.flatten(1)
    both_bias = key_weight @ projection.bias + key_bias
    key_bsc = functional.linear(tokens_bsc, both_weight, both_bias)
    key_bsc = key_bsc + functional.linear(places_1sc, key_weight)
    value_1sc = functional.linear(places_1sc, value_weight, value_bias)
    projected_bqc = functional.linear(asked_bqc, query_weight, query_bias)
    return attend_projected(attention, projected_bqc, key_bsc, value_1sc.expand_as(key_bsc))
