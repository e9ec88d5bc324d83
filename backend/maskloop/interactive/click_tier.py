"""An answer by click queries: the model's decoder looks again, where the clicks point."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.prompt import Click, Prompt
from maskloop.segmentation.click_queries import MOST_PLACES, NEGATIVE, POSITIVE, ClickStart
from maskloop.types import BoolMask

__all__ = ["FIRST_REACH", "clicked_embedding"]

FIRST_REACH = 0.08  # of the image's sides: where an object is looked for that no query has found


def clicked_embedding(
    features: ImageFeatures, prompt: Prompt, query: int | None, logits_hw: Tensor | None
) -> Tensor | None:
    """Return float32 (C,), the mask embedding of the object that a prompt means.

    Args:
        features: of the image.
        prompt: what is known of the object.
        query: the query that the prompt chooses, where one does.
        logits_hw: its mask, with the clicks on their side.

    Returns:
        None where the model has not been trained for clicks.
    """
    if features.click is None or features.pixels_chw is None:
        return None
    first_hw = _first_mask(prompt, features.click.finest_hw, logits_hw)
    if not bool(first_hw.any()):
        return None
    clicks = _chosen(prompt.clicks)
    places = [(click.x, click.y) for click in clicks]
    signs = [POSITIVE if click.is_positive else NEGATIVE for click in clicks]
    states_nc = features.click.states_nc
    state_c = torch.zeros_like(states_nc[0]) if query is None else states_nc[query]
    places_p2 = torch.tensor(places or [(0.0, 0.0)], dtype=torch.float32)
    start = ClickStart(
        masks_ks=first_hw.flatten()[None],
        places_kp2=places_p2[None],
        signs_kp=torch.tensor(signs or [0])[None],
        pixels_kpc=features.pixels_at(places_p2).T[None],
        states_kc=state_c[None],
    )
    return features.click.decode(start)[0]


def _chosen(clicks: tuple[Click, ...]) -> tuple[Click, ...]:
    if len(clicks) <= MOST_PLACES:
        return clicks
    return (clicks[0], *clicks[1 - MOST_PLACES :])


def _first_mask(prompt: Prompt, grid_hw: tuple[int, int], logits_hw: Tensor | None) -> Tensor:
    """Return bool (h, w): where the object is first looked for."""
    if prompt.previous_hw is not None:
        return _covered(prompt.previous_hw, grid_hw)
    if logits_hw is not None and bool((logits_hw > 0).any()):
        resized_11hw = functional.interpolate(logits_hw[None, None], grid_hw, mode="bilinear")
        if bool((resized_11hw > 0).any()):
            return resized_11hw[0, 0] > 0
        return functional.adaptive_max_pool2d(logits_hw[None], grid_hw)[0] > 0
    if prompt.area_hw is not None:
        return _covered(prompt.area_hw, grid_hw)
    height, width = grid_hw
    y_h, x_w = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    if prompt.box_xyxy is not None:
        left, top, right, bottom = prompt.box_xyxy
        return ((y_h >= top) & (y_h <= bottom))[:, None] & ((x_w >= left) & (x_w <= right))
    inside_hw = torch.zeros(grid_hw, dtype=torch.bool)
    for click in prompt.positive:
        inside_hw |= torch.hypot((y_h - click.y)[:, None], (x_w - click.x)[None]) <= FIRST_REACH
    return inside_hw


def _covered(mask_hw: BoolMask, grid_hw: tuple[int, int]) -> Tensor:
    shares_hw = cv2.resize(mask_hw.astype(np.float32), grid_hw[::-1], interpolation=cv2.INTER_AREA)
    return torch.from_numpy(shares_hw >= min(0.5, float(shares_hw.max())))
