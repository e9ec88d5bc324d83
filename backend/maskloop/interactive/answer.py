"""A prompt and an image's features -> the segment that is meant, or none: an empty answer, no wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from maskloop.cores import on_cores
from maskloop.interactive.allowed_part import LEAST_PART, allowed_part
from maskloop.interactive.answer_memo import AnswerMemo
from maskloop.interactive.box_tier import ELLIPSE_WEIGHT, WELL_FITTING, box_fit, ellipse_logits
from maskloop.interactive.click_tier import clicked_embedding
from maskloop.interactive.colour_edges import snap_mask
from maskloop.interactive.image_features import ImageFeatures
from maskloop.interactive.pixel_match import corrected_logits, matched_embedding
from maskloop.interactive.prompt import Prompt
from maskloop.interactive.query_choice import choose_query
from maskloop.interactive.same_object import is_same_object, without_negatives
from maskloop.masks import crop_mask, drop_specks
from maskloop.segmentation.upsample import reach_window, upsample_window
from maskloop.types import BoolMask, Segment

__all__ = ["TIERS", "Answer", "Tier", "answer", "find_answer"]

Tier: TypeAlias = Literal["click_query", "query", "embedding", "box", "crop"]
TIERS: tuple[Tier, ...] = ("click_query", "query", "embedding", "box")  # of the whole image
MOST_MATCHED = 0.4  # of the image: pixels that are like the clicked one everywhere are no object
MOST_COMPARED = 2000  # cells of an answer that are compared with all queries
MOST_KEPT = 4  # answers of an image: a click asks again what the click before it asked
MOST_KEPT_BYTES = 1 << 20  # of one


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
    it is inside the answer, a click beside it is not. An answer to negative clicks is the object that the
    same prompt means without them; where the tiers have another, or hardly any of it, then it is that object
    without what is around the negative clicks. Of the answers to a box the first one that fills it is
    taken, else the one that fills it best; the last of them is the ellipse in it, moved to the image's edges.

    Args:
        features: of the image.
        prompt: what is known of the object.
        tiers: which may answer.
        snap: move the mask's border to where colours change, see `snap_mask`.

    Returns:
        None where no tier has a mask that obeys the prompt.
    """
    with torch.inference_mode(), on_cores(1):
        if not prompt.negative:
            return _of_positive(features, prompt, tiers, snap=snap)
        found = _of_tiers(features, prompt, tiers, snap=snap)
        # a prompt of negative clicks alone is none, so that the others always say where the object is
        first = _of_positive(features, replace(prompt, clicks=prompt.positive), tiers, snap=snap)
        if first is None:
            return found
        cut = without_negatives(first.segment, prompt, features.size_hw)
        if found is not None and is_same_object(found.segment, first.segment, cut):
            return found
        return None if cut is None else replace(first, segment=cut)


_ANSWERS: AnswerMemo[ImageFeatures, Answer | None] = AnswerMemo(MOST_KEPT)


def _of_positive(
    features: ImageFeatures, prompt: Prompt, tiers: Sequence[Tier], *, snap: bool
) -> Answer | None:
    """Return `_of_tiers` of a prompt without negative clicks: mostly the click before has asked for it."""
    if any(drawn is not None for drawn in (prompt.area_hw, prompt.forbidden_hw, prompt.previous_hw)):
        return _of_tiers(features, prompt, tiers, snap=snap)
    return _ANSWERS.get(
        features,
        (prompt.clicks, prompt.box_xyxy, prompt.labels, tuple(tiers), snap),
        lambda: _of_tiers(features, prompt, tiers, snap=snap),
        may_keep=lambda found: found is None or found.segment.mask_hw.nbytes <= MOST_KEPT_BYTES,
    )


def _of_tiers(features: ImageFeatures, prompt: Prompt, tiers: Sequence[Tier], *, snap: bool) -> Answer | None:
    if _has_box(prompt):
        if prompt.clicks:
            return _best_in_box(features, prompt, tiers, snap=snap)
        # Click queries are the worst at a box alone: they are asked where no other tier answers.
        others = [tier for tier in tiers if tier != "click_query"]
        best = _best_in_box(features, prompt, others, snap=snap)
        last = [tier for tier in tiers if tier == "click_query"]
        return best if best is not None else _best_in_box(features, prompt, last, snap=snap)
    for found in _candidates(features, prompt, tiers):
        segment = _to_segment(features, prompt, found, snap=snap)
        if segment is not None:
            return Answer(segment=segment, tier=found.tier)
    return None


def _has_box(prompt: Prompt) -> bool:
    """Return whether a box says how large the object is; clicks beside it then correct its answer."""
    return prompt.box_xyxy is not None and prompt.area_hw is None and prompt.previous_hw is None


def _best_in_box(
    features: ImageFeatures, prompt: Prompt, tiers: Sequence[Tier], *, snap: bool
) -> Answer | None:
    """Return the first answer that fills the box well, else the one that fills it best."""
    assert prompt.box_xyxy is not None
    best: Answer | None = None
    best_fit = 0.0
    for found in _candidates(features, prompt, tiers):
        segment = _to_segment(features, prompt, found, snap=snap)
        if segment is None:
            continue
        fit = box_fit(segment, prompt.box_xyxy, features.size_hw)
        answer_here = Answer(segment=segment, tier=found.tier)
        if found.tier != "box" and fit >= WELL_FITTING:
            return answer_here
        fit *= ELLIPSE_WEIGHT if found.tier == "box" else 1.0
        if best is None or fit > best_fit:
            best, best_fit = answer_here, fit
    return best


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
        elif tier == "box" and prompt.box_xyxy is not None and _has_box(prompt):
            yield _of_mask(features, prompt, ellipse_logits(prompt.box_xyxy, features.grid_hw), tier)


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
    inside_s = np.flatnonzero(inside_hw.numpy())
    inside_s = inside_s[:: 1 + len(inside_s) // MOST_COMPARED]
    # numpy gathers bytes three times as fast as torch
    coarse_ns = features.coarse_nhw.flatten(1).numpy().take(inside_s, axis=1)
    weights_n = torch.from_numpy(coarse_ns.sum(axis=1, dtype=np.int64)).float()
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
    allowed_hw = allowed_part(mask_hw, prompt, clicked_only=clicked_only)
    if snap and features.colours_hwc is not None and allowed_hw.any():
        snapped_hw = snap_mask(allowed_hw, features.colours_hwc, features.grid_hw, prompt)
        if snapped_hw is not allowed_hw:
            snapped_hw = allowed_part(snapped_hw, prompt, clicked_only=clicked_only)
            allowed_hw = snapped_hw if snapped_hw.any() else allowed_hw
    crop_hw, offset_yx = crop_mask(allowed_hw)
    if not crop_hw.size:
        return None
    segment = Segment(mask_hw=crop_hw, offset_yx=offset_yx, label=found.label, score=found.score)
    return segment if prompt.positive else drop_specks(segment, LEAST_PART)
