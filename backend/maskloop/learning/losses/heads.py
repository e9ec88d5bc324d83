"""Prediction heads that leave the making of masks to `PointwiseLoss` while a model with labels is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.learning.losses.point_loss import PointwiseLoss

__all__ = ["pointwise"]


class _Pixels:
    """The pixels' embeddings of one forward pass, also at the sizes that the decoder attends at."""

    def __init__(self) -> None:
        self.wanted = False  # the pass at hand ends in a loss
        self._features_bchw: Tensor | None = None
        self._small: dict[tuple[int, int], Tensor] = {}

    def forget(self) -> None:
        """Let go of all tensors."""
        self._features_bchw = None
        self._small.clear()

    def small(self, features_bchw: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Return (B, C, h*w) without gradient: what masks are linear in may be made smaller before them."""
        if features_bchw is not self._features_bchw:
            self.forget()
            self._features_bchw = features_bchw
        if size_hw not in self._small:
            small = functional.interpolate(
                features_bchw.detach(), size=size_hw, mode="bilinear", align_corners=False
            )
            self._small[size_hw] = small.flatten(2)
        return self._small[size_hw]


@contextmanager
def pointwise(model: Any) -> Iterator[None]:
    """Let a Mask2Former or OneFormer compute its loss from mask embeddings while the context lasts.

    A call with `mask_labels` then expects an index map (B, H, W) there, and its output's masks are mask
    embeddings. A call without is as ever.
    """
    criterion, pixels = model.criterion, _Pixels()
    plain = type(criterion)
    decoder = model.model.transformer_module.decoder
    criterion.__class__ = type(f"Pointwise{plain.__name__}", (PointwiseLoss, plain), {})
    with ExitStack() as undoing:
        undoing.callback(setattr, criterion, "__class__", plain)
        undoing.callback(pixels.forget)
        undoing.callback(setattr, criterion, "features_bchw", None)
        undoing.enter_context(_watched(model, pixels))
        if model.config.model_type == "mask2former":
            predictor = decoder.mask_predictor
            predictor.forward = _mask2former_predictor(predictor, criterion, pixels)
            undoing.callback(delattr, predictor, "forward")
        else:
            decoder.forward_prediction_heads = _oneformer_heads(decoder, criterion, pixels)
            undoing.callback(delattr, decoder, "forward_prediction_heads")
        yield


@contextmanager
def _watched(model: Any, pixels: _Pixels) -> Iterator[None]:
    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        pixels.wanted = kwargs.get("mask_labels") is not None

    def after(module: Any, args: Any, output: Any) -> None:
        pixels.wanted = False
        pixels.forget()

    hooks = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask2former_predictor(predictor: Any, criterion: Any, pixels: _Pixels) -> Any:
    plain = predictor.forward

    def forward(outputs: Tensor, pixel_embeddings: Tensor, attention_mask_target_size: Any = None) -> Any:
        if not pixels.wanted:
            return plain(outputs, pixel_embeddings, attention_mask_target_size)
        criterion.features_bchw = pixel_embeddings
        masks_bqc = predictor.mask_embedder(outputs.transpose(0, 1))
        small_bcp = pixels.small(pixel_embeddings, tuple(attention_mask_target_size))
        return masks_bqc, _closed(masks_bqc, small_bcp, predictor.num_heads)

    return forward


def _oneformer_heads(decoder: Any, criterion: Any, pixels: _Pixels) -> Any:
    plain = decoder.forward_prediction_heads

    def forward(output: Tensor, mask_features: Tensor, attention_mask_target_size: Any) -> Any:
        if not pixels.wanted:
            return plain(output, mask_features, attention_mask_target_size)
        criterion.features_bchw = mask_features
        queries_bqc = decoder.decoder_norm(output).transpose(0, 1)
        masks_bqc = decoder.mask_embed(queries_bqc)
        small_bcp = pixels.small(mask_features, tuple(attention_mask_target_size))
        closed = _closed(masks_bqc, small_bcp, decoder.num_heads)
        return decoder.class_embed(queries_bqc), masks_bqc, closed

    return forward


@torch.no_grad()
def _closed(masks_bqc: Tensor, small_bcp: Tensor, heads: int) -> Tensor:
    """Return bool (B * heads, Q, P): where a query may not look, as both families' own heads say it."""
    logits_bqp = torch.bmm(masks_bqc.detach().to(small_bcp.dtype), small_bcp)
    closed_bqp = logits_bqp.sigmoid() < 0.5
    return closed_bqp[:, None].repeat(1, heads, 1, 1).flatten(0, 1)  # not a view: OneFormer writes into it
