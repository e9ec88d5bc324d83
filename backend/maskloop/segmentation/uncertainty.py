"""Uncertainty of a prediction, 0..1, from the probabilities of one forward pass: pure functions, no model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskloop.masks import agreement
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import BoolMask, Prediction, SegmentationTask, Signals

__all__ = [
    "NO_UNCERTAINTY",
    "Uncertainty",
    "border_uncertainty",
    "class_uncertainty",
    "disagreement",
    "image_confidence",
    "image_uncertainty",
    "pixel_uncertainty",
    "query_uncertainty",
    "uncovered_shares",
]

Floats: TypeAlias = NDArray[np.floating]
RIVAL = 0.1  # least objectness with which a query that is not shown covers an object for other queries
# The weight of each signal, from the grid search in docs/selection.md; margin is correlated with entropy and
# predicts a little worse. Without views the other weights are larger, so that confidences are on one scale.
VIEWED_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"entropy": 0.13, "margin": 0.0, "border": 0.43, "missing": 0.22, "disagreement": 0.22}
)
CHEAP_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"entropy": 0.2, "margin": 0.0, "border": 0.67, "missing": 0.33}
)
OBJECTS_POWER = 0.7  # exponent of the annotator's work in the number of objects
STEEPNESS = 4.0  # confidence is 0.5 where one object's weighted uncertainty is 1 / STEEPNESS
MOST_PIXELS = 1 << 14  # of a mask: enough for shares of its area, and fast
LEAST_OBJECTNESS = 0.05  # below it a query's mask is not looked at


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Uncertainty of one image from one forward pass, without views."""

    signals: Signals  # means over objects: they do not grow with their number
    objects: float  # objects to check: those shown, and the expected number of missing ones


NO_UNCERTAINTY = Uncertainty(signals=Signals(entropy=0.0, margin=0.0, border=0.0, missing=0.0), objects=0.0)


def image_uncertainty(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    *,
    task: SegmentationTask,
    labels: Sequence[str],
    thing_ids: Collection[int],
    thresholds: Thresholds,
) -> Uncertainty:
    """Return the uncertainty of one image, from its masks at the resolution of the logits.

    Args:
        class_logits_qk: float (Q, K + 1), the last column is "no object".
        mask_logits_qhw: float (Q, h, w), cropped to the part of the input that is not padding.
        task: which form: of queries, or of pixels.
        labels: K class names.
        thing_ids: classes whose objects are counted; where there are any, instances are of no other.
        thresholds: what is shown.
    """
    class_probs_qk = class_logits_qk.float().softmax(dim=-1)
    mask_floor_k = np.array([thresholds.mask_for(label) for label in labels])
    step = max(1, math.ceil(math.sqrt(mask_logits_qhw[0].numel() / MOST_PIXELS)))
    mask_logits_qhw = mask_logits_qhw[:, step // 2 :: step, step // 2 :: step]
    if task is SegmentationTask.SEMANTIC:
        sums_khw = torch.einsum("qk,qhw->khw", class_probs_qk[:, :-1], mask_logits_qhw.float().sigmoid())
        return pixel_uncertainty(sums_khw.cpu().numpy(), mask_floor_k=mask_floor_k)
    wanted_q = class_probs_qk[:, -1] <= 1 - LEAST_OBJECTNESS
    if task is SegmentationTask.INSTANCE and thing_ids:
        things = torch.tensor(sorted(thing_ids), device=class_probs_qk.device)
        wanted_q &= torch.isin(class_probs_qk[:, :-1].argmax(dim=-1), things)
    queries_n = torch.nonzero(wanted_q).flatten()
    return query_uncertainty(
        class_probs_qk[queries_n].cpu().numpy(),
        mask_logits_qhw[queries_n].float().sigmoid().cpu().numpy(),
        score_floor_k=np.array([thresholds.score_for(label) for label in labels]),
        mask_floor_k=mask_floor_k,
        mask_counts=task is SegmentationTask.INSTANCE,
    )


def image_confidence(signals: Signals, objects: float) -> float:
    """Return the confidence of one image, 0..1; images with the lowest are annotated first.

    Uncertainty of one object is a weighted mean of the signals. It is multiplied by a power below 1 of the
    number of objects: with power 1 the ranking would be by crowdedness, with 0 by the rate of errors alone.

    Args:
        signals: 0..1 each; without disagreement the other weights are larger.
        objects: how many the annotator has to check, at least 0; less than one counts as one.

    Returns:
        1.0 where all signals are 0; falls with each signal and with the number of objects.
    """
    weights = CHEAP_WEIGHTS if signals.disagreement is None else VIEWED_WEIGHTS
    doubt = sum(weight * float(getattr(signals, name)) for name, weight in weights.items())
    work = doubt * math.pow(max(1.0, objects), OBJECTS_POWER)
    return 1.0 / (1.0 + STEEPNESS * max(0.0, work))


def disagreement(prediction: Prediction, views: Sequence[Prediction]) -> float | None:
    """Return how much the predictions of the views differ from a prediction, 0..1; None without views.

    Args:
        prediction: of an image.
        views: of the same image mirrored or resized, their segments mapped back onto it.

    Source:
        Gao et al., "Consistency-Based Semi-Supervised Active Learning", ECCV 2020; for detections
        Elezi et al., "Not All Labels Are Equal", CVPR 2022.
    """
    if not views:
        return None
    return float(np.mean([1.0 - agreement(prediction, view) for view in views]))


def query_uncertainty(
    class_probs_nk: Floats,
    mask_probs_nhw: Floats,
    *,
    score_floor_k: Floats,
    mask_floor_k: Floats,
    mask_counts: bool,
) -> Uncertainty:
    """Return the uncertainty where each query is one object: instance and panoptic segmentation.

    Args:
        class_probs_nk: (N, K + 1), rows sum to 1, the last column is "no object"; of the queries that may be
            an object at all.
        mask_probs_nhw: (N, h, w), 0..1, at any resolution.
        score_floor_k: (K,) the least score with which a class is shown.
        mask_floor_k: (K,) the least probability of a pixel of its mask.
        mask_counts: whether a score is multiplied by the mean probability inside the mask, as of instances.

    Returns:
        NO_UNCERTAINTY without queries. Entropy and margin are means over what may be an object, border is
        one over what is shown; missing is the share of the objects that are expected and not shown.
    """
    probs_nk = np.asarray(class_probs_nk, np.float64)
    if probs_nk.size == 0 or mask_probs_nhw.size == 0:
        return NO_UNCERTAINTY
    masks_nhw = np.asarray(mask_probs_nhw, np.float32)
    class_n = probs_nk[:, :-1].argmax(axis=1)
    inside_nhw = masks_nhw > np.asarray(mask_floor_k, np.float32)[class_n][:, None, None]
    area_n = inside_nhw.sum(axis=(1, 2))
    clear_n = (masks_nhw * inside_nhw).sum(axis=(1, 2)) / np.maximum(area_n, 1)
    score_n = probs_nk[:, :-1].max(axis=1) * (clear_n if mask_counts else 1.0)
    shown_n = (score_n >= np.asarray(score_floor_k)[class_n]) & (area_n > 0)
    objectness_n = np.clip(1.0 - probs_nk[:, -1], 0.0, 1.0)
    free_n = uncovered_shares(inside_nhw, shown_n, objectness_n)
    entropy, margin = class_uncertainty(probs_nk, objectness_n * np.where(shown_n, 1.0, free_n))
    border_n = border_uncertainty(masks_nhw[shown_n], inside_nhw[shown_n])
    missed = float((objectness_n * clear_n * free_n)[~shown_n].sum())
    objects = max(1, int(shown_n.sum())) + missed
    signals = Signals(entropy=entropy, margin=margin, border=_mean(border_n), missing=missed / objects)
    return Uncertainty(signals=signals, objects=objects)


def pixel_uncertainty(sums_khw: Floats, *, mask_floor_k: Floats) -> Uncertainty:
    """Return the uncertainty where each pixel has one class: semantic segmentation.

    The queries are collapsed, as the prediction does it, to the expected number of segments of each class
    at each pixel; what is left to 1 is the chance that nothing is there.

    Args:
        sums_khw: (K, h, w), at least 0, the sum over queries of class probability times mask probability.
        mask_floor_k: (K,) the least sum over all classes with which a pixel shows a class.

    Returns:
        Entropy and margin are means over pixels, weighted by how likely anything is there; `objects` counts
        classes. NO_UNCERTAINTY without classes.
    """
    if sums_khw.size == 0:
        return NO_UNCERTAINTY
    sums = np.asarray(sums_khw, np.float64)
    covered_hw = sums.sum(axis=0)
    probs_khw = sums / np.maximum(covered_hw, 1.0)
    nothing_1hw = np.clip(1.0 - covered_hw, 0.0, 1.0)[None]
    presence_hw = 1.0 - nothing_1hw[0]
    flat_pk = np.concatenate([probs_khw, nothing_1hw]).reshape(len(sums) + 1, -1).T
    entropy, margin = class_uncertainty(flat_pk, presence_hw.ravel())
    class_hw = sums.argmax(axis=0)
    seen_hw = covered_hw >= np.asarray(mask_floor_k)[class_hw]
    shown = np.unique(class_hw[seen_hw])
    inside_nhw = (class_hw == shown[:, None, None]) & seen_hw
    border_n = border_uncertainty(probs_khw[shown], inside_nhw)
    missing = float(presence_hw[~seen_hw].sum() / max(presence_hw.sum(), 1e-9))
    return Uncertainty(
        signals=Signals(entropy=entropy, margin=margin, border=_mean(border_n), missing=min(1.0, missing)),
        objects=float(len(shown)),
    )


def class_uncertainty(class_probs_qk: Floats, weight_q: Floats) -> tuple[float, float]:
    """Return entropy of the classes, and one minus the margin between the two likeliest.

    Args:
        class_probs_qk: (Q, K + 1), rows sum to 1, the last column is "no object".
        weight_q: (Q,) 0..1, how much each matters: how likely it is to be an object that no other one is.
            The sum is divided by theirs, by 1 at least: a trace of an object is little doubt.

    Returns:
        Both 0..1; 0 without rows.

    Source:
        Entropy: Settles, "Active Learning Literature Survey", 2009, section 3.1. Margin: Scheffer et al.,
        IDA 2001; aggregated over detections: Brust et al., VISAPP 2019, section 3.
    """
    probs_qk = np.asarray(class_probs_qk, dtype=np.float64)
    if probs_qk.shape[0] == 0 or probs_qk.shape[1] < 2:
        return 0.0, 0.0
    entropy_q = -(probs_qk * np.log(np.clip(probs_qk, 1e-12, 1.0))).sum(axis=1) / math.log(probs_qk.shape[1])
    ranked_qk = np.partition(probs_qk, -2, axis=1)
    margin_q = 1.0 - (ranked_qk[:, -1] - ranked_qk[:, -2])
    whole = max(1.0, float(weight_q.sum()))
    entropy, margin = (float((weight_q * doubt_q).sum()) / whole for doubt_q in (entropy_q, margin_q))
    return min(max(entropy, 0.0), 1.0), min(max(margin, 0.0), 1.0)


def border_uncertainty(mask_probs_nhw: Floats, inside_nhw: BoolMask) -> NDArray[np.float64]:
    """Return one minus the expected IoU of each mask by its own probabilities, 0..1.

    Where each pixel is right by its probability, the expected overlap with the truth is the sum of the
    probabilities inside, and the expected union is the area and the sum of those outside. Undecided pixels
    lie along borders, and the ratio does not change with the size of the mask.

    Args:
        mask_probs_nhw: (N, h, w), 0..1.
        inside_nhw: bool (N, h, w), what is shown of them.

    Returns:
        float64 (N,); 1 where nothing is shown.

    Source:
        The soft IoU of Rahman, Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image
        Segmentation", ISVC 2016, with the shown mask in place of the truth.
    """
    inside = np.asarray(inside_nhw, dtype=np.float64)
    shared_n = (mask_probs_nhw * inside).sum(axis=(1, 2))
    union_n = inside.sum(axis=(1, 2)) + (mask_probs_nhw * (1.0 - inside)).sum(axis=(1, 2))
    return np.asarray(np.clip(1.0 - shared_n / np.maximum(union_n, 1e-9), 0.0, 1.0))


def uncovered_shares(
    inside_nhw: BoolMask, shown_n: NDArray[np.bool_], chance_n: Floats
) -> NDArray[np.float64]:
    """Return the share of each mask that no shown mask and no likelier hidden one covers.

    Several queries often see the same object, and one of them is enough to expect it.

    Args:
        inside_nhw: bool (N, h, w), the masks.
        shown_n: (N,) which of them are shown.
        chance_n: (N,) 0..1, how likely each is to be an object.

    Returns:
        float64 (N,); 0 without a mask, and for those shown.
    """
    taken_hw = inside_nhw[shown_n].any(axis=0)
    share_n = np.zeros(len(inside_nhw))
    for index in np.argsort(-chance_n, kind="stable"):
        area = 0 if shown_n[index] else int(np.count_nonzero(inside_nhw[index]))
        if area:
            share_n[index] = np.count_nonzero(inside_nhw[index] & ~taken_hw) / area
            if chance_n[index] >= RIVAL:
                taken_hw |= inside_nhw[index]
    return share_n


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0
