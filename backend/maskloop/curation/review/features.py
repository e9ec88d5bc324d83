"""What speaks for an error in a region, or for a missing one: numbers from masks and one model's evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.appearance import UNKNOWN, ColourModel
from maskloop.curation.review.local_colours import NOTHING_LOCAL, LocalColours
from maskloop.curation.review.missing import MISSING_FEATURES, find_missing, missing_rows
from maskloop.curation.review.outline import (
    BAND,
    LEAST,
    MOST_LOSS,
    cross_entropy,
    outline_shape,
    share_at_image_edge,
    waist,
)
from maskloop.curation.review.overlap import Overlaps, overlaps, read_map, shared_pixels
from maskloop.curation.review.suspicion import Evidence
from maskloop.curation.review.touching import NO_NEIGHBOUR, touching_numbers
from maskloop.types import Segment

__all__ = ["MISSING_FEATURES", "REGION_FEATURES", "ImageFeatures", "add_context", "image_features"]

REGION_FEATURES = (
    "match_iou",  # with the best object the model sees there
    "match_score",  # of that object
    "support",  # the largest IoU x score
    "class_loss",  # minus log of the region's class, given that it is an object
    "class_margin",  # probability of the likeliest other class less that of the region's
    "own_pixels",  # mean probability of the region's class over its pixels
    "other_pixels",  # of all other classes
    "dice_loss",  # with the object's probabilities
    "band_loss",  # cross-entropy in a band along the outline
    "band_pixels",  # the same against the class's map
    "outside",  # share of the object outside the region
    "uncovered",  # share of the region outside the object
    "empty",  # share of the region outside all objects
    "second",  # score x share of the region of the second separate object inside it
    "merge_gain",  # IoU of the objects inside together, less that of the best one
    "whole",  # score of an object that holds this region and more
    "split_gain",  # IoU of an object with this and another region together, less with each alone
    "twin",  # largest IoU with another region of the same label
    "twin_any",  # of any label
    "inside_other",  # largest share of it inside another region
    "size",  # log area less the median of its class
    "solidity",  # area of the convex hull that it fills
    "roundness",  # 4 pi area / perimeter squared
    "parts",  # separate parts, at most 4
    "waist",  # how large a second part comes off where it is worn away
    "at_image_edge",  # how much of it the image cuts off
    "joint_size",  # size together with the region that touches it
    "class_support",  # mean support of the other regions of its class
    "image_support",  # of the other regions of its image
    *NO_NEIGHBOUR,
    *UNKNOWN,
    *NOTHING_LOCAL,
)
LEAST_PART = 0.15  # score of an object that may be one of several in a region


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """The numbers of one image: R regions and M objects that have none."""

    region_rf: NDArray[np.float64]  # (R, F) as REGION_FEATURES
    match_r: NDArray[np.int64]  # (R,): the object that a region is; -1: none
    partner_r: NDArray[np.int64]  # (R,): the region that it may be one object with, or a copy of; -1: none
    missing_mf: NDArray[np.float64]  # (M, F) as MISSING_FEATURES
    missing: tuple[Segment, ...]  # M


def image_features(
    regions: Sequence[Segment], evidence: Evidence, *, ignored: Sequence[Segment] = ()
) -> ImageFeatures:
    """Return the numbers of one image's regions and of the objects that have none.

    `size`, `joint_size`, `class_support` and `image_support` are filled in over all images by `add_context`.

    Args:
        regions: as annotated.
        evidence: of a model that had not seen the image.
        ignored: areas where nothing is missing.
    """
    found = overlaps(regions, evidence.segments)
    colours = local = None
    if evidence.appearance is not None:
        colours = ColourModel(evidence.appearance, regions, evidence.size_hw)
        local = LocalColours(evidence.appearance.lab_hwc, regions, evidence.size_hw)
    touching = touching_numbers(regions)
    support_rn = found.iou_rn * np.sqrt(found.score_n)[None]
    has_objects = support_rn.shape[1] > 0
    match_r = support_rn.argmax(axis=1) if has_objects else np.full(len(regions), -1)
    match_r = np.where(support_rn.max(axis=1, initial=0.0) > 0.05, match_r, -1).astype(np.int64)
    twins = _region_ious(regions)
    rows, partners = [], []
    for index in range(len(regions)):
        row, partner = _region_row(index, regions, evidence, found, match=int(match_r[index]), twins=twins)
        row |= touching[index]
        row |= colours.numbers(regions[index]) if colours is not None else UNKNOWN
        row |= local.numbers(regions[index]) if local is not None else NOTHING_LOCAL
        rows.append([row[name] for name in REGION_FEATURES])
        partners.append(partner)
    missing = find_missing(regions, evidence, found, ignored=ignored, colours=colours)
    return ImageFeatures(
        region_rf=np.array(rows, dtype=np.float64).reshape(-1, len(REGION_FEATURES)),
        match_r=match_r,
        partner_r=np.array(partners, dtype=np.int64),
        missing_mf=missing_rows(missing, regions, evidence, colours=colours, local=local),
        missing=tuple(one.segment for one in missing),
    )


def add_context(images: Sequence[ImageFeatures], regions: Sequence[Sequence[Segment]]) -> None:
    """Fill in what depends on the other regions of a class and of an image, in place.

    Args:
        images: as `image_features` returns them.
        regions: of each image.
    """
    at = {name: column for column, name in enumerate(REGION_FEATURES)}
    of = {name: column for column, name in enumerate(MISSING_FEATURES)}
    values: dict[str, list[tuple[float, float]]] = {}
    for image, drawn in zip(images, regions, strict=True):
        for row, region in zip(image.region_rf, drawn, strict=True):
            values.setdefault(region.label, []).append((row[at["support"]], np.log(region.area)))
    sums = {label: np.array(rows).sum(axis=0) for label, rows in values.items()}
    medians = {label: float(np.median([size for _, size in rows])) for label, rows in values.items()}
    whole = float(np.mean([support for rows in values.values() for support, _ in rows])) if values else 0.0

    def class_support(label: str, without: float | None) -> float:
        # two regions' worth of the mean of all classes keep a rare class's mean in bounds
        count = len(values.get(label, ())) - (without is not None)
        total = float(sums[label][0]) - (without or 0.0) if label in sums else 0.0
        return (total + 2 * whole) / (count + 2)

    for image, drawn in zip(images, regions, strict=True):
        supports = image.region_rf[:, at["support"]]
        for index, region in enumerate(drawn):
            row = image.region_rf[index]
            row[at["size"]] = np.log(region.area) - medians[region.label]
            row[at["joint_size"]] = row[at["size"]] + row[at["joint_growth"]]
            row[at["class_support"]] = class_support(region.label, float(supports[index]))
            row[at["image_support"]] = (supports.sum() - supports[index] + whole) / len(supports)
        for row, segment in zip(image.missing_mf, image.missing, strict=True):
            row[of["size"]] = np.log(segment.area) - medians.get(segment.label, np.log(segment.area))
            row[of["class_support"]] = class_support(segment.label, None)
            row[of["image_support"]] = (supports.sum() + whole) / (len(supports) + 1)


def _region_ious(regions: Sequence[Segment]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, R) IoU and (R, R) share of the row's region inside the column's; 0 with itself."""
    shared_rr = shared_pixels(regions, regions)
    area_r = np.diag(shared_rr).copy()
    np.fill_diagonal(shared_rr, 0)
    union_rr = np.maximum(area_r[:, None] + area_r[None] - shared_rr, 1)
    return shared_rr / union_rr, shared_rr / np.maximum(area_r[:, None], 1)


def _region_row(
    index: int,
    regions: Sequence[Segment],
    evidence: Evidence,
    found: Overlaps,
    *,
    match: int,
    twins: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[dict[str, float], int]:
    region = regions[index]
    iou_rr, inside_rr = twins
    same_r = np.array([other.label == region.label for other in regions])
    row = dict.fromkeys(REGION_FEATURES, 0.0)
    row |= _class_evidence(region, evidence, match)
    row |= _pixel_evidence(region, evidence, match)
    row |= outline_shape(region)
    row["waist"] = waist(region.mask_hw)
    row["at_image_edge"] = share_at_image_edge(region, evidence.size_hw)
    if match >= 0:
        row["match_iou"] = float(found.iou_rn[index, match])
        row["match_score"] = float(found.score_n[match])
        row["outside"] = 1.0 - found.shared_rn[index, match] / max(1, int(found.area_n[match]))
        row["uncovered"] = 1.0 - found.shared_rn[index, match] / max(1, int(found.area_r[index]))
    row["support"] = float((found.iou_rn[index] * found.score_n).max(initial=0.0))
    row["second"], row["merge_gain"] = _merged(index, found, evidence)
    row["whole"], row["split_gain"], partner = _split(index, found, same_r)
    row["twin"] = float((iou_rr[index] * same_r).max(initial=0.0))
    row["twin_any"] = float(iou_rr[index].max(initial=0.0))
    row["inside_other"] = float(inside_rr[index].max(initial=0.0))
    if row["twin_any"] > max(row["split_gain"], 0.2):
        partner = int(iou_rr[index].argmax())
    return row, partner


def _class_evidence(region: Segment, evidence: Evidence, match: int) -> Mapping[str, float]:
    if match < 0:
        return {"class_loss": float(np.log(len(evidence.labels) + 1)), "class_margin": 0.0}
    probs_k = evidence.class_probs_nk[match] / max(float(evidence.class_probs_nk[match].sum()), LEAST)
    known = region.label in evidence.labels
    own = float(probs_k[evidence.labels.index(region.label)]) if known else 0.0
    rest_k = np.array([p for label, p in zip(evidence.labels, probs_k, strict=True) if label != region.label])
    return {
        "class_loss": -float(np.log(max(own, LEAST))),
        "class_margin": float(rest_k.max(initial=0.0)) - own,
    }


def _pixel_evidence(region: Segment, evidence: Evidence, match: int) -> Mapping[str, float]:
    """Return losses over a box a little larger than the region."""
    reach = max(1, round(BAND * np.sqrt(region.area)))
    top, left, bottom, right = region.box_yxyx
    height, width = evidence.size_hw
    box = (max(0, top - reach), max(0, left - reach), min(height, bottom + reach), min(width, right + reach))
    drawn_hw = np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)
    drawn_hw[top - box[0] : bottom - box[0], left - box[1] : right - box[1]] = region.mask_hw
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    band_hw = cv2.dilate(drawn_hw, kernel) != cv2.erode(
        drawn_hw, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1
    )
    inside_hw = drawn_hw > 0
    total_hw = read_map(evidence.expected_hw, evidence.size_hw, box)
    if region.label in evidence.labels:
        own_hw = read_map(
            evidence.pixel_probs_khw[evidence.labels.index(region.label)], evidence.size_hw, box
        )
    else:
        own_hw = np.zeros_like(total_hw)
    object_hw = (
        read_map(evidence.mask_probs_nhw[match], evidence.size_hw, box)
        if match >= 0
        else np.zeros_like(total_hw)
    )
    shared = float(object_hw[inside_hw].sum())
    return {
        "own_pixels": float(np.minimum(own_hw, 1)[inside_hw].mean()),
        "other_pixels": float(np.clip(total_hw - own_hw, 0, 1)[inside_hw].mean()),
        "empty": 1.0 - float(np.minimum(total_hw, 1)[inside_hw].mean()),
        "dice_loss": 1.0 - 2 * shared / max(float(object_hw.sum()) + region.area, 1.0),
        "band_loss": cross_entropy(object_hw, inside_hw, band_hw) if match >= 0 else MOST_LOSS,
        "band_pixels": cross_entropy(np.minimum(own_hw, 1), inside_hw, band_hw),
    }


def _merged(index: int, found: Overlaps, evidence: Evidence) -> tuple[float, float]:
    """Return how large and sure the second separate object inside the region is, and what both gain."""
    inside_n = found.shared_rn[index] / np.maximum(found.area_n, 1)
    candidates = np.flatnonzero((inside_n >= 0.6) & (found.score_n >= LEAST_PART))
    if len(candidates) < 2:
        return 0.0, 0.0
    candidates = candidates[np.argsort(-found.score_n[candidates] * found.shared_rn[index, candidates])][:12]
    chosen = [int(candidates[0])]
    shared_nn = shared_pixels(
        [evidence.segments[n] for n in candidates], [evidence.segments[n] for n in candidates]
    )
    position = {int(n): place for place, n in enumerate(candidates)}
    for n in candidates[1:]:
        if all(
            shared_nn[position[int(n)], position[m]] <= 0.3 * min(found.area_n[n], found.area_n[m])
            for m in chosen
        ):
            chosen.append(int(n))
    if len(chosen) < 2:
        return 0.0, 0.0
    area = max(1, int(found.area_r[index]))
    second = max(float(found.score_n[n]) * found.shared_rn[index, n] / area for n in chosen[1:])
    together = found.shared_rn[index, chosen].sum() / (
        area + (found.area_n - found.shared_rn[index])[chosen].sum()
    )
    sure = float(found.score_n[chosen].min())
    return second, sure * float(together - found.iou_rn[index].max(initial=0.0))


def _split(index: int, found: Overlaps, same_r: NDArray[np.bool_]) -> tuple[float, float, int]:
    """Return the score of an object that holds the region and more, the gain with a partner, and which."""
    inside_n = found.shared_rn[index] / max(1, int(found.area_r[index]))
    whole_n = found.score_n * (inside_n >= 0.7) * (1 - found.iou_rn[index]) * inside_n
    best, partner = 0.0, -1
    for n in np.flatnonzero((inside_n >= 0.6) & (found.score_n >= LEAST_PART)):
        for other in np.flatnonzero(same_r & (found.shared_rn[:, n] >= 0.6 * found.area_r)):
            if other == index:
                continue
            shared = found.shared_rn[index, n] + found.shared_rn[other, n]
            union = found.area_r[index] + found.area_r[other] + found.area_n[n] - shared
            alone = max(found.iou_rn[index, n], found.iou_rn[other, n])
            gain = found.score_n[n] * float(shared / max(union, 1) - alone)
            if gain > best:
                best, partner = gain, int(other)
    return float(whole_n.max(initial=0.0)), best, partner
