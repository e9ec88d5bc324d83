"""Other people's scores of label errors: own small versions of their formulas, on the same predictions.

Each gives a score to every region and to every object that has no region; higher is more suspicious.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.overlap import box_array, read_map, shared_pixels
from maskloop.curation.review.suspicion import Evidence, ReviewImage
from maskloop.types import Segment

Floats = NDArray[np.float64]
ALPHA, LOW, HIGH, TEMPERATURE = 0.9, 0.1, 0.5, 0.1  # as in cleanlab's constants
MATCH_IOU = 0.5
LEAST = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """One image's."""

    region_r: Floats
    missing_m: Floats


Baseline = Callable[[ReviewImage, list[Segment], np.random.Generator], Scores]


def by_chance(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """Random numbers."""
    return Scores(region_r=rng.random(len(image.regions)), missing_m=rng.random(len(missing)))


def by_area(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """The smallest first."""
    del rng
    return Scores(
        region_r=np.array([-float(one.area) for one in image.regions]),
        missing_m=np.array([-float(one.area) for one in missing]),
    )


def cleanlab_softmin(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """One minus the softmin of the given label's probability over a region's pixels.

    Source: Lad and Mueller 2023, Estimating label quality and errors in semantic segmentation data via any
    model; per region in place of per image. The given label of an object without a region is background.
    """
    del rng
    evidence = image.evidence[0]
    total_hw = evidence.pixel_probs_khw.sum(axis=0, dtype=np.float32)

    def score(segment: Segment, background: bool) -> float:
        seen = read_map(total_hw, image.size_hw, segment.box_yxyx)[segment.mask_hw]
        if background:
            given = np.clip(1 - seen, 0, 1)
        elif segment.label not in evidence.labels:
            given = np.zeros_like(seen)
        else:
            own_hw = evidence.pixel_probs_khw[evidence.labels.index(segment.label)]
            own = read_map(own_hw, image.size_hw, segment.box_yxyx)[segment.mask_hw]
            given = own / np.maximum(seen, 1)
        weights = np.exp((1 - given) / TEMPERATURE)
        return 1 - float((given * weights).sum() / weights.sum())

    return Scores(
        region_r=np.array([score(one, False) for one in image.regions]),
        missing_m=np.array([score(one, True) for one in missing]),
    )


def objectlab(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """One minus the least of the badly-located, swapped and overlooked scores of boxes.

    Source: Tkachenko, Thyagarajan and Mueller 2023, ObjectLab: automated diagnosis of mislabeled images in
    object detection data.
    """
    del rng
    found = image.evidence[0].segments
    score_n = np.array([one.score for one in found])
    alike_rn = _box_similarity(image.regions, found, image.size_hw)
    same_rn = _same_label(image.regions, found)
    located_r = np.where(same_rn & (score_n >= LOW), alike_rn, 0.0).max(axis=1, initial=0.0)
    swapped_r = np.where(~same_rn & (score_n >= HIGH), alike_rn, 0.0).max(axis=1, initial=0.0)
    alike_mr = _box_similarity(missing, image.regions, image.size_hw)
    same_mr = _same_label(missing, image.regions)
    near_m = np.where(same_mr, alike_mr, 0.0).max(axis=1, initial=0.0)
    sure_m = np.array([one.score >= HIGH for one in missing], dtype=np.bool_)
    return Scores(
        region_r=1 - np.minimum(located_r, 1 - swapped_r), missing_m=np.where(sure_m, 1 - near_m, 0.0)
    )


def fiftyone_mistakenness(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """Mistakenness by confidence and by location; unmatched regions count as spurious, objects as missing.

    Source: FiftyOne Brain's documentation of `compute_mistakenness`: (1 + m c) / 2 with m = 1 for another
    label and -1 for the same; location: c (1 - IoU).
    """
    del rng
    found = image.evidence[0].segments
    iou_rn = _iou(image.regions, found)
    scores = []
    for row, region in enumerate(image.regions):
        best = int(iou_rn[row].argmax()) if len(found) else -1
        if best < 0 or iou_rn[row, best] < MATCH_IOU:
            scores.append(1.0)
            continue
        sure = found[best].score
        m = -1.0 if found[best].label == region.label else 1.0
        scores.append(max((1 + m * sure) / 2, sure * (1 - iou_rn[row, best])))
    return Scores(region_r=np.array(scores), missing_m=np.array([one.score for one in missing]))


def instance_loss(image: ReviewImage, missing: list[Segment], rng: np.random.Generator) -> Scores:
    """Classification loss plus box loss of a region with its object; of an object its loss as background.

    Source: Schubert, Riedlinger, Kahl, Rottmann et al. 2023, Identifying label errors in object detection
    datasets by loss inspection.
    """
    del rng
    evidence = image.evidence[0]
    found = evidence.segments
    iou_rn = _iou(image.regions, found)
    scores = []
    for row, region in enumerate(image.regions):
        best = int(iou_rn[row].argmax()) if len(found) else -1
        if best < 0 or iou_rn[row, best] <= 0.1:
            scores.append(-np.log(LEAST) + 1.0)
            continue
        own = _class_prob(evidence, best, region.label)
        scores.append(-np.log(max(own, LEAST)) + _box_loss(region, found[best]))
    return Scores(
        region_r=np.array(scores),
        missing_m=np.array([-np.log(max(1 - one.score, LEAST)) for one in missing]),
    )


def _class_prob(evidence: Evidence, position: int, label: str) -> float:
    if label not in evidence.labels:
        return 0.0
    return float(evidence.class_probs_nk[position, evidence.labels.index(label)])


def _box_loss(region: Segment, found: Segment) -> float:
    """Return the smooth L1 loss of the box's middle and log size, relative to the region's."""
    given, seen = box_array([region])[0].astype(float), box_array([found])[0].astype(float)
    size = np.maximum(given[2:] - given[:2], 1)
    other = np.maximum(seen[2:] - seen[:2], 1)
    shift = ((seen[:2] + seen[2:]) - (given[:2] + given[2:])) / 2 / size
    off = np.abs(np.concatenate([shift, np.log(other / size)]))
    return float(np.where(off < 1, 0.5 * off**2, off - 0.5).sum())


def _iou(first: tuple[Segment, ...], second: tuple[Segment, ...]) -> Floats:
    shared = shared_pixels(first, second)
    areas = np.array([one.area for one in second])
    union = np.array([[one.area] for one in first]).reshape(-1, 1) + areas[None] - shared
    return np.asarray(shared / np.maximum(union, 1))


def _same_label(first: Sequence[Segment], second: Sequence[Segment]) -> NDArray[np.bool_]:
    rows = [[one.label == other.label for other in second] for one in first]
    return np.array(rows, dtype=np.bool_).reshape(len(first), len(second))


def _box_similarity(
    first: tuple[Segment, ...] | list[Segment],
    second: tuple[Segment, ...] | list[Segment],
    size_hw: tuple[int, int],
) -> Floats:
    one, other = box_array(first).astype(float)[:, None], box_array(second).astype(float)[None]
    inner = np.clip(
        np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0, None
    )
    shared = inner.prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - shared
    off = ((one[..., :2] + one[..., 2:]) - (other[..., :2] + other[..., 2:])) / 2 / np.array(size_hw)
    near = np.exp(-np.linalg.norm(off, axis=-1) / 0.1)  # cleanlab's EUC_FACTOR
    return np.asarray(ALPHA * shared / np.maximum(union, 1) + (1 - ALPHA) * near)


BASELINES: dict[str, Baseline] = {
    "random": by_chance,
    "area": by_area,
    "cleanlab softmin": cleanlab_softmin,
    "ObjectLab boxes": objectlab,
    "FiftyOne mistakenness": fiftyone_mistakenness,
    "instance loss": instance_loss,
}
