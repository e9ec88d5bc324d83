"""A mask from pixel embeddings alone: what is like the pixels on the object and unlike the others."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.prompt import Click, Prompt
from maskloop.interactive.query_choice import click_points

__all__ = ["corrected_logits", "matched_embedding"]

RIDGE = 0.1  # of the clicks' covariance with each other, so that no change is without bound
MARGIN = 2.0  # logit that a click is to have at least
REACH = 0.6  # how far a click's correction reaches, in square roots of the mask's area
LEAST_REACH = 3.0  # pixels of the masks' grid
INNER = 0.5  # of a box's sides: what lies in there is taken for the object
OUTER = 1.3  # what lies between the box and one so many times larger is taken for background


def matched_embedding(features: ImageFeatures, prompt: Prompt) -> tuple[Tensor, float] | None:
    """Return an embedding (C,) and an offset: pixels are more like the object's than like the background's
    where the product with the embedding is above the offset.

    The linear discriminant between the mean embedding on the object and the mean of the background, under
    the covariance of all pixels of the image: what sets the clicked pixels apart from the image.

    Args:
        features: of the image.
        prompt: what is known of the object.

    Returns:
        None where the model has no pixel embeddings.
    """
    if features.pixels_chw is None:
        return None
    assert features.mean_c is not None
    assert features.precision_cc is not None
    object_s, background_s = _samples(features, prompt)
    inside_c = _mean(features.pixels_chw, object_s)
    if inside_c is None:
        return None
    outside_c = _mean(features.pixels_chw, background_s)
    if outside_c is None:
        outside_c = features.mean_c
    weights_c = features.precision_cc @ (inside_c - outside_c)
    return weights_c, float(weights_c @ (inside_c + outside_c) / 2)


def corrected_logits(
    features: ImageFeatures, embedding_c: Tensor, clicks: tuple[Click, ...], *, offset: float = 0.0
) -> Tensor:
    """Return float32 (h, w): logits changed so that clicks lie on their side, and others as little as may be.

    The change of the mask embedding is the one that moves the clicked logits with the least mean square of
    change over the image; away from the clicks it fades, so that like objects elsewhere stay as they are.

    Args:
        features: of the image, with pixel embeddings.
        embedding_c: float32, whose mask is the answer so far.
        clicks: all of this object.
        offset: taken from its logits.

    Source:
        Correcting by an optimised change of what makes the mask: Sofiiuk et al., "f-BRS: Rethinking
        Backpropagating Refinement for Interactive Segmentation", CVPR 2020; here in closed form.
    """
    assert features.precision_cc is not None
    clicked_cp = features.pixels_at(click_points(clicks))
    signs_p = torch.tensor([1.0 if click.is_positive else -1.0 for click in clicks])
    lacking_p = (MARGIN - signs_p * (embedding_c @ clicked_cp - offset)).clamp(min=0) * signs_p
    if not bool(lacking_p.any()):
        return features.project(embedding_c) - offset
    spread_cp = features.precision_cc @ clicked_cp
    gram_pp = clicked_cp.T @ spread_cp
    gram_pp += RIDGE * gram_pp.diagonal().mean() * torch.eye(len(clicks))
    change_c = spread_cp @ torch.linalg.solve(gram_pp, lacking_p)
    logits_hw, change_hw = features.project_all(torch.stack([embedding_c, change_c]))
    logits_hw = logits_hw - offset
    height, width = features.grid_hw
    moved = [
        click.cell((height, width))
        for click, lacking in zip(clicks, lacking_p.tolist(), strict=True)
        if lacking
    ]
    reach = max(LEAST_REACH, REACH * math.sqrt(float((logits_hw > 0).sum())))
    near_hw = torch.exp(-((_distances(moved, (height, width)) / reach) ** 2))
    corrected_hw: Tensor = logits_hw + change_hw * near_hw
    return corrected_hw


def _samples(features: ImageFeatures, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Return the numbers of the pixels that are known to be on the object, and in the background."""
    height, width = features.grid_hw
    inside_hw = np.zeros((height, width), dtype=np.bool_)
    outside_hw = np.zeros((height, width), dtype=np.bool_)
    for click in prompt.clicks:
        row, column = click.cell((height, width))
        (inside_hw if click.is_positive else outside_hw)[row, column] = True
    for area_hw in (prompt.area_hw, prompt.previous_hw):
        if area_hw is not None:
            shares_hw = cv2.resize(area_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            inside_hw |= shares_hw >= min(0.5, float(shares_hw.max()))
    if prompt.box_xyxy is not None:
        left, top, right, bottom = prompt.box_xyxy
        x_w, y_h = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
        across_w = np.abs(x_w - (left + right) / 2) / max(right - left, 1e-6) * 2
        down_h = np.abs(y_h - (top + bottom) / 2) / max(bottom - top, 1e-6) * 2
        farther_hw = np.maximum(down_h[:, None], across_w[None])
        if not inside_hw.any():
            inside_hw |= farther_hw <= max(INNER, float(farther_hw.min()))
        outside_hw |= (farther_hw > 1) & (farther_hw < OUTER)
    return tuple(torch.from_numpy(np.flatnonzero(one)) for one in (inside_hw, outside_hw))  # type: ignore[return-value]


def _mean(pixels_chw: Tensor, chosen_s: Tensor) -> Tensor | None:
    if not len(chosen_s):
        return None
    # numpy gathers columns three times as fast as torch
    return torch.from_numpy(pixels_chw.flatten(1).numpy().take(chosen_s.numpy(), axis=1)).float().mean(1)


def _distances(places: list[tuple[int, int]], size_hw: tuple[int, int]) -> Tensor:
    """Return float32 (h, w): how far each pixel is from the nearest place."""
    free_hw = np.ones(size_hw, dtype=np.uint8)
    for row, column in places:
        free_hw[row, column] = 0
    return torch.from_numpy(cv2.distanceTransform(free_hw, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
