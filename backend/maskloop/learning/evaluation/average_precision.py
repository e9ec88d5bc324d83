"""From tallies to numbers, for many weightings of the images at once: one of them is plain, others resample.

R weightings, N images, C classes, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.coco_matching import Detections

__all__ = [
    "Floats",
    "average_precision",
    "boundary_iou_of_classes",
    "mean_known",
    "ratio",
]

Floats = NDArray[np.float64]

_RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads precision
_CHUNK_VALUES = 1 << 22  # of one plane of weightings x detections: 32 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePrecision:
    """Of each weighting and class; NaN where the truth has no object of the class."""

    precision_rtc: Floats  # at each of the T thresholds asked for
    recall_rtc: Floats  # of all detections together


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    quotient: Floats = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def mean_known(values: Floats, axis: int) -> Floats:
    """Return the mean over an axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis).astype(np.float64))


def boundary_iou_of_classes(rim_3rc: Floats) -> Floats:
    """Return (R, C): shared rim pixels over the union of rims; NaN where there is no rim."""
    shared, found, wanted = rim_3rc
    return ratio(shared, found + wanted - shared)


def average_precision(
    detections: Detections, objects_nc: Floats, weights_rn: Floats, *, thresholds: slice = slice(None)
) -> AveragePrecision:
    """Return COCO's AP and recall of each class under each weighting of the images.

    A weight of 2 counts for an image that is there twice. Detections of equal score keep the order of their
    images.

    Args:
        detections: of all images.
        objects_nc: how many objects each image has, crowds not counted.
        weights_rn: whole numbers, 0 or more.
        thresholds: which of IOU_THRESHOLDS.

    Source:
        `accumulate` of pycocotools' cocoeval.py: precision made monotone, read at 101 points of recall.
    """
    right_td, ignored_td = detections.right_td[thresholds], detections.ignored_td[thresholds]
    classes, shape_rt = objects_nc.shape[1], (len(weights_rn), len(right_td))
    wanted_rc = weights_rn @ objects_nc
    precision_rtc = np.full((*shape_rt, classes), np.nan)
    recall_rtc = precision_rtc.copy()
    for class_id in range(classes):
        mine = np.flatnonzero(detections.class_d == class_id)
        mine = mine[np.argsort(-detections.score_d[mine], kind="stable")]
        rows = max(1, _CHUNK_VALUES // max(1, len(mine)))
        for start in range(0, shape_rt[0], rows):
            part = slice(start, start + rows)
            weights_rd = weights_rn[part][:, detections.image_d[mine]]
            for threshold, (right_d, ignored_d) in enumerate(
                zip(right_td[:, mine], ignored_td[:, mine], strict=True)
            ):
                precision_rtc[part, threshold, class_id], recall_rtc[part, threshold, class_id] = _one_class(
                    weights_rd, right_d, ignored_d, wanted_rc[part, class_id]
                )
    return AveragePrecision(precision_rtc=precision_rtc, recall_rtc=recall_rtc)


def _one_class(
    weights_rd: Floats, right_d: NDArray[np.bool_], ignored_d: NDArray[np.bool_], wanted_r: Floats
) -> tuple[Floats, Floats]:
    """Return (R,) twice, AP and recall, of one class at one threshold; detections best first."""
    right_rd = np.cumsum(weights_rd * right_d, axis=1)
    if not right_rd.shape[1]:
        nothing_r = np.where(wanted_r > 0, 0.0, np.nan)
        return nothing_r, nothing_r.copy()
    counted_rd = np.cumsum(weights_rd * ~ignored_d, axis=1)
    precision_rd = right_rd / (counted_rd + np.spacing(1))
    precision_rd = np.maximum.accumulate(precision_rd[:, ::-1], axis=1)[:, ::-1]
    # 64-bit floats, compared as COCO compares them: how many points of recall are reached so far
    recall_rd = right_rd / np.maximum(wanted_r, 1.0)[:, None]
    reached_rd = np.searchsorted(_RECALLS, recall_rd.ravel(), side="right").reshape(recall_rd.shape)
    newly_rd = np.diff(reached_rd, axis=1, prepend=0)
    found_r = (precision_rd * newly_rd).sum(axis=1) / len(_RECALLS)
    return np.where(wanted_r > 0, found_r, np.nan), ratio(right_rd[:, -1], wanted_r)
