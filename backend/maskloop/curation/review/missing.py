"""Where a region may be missing: what a model sees as an object and no region covers.

A weak model draws several objects as one, or sees the pixels of an object without being sure of it. So an
object counts less what regions cover of it, and parts of the map of all objects' pixels count as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.appearance import UNKNOWN, ColourModel, covered_on_view
from maskloop.curation.review.local_colours import NOTHING_LOCAL, LocalColours
from maskloop.curation.review.outline import BAND, outline_shape
from maskloop.curation.review.overlap import Overlaps, read_map, shared_pixels
from maskloop.curation.review.suspicion import Evidence
from maskloop.masks import crop_mask, mask_to_segment, paste_segment
from maskloop.types import BoolMask, Segment

__all__ = ["MISSING_FEATURES", "Candidate", "find_missing", "missing_rows"]

MISSING_FEATURES = (
    "score",
    "class_prob",
    "class_margin",
    "mask_prob",  # mean over its pixels
    "best_iou",  # with a region
    "covered",  # share of the model's object that lies in regions
    "covered_same",  # in regions of its label
    "size",
    "solidity",
    "class_support",
    "image_support",
    "rank",  # among the image's unmatched objects, 0..1
    "kept",  # share of the model's object that is shown: the rest lies in regions
    "foreground",  # mean probability that a pixel is any object's
    "foreground_least",  # tenth percentile of it
    *UNKNOWN,
    *NOTHING_LOCAL,
)
TAKEN_IOU = 0.4  # an object that overlaps a region so much is that region's
MOST_COVERED = 0.1  # of an object that is shown whole
LEAST_KEPT = 0.3  # of a model's object that no region covers
MOST_PARTS = 12  # of the map of all objects' pixels
LEAST_PIXELS = 9  # of such a part
LEAST_SHARE = 0.2  # of the median area of the image's regions
TWICE = 0.5  # of the smaller of two that are the same place


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A place where a region may be missing."""

    segment: Segment
    source: int  # position among the evidence's objects; -1: a part of the map of all objects' pixels
    kept: float = 1.0  # share of the object


def find_missing(
    regions: Sequence[Segment],
    evidence: Evidence,
    found: Overlaps,
    *,
    ignored: Sequence[Segment],
    colours: ColourModel | None,
) -> list[Candidate]:
    """Return where regions may be missing, each place once: the model's objects, best first, then parts.

    Args:
        regions: as annotated.
        evidence: of a model that had not seen the image.
        found: overlaps of regions and objects.
        ignored: areas where nothing is missing.
        colours: of the image, where they are known.
    """
    covered_hw = _union(regions, evidence.size_hw)
    void_hw = _union(ignored, evidence.size_hw)
    best_n = found.iou_rn.max(axis=0, initial=0.0)
    chosen: list[Candidate] = []
    for n in np.argsort(-found.score_n, kind="stable"):
        whole = evidence.segments[n]
        hidden = _inside(whole, covered_hw)
        if hidden <= MOST_COVERED * whole.area and best_n[n] < TAKEN_IOU:
            candidate = Candidate(segment=whole, source=int(n))
        else:
            rest = _uncovered(whole, covered_hw)
            if rest is None or rest.area < LEAST_KEPT * whole.area:
                continue
            candidate = Candidate(segment=rest, source=int(n), kept=rest.area / whole.area)
        chosen.append(candidate)
    chosen += _parts(regions, evidence, covered_hw, colours)
    apart: list[Candidate] = []
    for candidate in chosen:
        one = candidate.segment
        if _inside(one, void_hw) > one.area / 2:
            continue
        if apart:
            areas_m = np.array([other.segment.area for other in apart])
            shared_m = shared_pixels([one], [other.segment for other in apart])[0]
            if (shared_m > TWICE * np.minimum(areas_m, one.area)).any():
                continue
        apart.append(candidate)
    return apart


def missing_rows(
    missing: Sequence[Candidate],
    regions: Sequence[Segment],
    evidence: Evidence,
    *,
    colours: ColourModel | None,
    local: LocalColours | None,
) -> NDArray[np.float64]:
    """Return float64 (M, F) as MISSING_FEATURES; what depends on other images is 0."""
    labels = np.array([region.label for region in regions])
    shown = [one.segment for one in missing]
    shared_rm = shared_pixels(regions, shown)
    area_r = np.array([region.area for region in regions], dtype=np.int64)
    total_hw = evidence.object_probs()
    rows = []
    for rank, one in enumerate(missing):
        segment = one.segment
        seen = read_map(total_hw, evidence.size_hw, segment.box_yxyx)[segment.mask_hw]
        if one.source >= 0:
            probs_k = np.sort(evidence.class_probs_nk[one.source])[::-1]
            own_hw = evidence.mask_probs_nhw[one.source]
            mask_prob = float(read_map(own_hw, evidence.size_hw, segment.box_yxyx)[segment.mask_hw].mean())
            whole = evidence.segments[one.source]
        else:
            probs_k = np.sort(_class_means(evidence, segment))[::-1]
            mask_prob, whole = float(seen.mean()), segment
        share_r = shared_rm[:, rank] / max(1, segment.area)
        if whole is not segment:
            share_r = shared_pixels(regions, [whole])[:, 0] / max(1, whole.area)
        union_r = np.maximum(area_r + segment.area - shared_rm[:, rank], 1)
        row = dict.fromkeys(MISSING_FEATURES, 0.0)
        row |= {
            "score": segment.score,
            "class_prob": float(probs_k[0]),
            "class_margin": float(probs_k[0] - (probs_k[1] if len(probs_k) > 1 else 0.0)),
            "mask_prob": mask_prob,
            "best_iou": float((shared_rm[:, rank] / union_r).max(initial=0.0)),
            "covered": float(min(1.0, share_r.sum())),
            "covered_same": float(min(1.0, share_r[labels == segment.label].sum())) if len(labels) else 0.0,
            "solidity": outline_shape(segment)["solidity"],
            "rank": rank / len(missing),
            "kept": one.kept,
            "foreground": float(seen.mean()),
            "foreground_least": float(np.quantile(seen, 0.1)),
            **(colours.numbers(segment) if colours is not None else UNKNOWN),
            **(local.numbers(segment) if local is not None else NOTHING_LOCAL),
        }
        rows.append([row[name] for name in MISSING_FEATURES])
    return np.array(rows, dtype=np.float64).reshape(-1, len(MISSING_FEATURES))


def _union(segments: Sequence[Segment], size_hw: tuple[int, int]) -> BoolMask:
    union_hw = np.zeros(size_hw, np.bool_)
    for segment in segments:
        union_hw |= paste_segment(segment, size_hw)
    return union_hw


def _inside(segment: Segment, area_hw: BoolMask) -> int:
    top, left, bottom, right = segment.box_yxyx
    return int(np.count_nonzero(area_hw[top:bottom, left:right] & segment.mask_hw))


def _uncovered(whole: Segment, covered_hw: BoolMask) -> Segment | None:
    """Return the largest part of an object that no region covers, without rims along regions."""
    top, left, bottom, right = whole.box_yxyx
    free_hw = (whole.mask_hw & ~covered_hw[top:bottom, left:right]).astype(np.uint8)
    reach = max(1, round(BAND * np.sqrt(whole.area)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    core_hw = cv2.erode(free_hw, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    count, parts_hw, stats, _ = cv2.connectedComponentsWithStats(core_hw)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    grown_hw = cv2.dilate((parts_hw == largest).astype(np.uint8), kernel) > 0
    rest_hw = np.asarray(grown_hw & (free_hw > 0))
    crop_hw, (y, x) = crop_mask(rest_hw)
    return replace(whole, mask_hw=crop_hw, offset_yx=(top + y, left + x))


def _parts(
    regions: Sequence[Segment], evidence: Evidence, covered_hw: BoolMask, colours: ColourModel | None
) -> list[Candidate]:
    """Return separate parts of the map of all objects' pixels that no region covers, likeliest first."""
    if not evidence.labels:
        return []
    probs_hw = evidence.object_probs()
    if colours is not None:
        probs_hw = read_map(probs_hw, colours.view_hw, (0, 0, *colours.view_hw))
        probs_hw = np.asarray((probs_hw + colours.object_probs()) / 2, dtype=np.float32)
    height, width = probs_hw.shape
    taken_hw = covered_on_view(regions, evidence.size_hw, (height, width)).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    free_hw = ((probs_hw > 0.5) & (cv2.dilate(taken_hw, kernel) == 0)).astype(np.uint8)
    opened_hw: Any = cv2.morphologyEx(free_hw, cv2.MORPH_OPEN, kernel)
    count, parts_hw, stats, _ = cv2.connectedComponentsWithStats(opened_hw)
    to_view = height * width / (evidence.size_hw[0] * evidence.size_hw[1])
    usual = float(np.median([region.area for region in regions])) * to_view if regions else 0.0
    least = max(LEAST_PIXELS, LEAST_SHARE * usual)
    found = [
        (float(probs_hw[parts_hw == part].mean()), part)
        for part in range(1, count)
        if stats[part, cv2.CC_STAT_AREA] >= least
    ]
    candidates = []
    for score, part in sorted(found, key=lambda pair: -pair[0])[:MOST_PARTS]:
        mask_hw = (parts_hw == part).astype(np.float32)
        drawn_hw = (cv2.resize(mask_hw, evidence.size_hw[::-1]) > 0.5) & ~covered_hw
        plain = mask_to_segment(drawn_hw, label=evidence.labels[0], score=score)
        if plain is not None:
            label = evidence.labels[int(np.argmax(_class_means(evidence, plain)))]
            candidates.append(Candidate(segment=replace(plain, label=label), source=-1))
    return candidates


def _class_means(evidence: Evidence, segment: Segment) -> NDArray[np.float64]:
    """Return (K,): each class's mean over a segment's pixels, 0..1."""
    return np.array(
        [
            min(1.0, float(read_map(one_hw, evidence.size_hw, segment.box_yxyx)[segment.mask_hw].mean()))
            for one_hw in evidence.pixel_probs_khw
        ]
    )
