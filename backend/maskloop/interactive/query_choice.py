"""The query that a prompt means: of all queries of all decoder layers, by what they have found already."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.prompt import Click, Prompt
from maskloop.types import BoolMask

__all__ = [
    "CLASS_POWER",
    "LEAST_AT_CLICK",
    "QUALITY_POWER",
    "area_fit",
    "box_overlaps",
    "choose_query",
    "click_points",
]

LEAST_AT_CLICK = 0.5  # mask probability at the first click
LEAST_BOX_IOU = 0.5  # of a mask's box and the prompt's
LEAST_AREA_FIT = 0.35
QUALITY_POWER = 4.0  # against the class: a sharp mask of a doubtful class is what a click is for
CLASS_POWER = 0.25
OTHER_CLASS = 0.2  # weight of the likeliest class beside the wanted one


def choose_query(features: ImageFeatures, prompt: Prompt) -> int | None:
    """Return the number of the query whose mask the prompt means; None where no query has found it.

    The score is mask probability at the clicks x mask quality x class score, the last two with powers that
    were measured on made-up images. A box is compared with each mask's own box, an area with the mask.

    Args:
        features: of the image.
        prompt: what is known of the object. Its later clicks count less than the first one: they improve
            the first one's object and do not choose another.
    """
    scores_n = features.quality_n**QUALITY_POWER * _class_scores(features, prompt.labels) ** CLASS_POWER
    allowed_n = torch.ones_like(scores_n, dtype=torch.bool)
    for fits_n, least in _fits(features, prompt):
        scores_n = scores_n * fits_n
        allowed_n &= fits_n >= least
    if prompt.negative:
        forbidden_n = features.at(click_points(prompt.negative)).sigmoid().amax(1)
        scores_n = scores_n * (1.05 - forbidden_n)  # what cannot be avoided is cut off later
    if len(prompt.positive) > 1:
        later_n = features.at(click_points(prompt.positive[1:])).sigmoid().mean(1)
        scores_n = scores_n * (0.1 + later_n)
    scores_n = scores_n.masked_fill(~allowed_n, -1.0)
    best = int(scores_n.argmax())
    return best if float(scores_n[best]) > 0 else None


def click_points(clicks: tuple[Click, ...]) -> Tensor:
    """Return float32 (P, 2): x and y of clicks."""
    return torch.tensor([(click.x, click.y) for click in clicks], dtype=torch.float32).view(-1, 2)


def box_overlaps(boxes_n4: Tensor, box_xyxy: tuple[float, float, float, float]) -> Tensor:
    """Return float32 (N,): the IoU of each box with one."""
    box_4 = torch.tensor(box_xyxy, dtype=torch.float32)
    sides_n2 = torch.minimum(boxes_n4[:, 2:], box_4[2:]) - torch.maximum(boxes_n4[:, :2], box_4[:2])
    shared_n = sides_n2.clamp(min=0).prod(1)
    areas_n = (boxes_n4[:, 2:] - boxes_n4[:, :2]).prod(1) + (box_4[2:] - box_4[:2]).prod()
    return shared_n / (areas_n - shared_n).clamp(min=1e-9)


def area_fit(coarse_nhw: Tensor, area_hw: BoolMask) -> Tensor:
    """Return float32 (N,): how well masks fit a drawn area, 0..1.

    A scribble is covered by its object's mask, an outline is about the mask: the expected share of the area
    that is covered counts, and half of it only with the expected IoU.

    Args:
        coarse_nhw: uint8, probabilities times 255.
        area_hw: bool, at any size.
    """
    size_hw = (coarse_nhw.shape[1], coarse_nhw.shape[2])
    shares_hw = cv2.resize(area_hw.astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_AREA)
    weights_s = torch.from_numpy(shares_hw).flatten()
    inside_s = torch.nonzero(weights_s > 0).flatten()
    probs_ns = coarse_nhw.flatten(1)[:, inside_s].float() / 255
    shared_n = probs_ns @ weights_s[inside_s]
    drawn = float(weights_s.sum())
    masses_n = coarse_nhw.flatten(1).sum(1, dtype=torch.int64).float() / 255
    iou_n = shared_n / (masses_n + drawn - shared_n).clamp(min=1e-6)
    fit_n: Tensor = shared_n / max(drawn, 1e-6) * (0.5 + 0.5 * iou_n)
    return fit_n


def _fits(features: ImageFeatures, prompt: Prompt) -> list[tuple[Tensor, float]]:
    """Return for each thing that says where the object is how well queries fit it, and how well they must."""
    fits = []
    if prompt.previous_hw is not None:
        fits.append((area_fit(features.coarse_nhw, prompt.previous_hw), LEAST_AREA_FIT))
    elif prompt.positive:
        at_first_n = features.at(click_points(prompt.positive[:1])).sigmoid()[:, 0]
        fits.append((at_first_n, LEAST_AT_CLICK))
    if prompt.box_xyxy is not None:
        fits.append((box_overlaps(features.boxes_n4, prompt.box_xyxy), LEAST_BOX_IOU))
    if prompt.area_hw is not None:
        fits.append((area_fit(features.coarse_nhw, prompt.area_hw), LEAST_AREA_FIT))
    return fits


def _class_scores(features: ImageFeatures, labels: frozenset[str]) -> Tensor:
    probs_nk = features.class_probs_nk[:, :-1]
    best_n = probs_nk.amax(1)
    wanted = [index for index, label in enumerate(features.labels) if label in labels]
    if not wanted:
        return best_n
    return probs_nk[:, wanted].sum(1) + OTHER_CLASS * best_n
