"""A prompt and an image's features -> the segment that is meant, or none: an empty answer, no wrong one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskloop.interactive.click_tier import clicked_embedding
from maskloop.interactive.colour_edges import snap_mask
from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.pixel_match import corrected_logits, matched_embedding
from maskloop.interactive.prompt import Prompt
from maskloop.interactive.query_choice import choose_query
from maskloop.masks import crop_mask, drop_specks
from maskloop.segmentation.upsample import reach_window, upsample_window
from maskloop.types import BoolMask, Segment

__all__ = ["TIERS", "Answer", "Tier", "answer", "find_answer"]

Tier: TypeAlias = Literal["click_query", "query", "embedding"]
TIERS: tuple[Tier, ...] = ("click_query", "query", "embedding")
LEAST_PART = 0.02  # of the area: smaller separate parts are not drawn
MOST_MATCHED = 0.4  # of the image: pixels that are like the clicked one everywhere are no object
MOST_COMPARED = 2000  # cells of an answer that are compared with all queries
BOX_SLACK = 0.05  # of a box's sides, by which an object may reach beyond it
CUT_SHARE = 0.5  # of the way from a click beside the object to the nearest one on it
LEAST_CUT = 0.1  # of the square root of the area: the radius of what a click inside the answer takes away


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """One object."""

    segment: Segment  # its label is a class of the model
    tier: Tier  # what found it


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    logits_hw: Tensor
    label: str
    score: float
    tier: Tier


def answer(features: ImageFeatures, prompt: Prompt) -> Segment | None:
    """Return the segment that a prompt means, or None; see `find_answer`."""
    found = find_answer(features, prompt)
    return None if found is None else found.segment


def find_answer(
    features: ImageFeatures, prompt: Prompt, *, tiers: Sequence[Tier] = TIERS, snap: bool = True
) -> Answer | None:
    """Return the object that a prompt means, and which tier found it.

    Tiers are tried in order: a query made of the clicks, where the model was trained for them; the best of
    all queries; what is like the clicked pixels. Later clicks change the first click's object: a click on
    it is inside the answer, a click beside it is not.

    Args:
        features: of the image.
        prompt: what is known of the object.
        tiers: which may answer.
        snap: move the mask's border to where colours change, see `snap_mask`.

    Returns:
        None where no tier has a mask that obeys the prompt.
    """
    with torch.inference_mode():
        for found in _candidates(features, prompt, tiers):
            segment = _to_segment(features, prompt, found, snap=snap)
            if segment is not None:
                return Answer(segment=segment, tier=found.tier)
    return None


def _candidates(features: ImageFeatures, prompt: Prompt, tiers: Sequence[Tier]) -> Iterator[_Found]:
    query = choose_query(features, prompt) if {"query", "click_query"} & set(tiers) else None
    of_query_hw = None if query is None else _query_logits(features, prompt, query)
    # Boxes alone are answered better by the queries that the model has anyway.
    for tier in tiers if prompt.clicks else sorted(tiers, key="click_query".__eq__):
        if tier == "click_query":
            embedding_c = clicked_embedding(features, prompt, query, of_query_hw)
            if embedding_c is not None:
                yield _of_mask(features, prompt, _obeying(features, prompt, embedding_c), tier)
        elif tier == "query":
            if query is not None and of_query_hw is not None:
                yield _Found(
                    logits_hw=of_query_hw,
                    label=_label_of(features, prompt, features.class_probs_nk[query]),
                    score=float(features.quality_n[query]),
                    tier=tier,
                )
        elif tier == "embedding":
            matched = matched_embedding(features, prompt)
            if matched is not None:
                logits_hw = _obeying(features, prompt, *matched)
                if float((logits_hw > 0).float().mean()) <= MOST_MATCHED:
                    yield _of_mask(features, prompt, logits_hw, tier)


def _query_logits(features: ImageFeatures, prompt: Prompt, query: int) -> Tensor:
    if features.embeddings_nc is None:
        return features.logits_of(query)
    return _obeying(features, prompt, features.embeddings_nc[query])


def _of_mask(features: ImageFeatures, prompt: Prompt, logits_hw: Tensor, tier: Tier) -> _Found:
    probs_k = _mask_overlaps(features, logits_hw) @ features.class_probs_nk
    return _Found(
        logits_hw=logits_hw,
        label=_label_of(features, prompt, probs_k),
        score=_mean_probability(logits_hw) if tier == "click_query" else 0.5,
        tier=tier,
    )


def _mean_probability(logits_hw: Tensor) -> float:
    inside_s = logits_hw[logits_hw > 0]
    return float(inside_s.sigmoid().mean()) if len(inside_s) else 0.5


def _obeying(features: ImageFeatures, prompt: Prompt, embedding_c: Tensor, offset: float = 0.0) -> Tensor:
    """Return float32 (h, w): an embedding's logits, with several clicks on their sides."""
    if len(prompt.clicks) + (prompt.previous_hw is not None) < 2:
        return features.project(embedding_c) - offset
    return corrected_logits(features, embedding_c, prompt.clicks, offset=offset)


def _mask_overlaps(features: ImageFeatures, logits_hw: Tensor) -> Tensor:
    """Return float32 (N,): how much each query's mask covers of a mask; what it says of classes counts so."""
    size_hw = features.coarse_nhw.shape[1:]
    inside_hw = torch.nn.functional.interpolate(logits_hw[None, None], size_hw, mode="bilinear")[0, 0] > 0
    inside_s = torch.nonzero(inside_hw.flatten()).flatten()
    inside_s = inside_s[:: 1 + len(inside_s) // MOST_COMPARED]
    weights_n: Tensor = features.coarse_nhw.flatten(1)[:, inside_s].float().sum(1)
    return weights_n / weights_n.sum().clamp(min=1e-6)


def _label_of(features: ImageFeatures, prompt: Prompt, probs_k: Tensor) -> str:
    """Return the likeliest class, of those that are wanted where some are."""
    ids = [index for index, label in enumerate(features.labels) if label in prompt.labels]
    ids = ids or list(range(len(features.labels)))
    return features.labels[ids[int(probs_k[ids].argmax())]]


def _to_segment(features: ImageFeatures, prompt: Prompt, found: _Found, *, snap: bool) -> Segment | None:
    """Return the mask in the image's pixels, within what the prompt allows; None where nothing is left."""
    size_hw = features.size_hw
    window = reach_window(found.logits_hw, size_hw, 0.0)
    if window is None:
        return None
    mask_hw: BoolMask = np.zeros(size_hw, dtype=np.bool_)
    inside = (slice(window.top, window.bottom), slice(window.left, window.right))
    mask_hw[inside] = upsample_window(found.logits_hw[None], size_hw, window)[0].numpy() > 0
    clicked_only = found.tier == "embedding"
    allowed_hw = _allowed(mask_hw, prompt, clicked_only=clicked_only)
    if snap and features.colours_hwc is not None and allowed_hw.any():
        snapped_hw = snap_mask(allowed_hw, features.colours_hwc, features.grid_hw, prompt)
        snapped_hw = _allowed(snapped_hw, prompt, clicked_only=clicked_only)
        allowed_hw = snapped_hw if snapped_hw.any() else allowed_hw
    crop_hw, offset_yx = crop_mask(allowed_hw)
    if not crop_hw.size:
        return None
    segment = Segment(mask_hw=crop_hw, offset_yx=offset_yx, label=found.label, score=found.score)
    return segment if prompt.positive else drop_specks(segment, LEAST_PART)


def _allowed(mask_hw: BoolMask, prompt: Prompt, *, clicked_only: bool) -> BoolMask:
    """Return the part of a mask that the prompt allows."""
    size_hw = (mask_hw.shape[0], mask_hw.shape[1])
    if prompt.box_xyxy is not None:
        mask_hw = mask_hw & _box_area(prompt.box_xyxy, size_hw)
    if prompt.forbidden_hw is not None:
        mask_hw = mask_hw & ~_scaled(prompt.forbidden_hw, size_hw)
    return _keep_parts(_cut_negatives(mask_hw, prompt), prompt, clicked_only=clicked_only)


def _cut_negatives(mask_hw: BoolMask, prompt: Prompt) -> BoolMask:
    """Return the mask without the clicks beside the object: whole parts, or a disc around the click."""
    size_hw = (mask_hw.shape[0], mask_hw.shape[1])
    pixels = [click.cell(size_hw) for click in prompt.negative]
    if not pixels or not mask_hw.any():
        return mask_hw
    on_object = [click.cell(size_hw) for click in prompt.positive]
    side = math.sqrt(float(mask_hw.sum()))
    parts_hw: NDArray[Any] | None = None
    cut_hw = np.zeros(mask_hw.shape, dtype=np.uint8)
    for row, column in pixels:
        reach = CUT_SHARE * min((math.hypot(row - y, column - x) for y, x in on_object), default=side / 2)
        if mask_hw[row, column]:
            if parts_hw is None:
                _, parts_hw = cv2.connectedComponents(mask_hw.astype(np.uint8))
            part = int(parts_hw[row, column])
            if on_object and part not in {int(parts_hw[place]) for place in on_object}:
                cut_hw[parts_hw == part] = 1
                continue
        else:
            # A pinhole obeys the click, but nobody who clicks means a pinhole.
            reach = min(reach, LEAST_CUT * side)
            if _share_around(mask_hw, row, column, reach) < 0.5:
                continue
        cv2.circle(cut_hw, (column, row), max(0, int(reach)), 1, thickness=-1)
    return np.asarray(mask_hw & (cut_hw == 0))


def _share_around(mask_hw: BoolMask, row: int, column: int, radius: float) -> float:
    """Return which share of the square around a pixel is inside."""
    half = max(0, int(radius))
    window = (slice(max(0, row - half), row + half + 1), slice(max(0, column - half), column + half + 1))
    return float(mask_hw[window].mean())


def _keep_parts(mask_hw: BoolMask, prompt: Prompt, *, clicked_only: bool) -> BoolMask:
    """Return the mask without specks, or with the clicked parts only; empty where a click is not inside."""
    if not prompt.positive:
        return mask_hw
    kept_hw: BoolMask = np.zeros_like(mask_hw)
    left, top, across, down = cv2.boundingRect(mask_hw.view(np.uint8))
    if not across:
        return kept_hw
    window = (slice(top, top + down), slice(left, left + across))  # an object is a small part of its image
    inside_hw = np.ascontiguousarray(mask_hw[window]).view(np.uint8)
    count, parts_hw, stats, _ = cv2.connectedComponentsWithStats(inside_hw, connectivity=4)
    slack = max(1, max(mask_hw.shape) // 128)
    clicked = set()
    for index, click in enumerate(prompt.positive):
        row, column = click.cell((mask_hw.shape[0], mask_hw.shape[1]))
        part = _part_at(parts_hw, row - top, column - left, slack)
        if part:
            clicked.add(part)
        elif index == 0 and prompt.previous_hw is None:
            return kept_hw
    areas = stats[:, cv2.CC_STAT_AREA]
    least = LEAST_PART * float(areas[1:].sum())
    kept = [
        part for part in range(1, count) if part in clicked or (not clicked_only and areas[part] >= least)
    ]
    is_kept = np.zeros(count, dtype=np.bool_)
    is_kept[kept] = True
    kept_hw[window] = is_kept[parts_hw]
    return kept_hw


def _part_at(parts_hw: NDArray[Any], row: int, column: int, slack: int) -> int:
    """Return the part at a pixel, or the nearest one within what a mask's grid cannot resolve."""
    height, width = parts_hw.shape
    if 0 <= row < height and 0 <= column < width and parts_hw[row, column]:
        return int(parts_hw[row, column])
    near = parts_hw[
        max(0, row - slack) : max(0, row + slack + 1), max(0, column - slack) : max(0, column + slack + 1)
    ]
    found = near[near > 0]
    return int(np.bincount(found).argmax()) if found.size else 0


def _box_area(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> BoolMask:
    left, top, right, bottom = box_xyxy
    slack_x, slack_y = BOX_SLACK * (right - left), BOX_SLACK * (bottom - top)
    height, width = size_hw
    rows = slice(max(0, math.floor((top - slack_y) * height)), math.ceil((bottom + slack_y) * height))
    columns = slice(max(0, math.floor((left - slack_x) * width)), math.ceil((right + slack_x) * width))
    area_hw = np.zeros(size_hw, dtype=np.bool_)
    area_hw[rows, columns] = True
    return area_hw


def _scaled(mask_hw: BoolMask, size_hw: tuple[int, int]) -> BoolMask:
    return np.asarray(
        cv2.resize(mask_hw.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
    )
