"""Metrics from counts, for many weightings of the images at once, as a bootstrap takes them.

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
    """AP and recall of each weighting and class; NaN where the ground truth has no object of the class."""

    precision_rtc: Floats  # (R, T, C), at each of the T thresholds
    recall_rtc: Floats  # (R, T, C), of all detections together


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    quotient: Floats = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def mean_known(values: Floats, axis: int) -> Floats:
    """Return the mean over an axis without NaN; NaN where all values are NaN."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis).astype(np.float64))


def boundary_iou_of_classes(counts_3rc: Floats) -> Floats:
    """Return (R, C): intersection over union of boundary pixels; NaN where there are none."""
    shared, found, wanted = counts_3rc
    return ratio(shared, found + wanted - shared)


def average_precision(
    detections: Detections, objects_nc: Floats, weights_rn: Floats, *, thresholds: slice = slice(None)
) -> AveragePrecision:
    """Return COCO's AP and recall of each class under each weighting of the images.

    A weight of 2 is the same as having the image twice. Detections of equal score keep the order of their
    images.

    Args:
        detections: detections of all images.
        objects_nc: (N, C), objects in the ground truth without crowds.
        weights_rn: (R, N), whole numbers from 0.
        thresholds: which of IOU_THRESHOLDS.

    Source:
        `accumulate` of pycocotools' cocoeval.py: precision made monotone, read at 101 points of recall.
    """
    correct_td, ignored_td = detections.correct_td[thresholds], detections.ignored_td[thresholds]
    classes, shape_rt = objects_nc.shape[1], (len(weights_rn), len(correct_td))
    wanted_rc = weights_rn @ objects_nc
    precision_rtc = np.full((*shape_rt, classes), np.nan)
    recall_rtc = precision_rtc.copy()
    for class_id in range(classes):
        of_class = np.flatnonzero(detections.class_d == class_id)
        of_class = of_class[np.argsort(-detections.score_d[of_class], kind="stable")]
        rows = max(1, _CHUNK_VALUES // max(1, len(of_class)))
        for start in range(0, shape_rt[0], rows):
            part = slice(start, start + rows)
            weights_rd = weights_rn[part][:, detections.image_d[of_class]]
            for threshold, (correct_d, ignored_d) in enumerate(
                zip(correct_td[:, of_class], ignored_td[:, of_class], strict=True)
            ):
                precision_rtc[part, threshold, class_id], recall_rtc[part, threshold, class_id] = _one_class(
                    weights_rd, correct_d, ignored_d, wanted_rc[part, class_id]
                )
    return AveragePrecision(precision_rtc=precision_rtc, recall_rtc=recall_rtc)


def _one_class(
    weights_rd: Floats, correct_d: NDArray[np.bool_], ignored_d: NDArray[np.bool_], wanted_r: Floats
) -> tuple[Floats, Floats]:
    """Return AP (R,) and recall (R,) of one class at one threshold; detections best first."""
    correct_rd = np.cumsum(weights_rd * correct_d, axis=1)
    if not correct_rd.shape[1]:
        none_found_r = np.where(wanted_r > 0, 0.0, np.nan)
        return none_found_r, none_found_r.copy()
    counted_rd = np.cumsum(weights_rd * ~ignored_d, axis=1)
    precision_rd = correct_rd / (counted_rd + np.spacing(1))
    precision_rd = np.maximum.accumulate(precision_rd[:, ::-1], axis=1)[:, ::-1]
    # float64, compared as in COCO's code: how many of the 101 recall points are reached so far
    recall_rd = correct_rd / np.maximum(wanted_r, 1.0)[:, None]
    reached_rd = np.searchsorted(_RECALLS, recall_rd.ravel(), side="right").reshape(recall_rd.shape)
    newly_rd = np.diff(reached_rd, axis=1, prepend=0)
    found_r = (precision_rd * newly_rd).sum(axis=1) / len(_RECALLS)
    return np.where(wanted_r > 0, found_r, np.nan), ratio(correct_rd[:, -1], wanted_r)
