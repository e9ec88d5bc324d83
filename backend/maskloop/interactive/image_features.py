"""What clicks on one image are answered from: computed once, kept in half precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskloop.interactive.click_features import ClickFeatures, click_features
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast.model_forward import LeanOutput
from maskloop.segmentation.predict import RawOutput
from maskloop.types import RgbImage

__all__ = ["KEPT_LAYERS", "ImageFeatures", "embedding_statistics", "image_features", "prediction_heads"]

KEPT_LAYERS = 3  # the last ones: earlier ones rarely have the better mask, and take time and memory
STRAY = 0.01  # the share of a mask that may lie beyond each side of its box
SHRINKAGE = 0.1  # of the covariance
CHANNELS = 16  # of the pixel embeddings, at once
CHUNK_VALUES = 1 << 22  # mask logits that are made at once


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """One image as the model sees it; all tensors on the CPU, cut to the image's part of the input."""

    size_hw: tuple[int, int]  # of the image
    labels: tuple[str, ...]  # classes in the order of their ids
    class_probs_nk: Tensor  # float32 (N, K + 1), N queries, the last layer's first
    coarse_nhw: Tensor  # uint8 (N, h / 2, w / 2): mask probabilities times 255
    quality_n: Tensor  # float32 (N,): mean probability over each mask
    boxes_n4: Tensor  # float32 (N, 4): left, top, right, bottom of each mask, 0..1; without stray pixels
    # with pixel embeddings
    pixels_chw: Tensor | None = None  # float16 (C, h, w): a mask is the product with a query's embedding
    embeddings_nc: Tensor | None = None  # float32 (N, C)
    mean_c: Tensor | None = None  # float32 (C,): of the pixel embeddings
    precision_cc: Tensor | None = None  # float32 (C, C): the inverse of their covariance, shrunk
    colours_hwc: RgbImage | None = None  # uint8, the image at the size of the model's input
    click: ClickFeatures | None = None  # where the model has been trained for clicks
    # without
    logits_nhw: Tensor | None = None  # float16 (N, h, w)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """The size of masks."""
        found = self.pixels_chw if self.pixels_chw is not None else self.logits_nhw
        assert found is not None
        return found.shape[-2], found.shape[-1]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        parts = [value for value in vars(self).values() if isinstance(value, Tensor | np.ndarray)]
        return sum(part.nbytes for part in parts) + (self.click.size_bytes if self.click is not None else 0)

    def logits_of(self, index: int) -> Tensor:
        """Return float32 (h, w): the mask logits of a query."""
        if self.logits_nhw is not None:
            return self.logits_nhw[index].float()
        assert self.embeddings_nc is not None
        return self.project(self.embeddings_nc[index])

    def project(self, embedding_c: Tensor) -> Tensor:
        """Return float32 (h, w): the mask logits of a mask embedding, float32 (C,)."""
        return self.project_all(embedding_c[None])[0]

    def project_all(self, embeddings_kc: Tensor) -> Tensor:
        """Return float32 (K, h, w): the mask logits of a few mask embeddings, float32 (K, C)."""
        assert self.pixels_chw is not None
        logits_ks = torch.zeros(len(embeddings_kc), self.pixels_chw[0].numel())
        # a few channels at a time stay in the processor's cache when they become float32
        for weights_kc, pixels_cs in zip(
            torch.split(embeddings_kc, CHANNELS, dim=1),
            torch.split(self.pixels_chw.flatten(1), CHANNELS),
            strict=True,
        ):
            logits_ks.addmm_(weights_kc, pixels_cs.float())
        return logits_ks.view(-1, *self.grid_hw)

    def at(self, points_p2: Tensor) -> Tensor:
        """Return float32 (N, P): each query's mask logit at points.

        Args:
            points_p2: float32 (P, 2), x and y in 0..1 of the image.
        """
        if self.logits_nhw is not None:
            return _sampled(self.logits_nhw, points_p2)
        assert self.embeddings_nc is not None
        return self.embeddings_nc @ self.pixels_at(points_p2)

    def pixels_at(self, points_p2: Tensor) -> Tensor:
        """Return float32 (C, P): the pixel embeddings at points, as for `at`."""
        assert self.pixels_chw is not None
        return _sampled(self.pixels_chw, points_p2)


def image_features(checkpoint: Checkpoint, raw: RawOutput) -> ImageFeatures:
    """Return what is kept of an image's forward pass.

    Args:
        checkpoint: the model.
        raw: of the image, with the model's own output for the families whose layers are of use.
    """
    with torch.inference_mode():
        height, width = (
            max(1, round(valid * low / padded))
            for valid, low, padded in zip(
                raw.valid_hw, raw.mask_logits_qhw.shape[-2:], raw.padded_hw, strict=True
            )
        )
        if isinstance(raw.output, LeanOutput):
            return _of_layers(checkpoint, raw, raw.output, (height, width))
        logits_nhw = raw.mask_logits_qhw[:, :height, :width].float().cpu()
        coarse_nhw, quality_n, boxes_n4 = _summaries([_halved(logits_nhw)])
        return ImageFeatures(
            size_hw=raw.size_hw,
            labels=checkpoint.labels,
            class_probs_nk=raw.class_logits_qk.float().softmax(dim=-1).cpu(),
            coarse_nhw=coarse_nhw,
            quality_n=quality_n,
            boxes_n4=boxes_n4,
            logits_nhw=logits_nhw.half(),
            colours_hwc=_colours(raw),
        )


def _of_layers(
    checkpoint: Checkpoint, raw: RawOutput, output: LeanOutput, grid_hw: tuple[int, int]
) -> ImageFeatures:
    height, width = grid_hw
    pixels_chw = output.pixel_decoder_last_hidden_state[raw.index, :, :height, :width].float().cpu()
    norm, to_masks, classify = prediction_heads(checkpoint.model)
    states_nc = output.transformer_decoder_layers[-KEPT_LAYERS:, raw.index].float().flip(0).flatten(0, 1)
    normed_nc = norm(states_nc)
    embeddings_nc = to_masks(normed_nc[None])[0].cpu()
    half_chw = _halved(pixels_chw)
    coarse_nhw, quality_n, boxes_n4 = _summaries(_products(embeddings_nc, half_chw))
    mean_c, precision_cc = embedding_statistics(half_chw)
    return ImageFeatures(
        size_hw=raw.size_hw,
        labels=checkpoint.labels,
        class_probs_nk=classify(normed_nc).float().softmax(dim=-1).cpu(),
        coarse_nhw=coarse_nhw,
        quality_n=quality_n,
        boxes_n4=boxes_n4,
        pixels_chw=pixels_chw.half().contiguous(),  # the model's may lie channel by channel of each pixel
        embeddings_nc=embeddings_nc,
        mean_c=mean_c,
        precision_cc=precision_cc,
        colours_hwc=_colours(raw),
        click=click_features(checkpoint, raw, states_nc, pixels_chw),
    )


def _colours(raw: RawOutput) -> RgbImage | None:
    if raw.pixels_chw is None:
        return None
    return np.ascontiguousarray(raw.pixels_chw.permute(1, 2, 0).numpy())


def prediction_heads(model: Any) -> tuple[Any, Any, Any]:
    """Return a Mask2Former's or OneFormer's norm of queries, mask embedder and class head."""
    decoder = model.model.transformer_module.decoder
    if model.config.model_type == "oneformer":
        return decoder.decoder_norm, decoder.mask_embed, decoder.class_embed
    return decoder.layernorm, decoder.mask_predictor.mask_embedder, model.class_predictor


def embedding_statistics(pixels_chw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (C,) of pixel embeddings and the inverse (C, C) of their covariance.

    The covariance is shrunk towards a multiple of the identity, so that it has an inverse.
    """
    pixels_cs = pixels_chw.flatten(1)
    mean_c = pixels_cs.mean(1)
    centred_cs = pixels_cs - mean_c[:, None]
    covariance_cc = centred_cs @ centred_cs.T / pixels_cs.shape[1]
    scale = covariance_cc.diagonal().mean().clamp(min=1e-6)
    return mean_c, torch.linalg.inv(covariance_cc + SHRINKAGE * scale * torch.eye(len(mean_c)))


def _products(embeddings_nc: Tensor, pixels_chw: Tensor) -> Iterator[Tensor]:
    at_once = max(1, CHUNK_VALUES // pixels_chw[0].numel())
    for part_nc in embeddings_nc.split(at_once):  # type: ignore[no-untyped-call]
        yield torch.einsum("nc,chw->nhw", part_nc, pixels_chw)


def _summaries(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities in bytes, and mean probability and box of each mask's foreground."""
    coarse, quality, boxes = [], [], []
    for logits_nhw in parts:
        probs_nhw = logits_nhw.sigmoid()
        inside_nhw = (probs_nhw > 0.5).float()
        count_n = inside_nhw.flatten(1).sum(1)
        quality.append((probs_nhw * inside_nhw).flatten(1).sum(1) / count_n.clamp(min=1))
        sides = [_extent(inside_nhw.sum(dim), count_n) for dim in (1, 2)]
        boxes.append(torch.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], dim=1))
        coarse.append((probs_nhw * 255).round_().to(torch.uint8))
    return torch.cat(coarse), torch.cat(quality), torch.cat(boxes)


def _extent(counts_ns: Tensor, total_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return where along a side a mask begins and ends, 0..1; equal for an empty one."""
    share_ns = counts_ns.cumsum(1) / total_n.clamp(min=1)[:, None]
    length = counts_ns.shape[1]
    first_n = (share_ns <= STRAY).sum(1)
    last_n = (share_ns < 1 - STRAY).sum(1) + 1
    empty_n = total_n == 0
    return (first_n / length).masked_fill(empty_n, 0.0), (last_n / length).masked_fill(empty_n, 0.0)


def _halved(values_nhw: Tensor) -> Tensor:
    size_hw = [max(1, math.ceil(side / 2)) for side in values_nhw.shape[-2:]]
    return functional.interpolate(values_nhw[None], size_hw, mode="bilinear")[0]


def _sampled(maps_nhw: Tensor, points_p2: Tensor) -> Tensor:
    """Return float32 (N, P): values between pixels, the border's beyond it."""
    height, width = maps_nhw.shape[-2:]
    x_p = (points_p2[:, 0] * width - 0.5).clamp(0, width - 1)
    y_p = (points_p2[:, 1] * height - 0.5).clamp(0, height - 1)
    left_p, top_p = x_p.floor().long(), y_p.floor().long()
    right_p, bottom_p = (left_p + 1).clamp(max=width - 1), (top_p + 1).clamp(max=height - 1)
    across_p, down_p = x_p - left_p, y_p - top_p
    upper_np = torch.lerp(maps_nhw[:, top_p, left_p].float(), maps_nhw[:, top_p, right_p].float(), across_p)
    lower_np = torch.lerp(
        maps_nhw[:, bottom_p, left_p].float(), maps_nhw[:, bottom_p, right_p].float(), across_p
    )
    return torch.lerp(upper_np, lower_np, down_p)
