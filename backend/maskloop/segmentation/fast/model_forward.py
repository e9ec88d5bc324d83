"""The whole forward pass of a Mask2Former or OneFormer without what only training reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.segmentation.fast.pixel_decoder import decode_pixels, sine_positions
from maskloop.segmentation.fast.query_decoder import QueryDecoder, QueryLayer, decode_queries, task_queries
from maskloop.segmentation.fast.swin import StageWindows, swin_features

__all__ = ["LeanOutput", "decoder_inputs", "decoder_parts", "lean_forward", "query_decoder", "query_levels"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LeanOutput:
    """What post-processing and image selection read, under transformers' names."""

    class_queries_logits: Tensor  # float32 (B, Q, K + 1)
    masks_queries_logits: Tensor  # float32 (B, Q, H / 4, W / 4)
    pixel_decoder_last_hidden_state: Tensor  # (B, C, H / 4, W / 4)
    transformer_decoder_last_hidden_state: Tensor  # (B, Q, C)
    transformer_decoder_layers: Tensor  # (L, B, Q, C): the queries after each layer, without the norm
    level_tokens: tuple[Tensor, ...]  # (B, S, C) of each level that queries attend to, the smallest first
    level_sizes: tuple[tuple[int, int], ...]  # their heights and widths


def lean_forward(
    model: Any,
    pixel_values_bchw: Tensor,
    task_inputs_bt: Tensor | None = None,
    *,
    swin: bool = False,
    windows: StageWindows | None = None,
    triton: bool = False,
) -> LeanOutput:
    """Return the same as the model, to rounding; the mask of an attention may differ where a logit is 0.

    Args:
        model: Mask2Former, or OneFormer where there are task inputs; eval mode, norms after their blocks.
        pixel_values_bchw: float32.
        task_inputs_bt: OneFormer's token ids.
        swin: the backbone is a SwinBackbone that `swin_features` knows.
        windows: its windows, where they are made before.
        triton: as of deformable_attention.
    """
    pixel_level, module = model.model.pixel_level_module, model.model.transformer_module
    backbone = pixel_level.encoder
    features = (
        swin_features(backbone, pixel_values_bchw, windows)
        if swin
        else backbone(pixel_values_bchw).feature_maps
    )
    pixels = decode_pixels(pixel_level.decoder, features, triton=triton)
    levels = query_levels(module, pixels.levels_bsc, pixels.shapes_l)
    decoder, classify = decoder_parts(model)
    if task_inputs_bt is None:
        queries_bqc = module.queries_features.weight[None].expand(len(pixel_values_bchw), -1, -1)
    else:
        queries_bqc = task_queries(model.model, pixels.masks_bchw, task_inputs_bt)
    positions_1qc = module.queries_embedder.weight[None]
    layers = decode_queries(decoder, queries_bqc, positions_1qc, levels, pixels.masks_bchw)
    queries_bqc = layers[-1]
    with torch.autocast(pixel_values_bchw.device.type, enabled=False):  # what is left is small and decides
        exact = decoder.norm.weight.dtype
        normed_bqc = decoder.norm(queries_bqc.to(exact))
        pixels_bcs = pixels.masks_bchw.to(exact).flatten(2)
        masks_bqs = torch.bmm(decoder.to_masks(normed_bqc), pixels_bcs)
        return LeanOutput(
            class_queries_logits=classify(normed_bqc),
            masks_queries_logits=masks_bqs.unflatten(2, pixels.masks_bchw.shape[-2:]),  # type: ignore[no-untyped-call]
            pixel_decoder_last_hidden_state=pixels.masks_bchw,
            transformer_decoder_last_hidden_state=queries_bqc,
            transformer_decoder_layers=torch.stack(layers),
            level_tokens=tuple(values_bsc for _, values_bsc, _ in levels),
            level_sizes=tuple(size_hw for *_, size_hw in levels),
        )


def decoder_inputs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Tensor], Tensor]:
    """Return what a family's transformer module is called with.

    Args:
        args: of the call.
        kwargs: of the call.

    Returns:
        Features (B, C, h, w) of the levels, the smallest first, and pixel embeddings (B, C, H, W).
    """
    names = ("multi_scale_features", "mask_features")
    features, pixels_bchw = (
        kwargs[name] if name in kwargs else args[number] for number, name in enumerate(names)
    )
    return features, pixels_bchw


def query_levels(
    module: Any, levels_bsc: Sequence[Tensor], shapes_l: Sequence[tuple[int, int]]
) -> list[tuple[Tensor, Tensor, tuple[int, int]]]:
    """Return the levels that queries attend to, as `decode_queries` takes them.

    Args:
        module: a family's transformer module.
        levels_bsc: tokens (B, S, C) of the levels that the pixel decoder made, the smallest first.
        shapes_l: their heights and widths.
    """
    levels = []
    for index, (tokens_bsc, size_hw) in enumerate(zip(levels_bsc, shapes_l, strict=True)):
        projection = module.input_projections[index]
        if isinstance(projection, torch.nn.Conv2d):
            tokens_bsc = functional.linear(tokens_bsc, projection.weight.flatten(1), projection.bias)
        values_bsc = tokens_bsc + module.level_embed.weight[index].to(tokens_bsc.dtype)
        positions_1sc = sine_positions(module.position_embedder, size_hw, tokens_bsc.device)
        levels.append((values_bsc + positions_1sc.to(values_bsc.dtype), values_bsc, size_hw))
    return levels


def decoder_parts(model: Any) -> tuple[QueryDecoder, Callable[[Tensor], Tensor]]:
    """Return the transformer decoder of a Mask2Former or OneFormer, and the class head."""
    decoder = model.model.transformer_module.decoder
    classify = decoder.class_embed if model.config.model_type == "oneformer" else model.class_predictor
    return query_decoder(decoder), classify


def query_decoder(decoder: Any) -> QueryDecoder:
    """Return the parts of a Mask2FormerMaskedAttentionDecoder or OneFormerTransformerDecoder."""
    if hasattr(decoder, "mask_predictor"):
        layers = [
            QueryLayer(
                cross=layer.cross_attn,
                cross_norm=layer.cross_attn_layer_norm,
                own=layer.self_attn,
                own_norm=layer.self_attn_layer_norm,
                feed=_feeder(layer),
            )
            for layer in decoder.layers
        ]
        return QueryDecoder(
            layers=layers, norm=decoder.layernorm, to_masks=decoder.mask_predictor.mask_embedder
        )
    layers = [
        QueryLayer(
            cross=layer.cross_attn.multihead_attn,
            cross_norm=layer.cross_attn.norm,
            own=layer.self_attn.self_attn,
            own_norm=layer.self_attn.norm,
            feed=layer.ffn,
        )
        for layer in decoder.layers
    ]
    return QueryDecoder(layers=layers, norm=decoder.decoder_norm, to_masks=decoder.mask_embed)


def _feeder(layer: Any) -> Callable[[Tensor], Tensor]:
    def feed(queries_bqc: Tensor) -> Tensor:
        change_bqc = layer.fc2(layer.activation_fn(layer.fc1(queries_bqc)))
        result: Tensor = layer.final_layer_norm(queries_bqc + change_bqc)
        return result

    return feed
