"""The transformer decoder of both families: masks of attention are computed at the size they are used in.

Interpolation is linear, so the product with interpolated pixel embeddings is the interpolated product; only
the last masks are needed in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.segmentation.fast.pixel_decoder import sine_axes

__all__ = [
    "QueryDecoder",
    "QueryLayer",
    "attend",
    "attend_projected",
    "decode_queries",
    "self_attend",
    "task_queries",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryLayer:
    """The parts of one layer, whose norms come after what they belong to."""

    cross: Any  # nn.MultiheadAttention
    cross_norm: Callable[[Tensor], Tensor]
    own: Any  # Mask2FormerAttention or OneFormerAttention
    own_norm: Callable[[Tensor], Tensor]
    feed: Callable[[Tensor], Tensor]  # with its residual and norm


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryDecoder:
    """The parts of a decoder."""

    layers: Sequence[QueryLayer]
    norm: Any  # nn.LayerNorm
    to_masks: Callable[[Tensor], Tensor]  # (B, Q, C) to mask embeddings


def decode_queries(
    decoder: QueryDecoder,
    queries_bqc: Tensor,
    positions_bqc: Tensor,
    levels: Sequence[tuple[Tensor, Tensor, tuple[int, int]]],
    masks_bchw: Tensor,
    *,
    given_lbqs: Sequence[Tensor] = (),
    beside_bqq: Tensor | None = None,
) -> list[Tensor]:
    """Return the queries after each layer, (B, Q, C), without the norm.

    Args:
        decoder: whose layers.
        queries_bqc: at the start.
        positions_bqc: (1 or B, Q, C), added to queries and keys where they attend.
        levels: (keys, values, (h, w)) of each level, the smallest first; tokens (B, h * w, C).
        masks_bchw: pixel embeddings.
        given_lbqs: bool (B, Q, S) for each of the first layers, where queries look instead of at their own
            masks; a query that is given nothing looks everywhere.
        beside_bqq: bool (B, Q, Q), which others each query attends to; None: all of them.

    Source:
        Masked attention: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation",
        CVPR 2022, section 3.2.1.
    """
    pixels_bcs = []
    if len(given_lbqs) < len(decoder.layers):
        pixels_bcs = [
            functional.interpolate(masks_bchw, size_hw, mode="bilinear").flatten(2) for *_, size_hw in levels
        ]
    after = []
    for index, layer in enumerate(decoder.layers):
        keys_bsc, values_bsc, _ = levels[index % len(levels)]
        if index < len(given_lbqs):
            hidden_bqs = ~given_lbqs[index]
        else:
            embeddings_bqc = decoder.to_masks(decoder.norm(queries_bqc))
            hidden_bqs = torch.bmm(embeddings_bqc, pixels_bcs[index % len(levels)]) < 0
        seen_bqs = ~hidden_bqs | hidden_bqs.all(dim=-1, keepdim=True)
        attended_bqc = attend(layer.cross, queries_bqc + positions_bqc, keys_bsc, values_bsc, seen_bqs)
        queries_bqc = layer.cross_norm(queries_bqc + attended_bqc)
        beside_bqc = self_attend(layer.own, queries_bqc, positions_bqc, beside_bqq)
        queries_bqc = layer.own_norm(queries_bqc + beside_bqc)
        queries_bqc = layer.feed(queries_bqc)
        after.append(queries_bqc)
    return after


def attend(
    attention: Any,
    query_bqc: Tensor,
    key_bsc: Tensor,
    value_bsc: Tensor,
    seen_bqs: Tensor | None = None,
) -> Tensor:
    """Return what an nn.MultiheadAttention in eval mode does, (B, Q, C); looking where `seen_bqs`."""
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    tokens = (query_bqc, key_bsc, value_bsc)
    query, key, value = map(functional.linear, tokens, weights, biases)
    return attend_projected(attention, query, key, value, seen_bqs)


def attend_projected(
    attention: Any,
    query_bqc: Tensor,
    key_bsc: Tensor,
    value_bsc: Tensor,
    seen_bqs: Tensor | None = None,
) -> Tensor:
    """Return what `attend` does, of what the module's input projections have made already."""
    projected = [
        tokens.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
        for tokens in (query_bqc, key_bsc, value_bsc)
    ]
    output: Tensor = attention.out_proj(_joined(projected, seen_bqs))
    return output


def self_attend(
    attention: Any, hidden_bqc: Tensor, positions_bqc: Tensor, seen_bqq: Tensor | None = None
) -> Tensor:
    """Return the output of a family's own self-attention module of the queries; looking where `seen_bqq`."""
    placed_bqc = hidden_bqc + positions_bqc
    inputs = ((attention.q_proj, placed_bqc), (attention.k_proj, placed_bqc), (attention.v_proj, hidden_bqc))
    projected = [
        project(tokens).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for project, tokens in inputs
    ]
    output: Tensor = attention.out_proj(_joined(projected, seen_bqq))
    return output


def _joined(projected: Sequence[Tensor], seen_bqs: Tensor | None) -> Tensor:
    query, key, value = projected
    bias_b1qs = None
    if seen_bqs is not None:
        bias_b1qs = torch.zeros_like(seen_bqs, dtype=query.dtype)
        bias_b1qs = bias_b1qs.masked_fill_(~seen_bqs, float("-inf"))[:, None]
    return (
        functional.scaled_dot_product_attention(query, key, value, attn_mask=bias_b1qs)
        .transpose(1, 2)
        .flatten(2)
    )


def task_queries(model: Any, masks_bchw: Tensor, task_inputs_bt: Tensor) -> Tensor:
    """Return the queries, (B, Q, C), the last of each image being the task's token.

    Args:
        model: OneFormerModel in eval mode.
        masks_bchw: pixel embeddings.
        task_inputs_bt: token ids.
    """
    module = model.transformer_module
    decoder = module.decoder
    with torch.autocast(masks_bchw.device.type, enabled=False):  # bfloat16 has no room for token ids
        task_bc = model.task_encoder(task_inputs_bt.to(module.level_embed.weight.dtype))
        task_b1c = (decoder.decoder_norm(task_bc) if decoder.use_task_norm else task_bc)[:, None]
    positions_1qc = module.queries_embedder.weight[None, :-1]
    queries_bqc = task_b1c if decoder.use_task_norm else torch.zeros_like(task_b1c)
    queries_bqc = queries_bqc.expand(-1, positions_1qc.shape[1], -1)
    axes = sine_axes(module.position_embedder, (masks_bchw.shape[2], masks_bchw.shape[3]), masks_bchw.device)
    tokens_bsc = masks_bchw.flatten(2).transpose(1, 2)
    reader = decoder.query_transformer.decoder
    for layer in reader.layers:
        placed_bqc = queries_bqc + positions_1qc
        queries_bqc = layer.norm1(queries_bqc + attend(layer.self_attn, placed_bqc, placed_bqc, queries_bqc))
        read_bqc = _read(
            layer.multihead_attn,
            queries_bqc + positions_1qc,
            tokens_bsc,
            axes,
            decoder.query_input_projection,
        )
        queries_bqc = layer.norm2(queries_bqc + read_bqc)
        change_bqc = layer.linear2(layer.activation(layer.linear1(queries_bqc)))
        queries_bqc = layer.norm3(queries_bqc + change_bqc)
    if reader.norm is not None:
        queries_bqc = reader.norm(queries_bqc)
    return torch.cat((queries_bqc, task_b1c.to(queries_bqc.dtype)), dim=1)


def _read(
    attention: Any, query_bqc: Tensor, tokens_bsc: Tensor, axes: tuple[Tensor, Tensor], projection: Any
) -> Tensor:
    query_weight, key_weight, value_weight = attention.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = attention.in_proj_bias.chunk(3)
    # two linear maps, one after the other, are one
    both_weight = key_weight @ projection.weight.flatten(1)
    both_bias = key_weight @ projection.bias + key_bias
    features_bsc = functional.linear(tokens_bsc, both_weight, both_bias)
    key_bsc = features_bsc + _placed(axes, key_weight).to(features_bsc.dtype)
    value_1sc = (_placed(axes, value_weight) + value_bias).to(features_bsc.dtype)
    projected_bqc = functional.linear(query_bqc, query_weight, query_bias)
    return attend_projected(attention, projected_bqc, key_bsc, value_1sc.expand_as(key_bsc))


def _placed(axes: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """Return the positions of all pixels times a weight, (1, S, C)."""
    rows_hd, columns_wd = (axis.to(weight.dtype) for axis in axes)
    of_rows, of_columns = weight.split((rows_hd.shape[1], columns_wd.shape[1]), dim=1)  # type: ignore[no-untyped-call]
    placed_hwc = functional.linear(rows_hd, of_rows)[:, None] + functional.linear(columns_wd, of_columns)
    return placed_hwc.flatten(0, 1)[None]
