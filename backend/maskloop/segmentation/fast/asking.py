"""OneFormer's queries at the start: they have read the whole image once, with the task in mind.

What they read, the values, are positions alone, and keys are positions and features: the part of positions
is a sum of one vector a row and one a column, and is projected as such.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.segmentation.fast.positions import sine_axes
from maskloop.segmentation.fast.query_decoder import attend, attend_projected

__all__ = ["ask_queries"]


def ask_queries(model: Any, masks_bchw: Tensor, task_inputs_bt: Tensor) -> Tensor:
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
