"""Prediction heads that return mask embeddings instead of masks to `PointwiseLoss` in a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.learning.losses.point_loss import PointwiseLoss

__all__ = ["pointwise"]


class _PixelEmbeddings:
    """The pixel embeddings of one forward pass, also at the sizes of the decoder's attention masks."""

    def __init__(self) -> None:
        self.training_pass = False  # whether the current forward pass computes a loss
        self._features_bchw: Tensor | None = None
        self._resized: dict[tuple[int, int], Tensor] = {}

    def release(self) -> None:
        """Drop all tensors."""
        self._features_bchw = None
        self._resized.clear()

    def resized(self, features_bchw: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Return (B, C, h*w) without gradient; masks are linear in it, so resizing it resizes the masks."""
        if features_bchw is not self._features_bchw:
            self.release()
            self._features_bchw = features_bchw
        if size_hw not in self._resized:
            resized = functional.interpolate(
                features_bchw.detach(), size=size_hw, mode="bilinear", align_corners=False
            )
            self._resized[size_hw] = resized.flatten(2)
        return self._resized[size_hw]


@contextmanager
def pointwise(model: Any) -> Iterator[None]:
    """Let a Mask2Former or OneFormer compute its loss from mask embeddings while the context lasts.

    `mask_labels` of a call are then an index map (B, H, W), and the masks of its output are mask embeddings.
    A call without `mask_labels` is not changed.
    """
    criterion, pixels = model.criterion, _PixelEmbeddings()
    plain = type(criterion)
    decoder = model.model.transformer_module.decoder
    criterion.__class__ = type(f"Pointwise{plain.__name__}", (PointwiseLoss, plain), {})
    with ExitStack() as cleanup:
        cleanup.callback(setattr, criterion, "__class__", plain)
        cleanup.callback(pixels.release)
        cleanup.callback(setattr, criterion, "features_bchw", None)
        cleanup.enter_context(_track_training_passes(model, pixels))
        if model.config.model_type == "mask2former":
            predictor = decoder.mask_predictor
            predictor.forward = _mask2former_predictor(predictor, criterion, pixels)
            cleanup.callback(delattr, predictor, "forward")
        else:
            decoder.forward_prediction_heads = _oneformer_heads(decoder, criterion, pixels)
            cleanup.callback(delattr, decoder, "forward_prediction_heads")
        yield


@contextmanager
def _track_training_passes(model: Any, pixels: _PixelEmbeddings) -> Iterator[None]:
    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        pixels.training_pass = kwargs.get("mask_labels") is not None

    def after(module: Any, args: Any, output: Any) -> None:
        pixels.training_pass = False
        pixels.release()

    hooks = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask2former_predictor(predictor: Any, criterion: Any, pixels: _PixelEmbeddings) -> Any:
    plain = predictor.forward

    def forward(outputs: Tensor, pixel_embeddings: Tensor, attention_mask_target_size: Any = None) -> Any:
        if not pixels.training_pass:
            return plain(outputs, pixel_embeddings, attention_mask_target_size)
        criterion.features_bchw = pixel_embeddings
        masks_bqc = predictor.mask_embedder(outputs.transpose(0, 1))
        resized_bcp = pixels.resized(pixel_embeddings, tuple(attention_mask_target_size))
        return masks_bqc, _attention_mask(masks_bqc, resized_bcp, predictor.num_heads)

    return forward


def _oneformer_heads(decoder: Any, criterion: Any, pixels: _PixelEmbeddings) -> Any:
    plain = decoder.forward_prediction_heads

    def forward(output: Tensor, mask_features: Tensor, attention_mask_target_size: Any) -> Any:
        if not pixels.training_pass:
            return plain(output, mask_features, attention_mask_target_size)
        criterion.features_bchw = mask_features
        queries_bqc = decoder.decoder_norm(output).transpose(0, 1)
        masks_bqc = decoder.mask_embed(queries_bqc)
        resized_bcp = pixels.resized(mask_features, tuple(attention_mask_target_size))
        attention_mask = _attention_mask(masks_bqc, resized_bcp, decoder.num_heads)
        return decoder.class_embed(queries_bqc), masks_bqc, attention_mask

    return forward


@torch.no_grad()
def _attention_mask(masks_bqc: Tensor, resized_bcp: Tensor, heads: int) -> Tensor:
    """Return bool (B * heads, Q, P): True where a query may not attend, as in the families' own heads."""
    logits_bqp = torch.bmm(masks_bqc.detach().to(resized_bcp.dtype), resized_bcp)
    masked_bqp = logits_bqp.sigmoid() < 0.5
    return masked_bqp[:, None].repeat(1, heads, 1, 1).flatten(0, 1)  # a copy, since OneFormer writes into it
