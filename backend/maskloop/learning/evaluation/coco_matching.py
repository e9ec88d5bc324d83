"""Matching of predicted and true objects as in COCO's mask AP: greedy, best first, at ten IoU thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.masks import mask_to_segment
from maskloop.types import Segment

__all__ = ["IOU_THRESHOLDS", "Detections", "match_image"]

IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10, dtype=np.float64)
_MAX_DETECTIONS = 100  # per class and image


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """D predicted objects and whether each is correct at T IoU thresholds."""

    class_d: NDArray[np.int64]  # position of the class in the labels
    image_d: NDArray[np.int64]  # position of the image in the holdout
    score_d: NDArray[np.float64]
    correct_td: NDArray[np.bool_]  # matches an object that no better detection matched
    ignored_td: NDArray[np.bool_]  # lies in a crowd or an ignored area: neither correct nor wrong

    @classmethod
    def joined(cls, parts: Sequence[Detections]) -> Detections:
        """Return the detections of several images as one value."""
        thresholds = len(IOU_THRESHOLDS)
        empty = np.zeros((thresholds, 0), np.bool_)
        return cls(
            class_d=np.concatenate([np.zeros(0, np.int64), *(part.class_d for part in parts)]),
            image_d=np.concatenate([np.zeros(0, np.int64), *(part.image_d for part in parts)]),
            score_d=np.concatenate([np.zeros(0), *(part.score_d for part in parts)]),
            correct_td=np.concatenate([empty, *(part.correct_td for part in parts)], axis=1),
            ignored_td=np.concatenate([empty, *(part.ignored_td for part in parts)], axis=1),
        )


def match_image(
    found: Sequence[Segment], truth: GroundTruth, *, labels: Sequence[str], image: int
) -> Detections:
    """Return the detections of one image, matched with its ground truth.

    An ignored area counts as a crowd of every class.

    Args:
        found: predicted segments; they may overlap.
        truth: ground truth of the image.
        labels: the classes in the order of their ids.
        image: position of the image in the holdout.

    Source:
        `evaluateImg` of pycocotools' cocoeval.py, for objects of all sizes.
    """
    area = None if truth.ignored_hw is None else mask_to_segment(truth.ignored_hw, label="")
    parts = []
    for class_id, label in enumerate(labels):
        seen = [segment for segment in found if segment.label == label]
        if not seen:
            continue
        best_first = sorted(seen, key=lambda segment: -segment.score)[:_MAX_DETECTIONS]
        objects = [segment for segment in truth.segments if segment.label == label]
        crowds = [segment for segment in truth.crowds if segment.label == label]
        crowds += [] if area is None else [area]
        correct_td, ignored_td = _match(
            _overlaps(best_first, objects, crowd=False), _overlaps(best_first, crowds, crowd=True)
        )
        parts.append(
            Detections(
                class_d=np.full(len(best_first), class_id),
                image_d=np.full(len(best_first), image),
                score_d=np.array([segment.score for segment in best_first]),
                correct_td=correct_td,
                ignored_td=ignored_td,
            )
        )
    return Detections.joined(parts)


def _match(
    iou_dg: NDArray[np.float64], share_dk: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return correct (T, D) and ignored (T, D).

    Args:
        iou_dg: (D, G), IoU of each detection with each object.
        share_dk: (D, K), share of each detection that lies in each crowd.
    """
    least_t = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    ignored_td = (share_dk.max(axis=1, initial=0.0)[None] >= least_t[:, None]) & (share_dk.shape[1] > 0)
    correct_td = np.zeros((len(least_t), len(iou_dg)), np.bool_)
    objects = iou_dg.shape[1]
    if objects:
        free_tg = np.ones((len(least_t), objects), np.bool_)
        for detection, iou_g in enumerate(iou_dg):
            open_tg = free_tg & (iou_g[None] >= least_t[:, None])
            # among objects of equal IoU COCO takes the last
            last_t = objects - 1 - np.argmax(np.where(open_tg, iou_g, -1.0)[:, ::-1], axis=1)
            correct_t = open_tg.any(axis=1)
            free_tg[correct_t, last_t[correct_t]] = False
            correct_td[:, detection] = correct_t
    return correct_td, ignored_td & ~correct_td


def _overlaps(found: Sequence[Segment], others: Sequence[Segment], *, crowd: bool) -> NDArray[np.float64]:
    """Return float64 (D, G): IoU, or for crowds the share of the prediction that lies in the crowd."""
    overlap_dg = np.zeros((len(found), len(others)))
    if not others:
        return overlap_dg
    boxes_g4 = np.array([segment.box_yxyx for segment in others])
    areas_g = np.array([segment.area for segment in others])
    for row, segment in enumerate(found):
        top, left, bottom, right = segment.box_yxyx
        near_g = (boxes_g4[:, 0] < bottom) & (boxes_g4[:, 2] > top)
        near_g &= (boxes_g4[:, 1] < right) & (boxes_g4[:, 3] > left)
        area = segment.area
        for column in np.flatnonzero(near_g):
            shared = _shared_pixels(segment, others[column])
            whole = area if crowd else area + int(areas_g[column]) - shared
            overlap_dg[row, column] = shared / whole if whole else 0.0
    return overlap_dg


def _shared_pixels(first: Segment, second: Segment) -> int:
    """Return the number of pixels that two segments with overlapping boxes share."""
    boxes_24 = np.array([first.box_yxyx, second.box_yxyx])
    top, left = boxes_24[:, :2].max(axis=0)
    bottom, right = boxes_24[:, 2:].min(axis=0)
    windows = [
        segment.mask_hw[
            top - segment.offset_yx[0] : bottom - segment.offset_yx[0],
            left - segment.offset_yx[1] : right - segment.offset_yx[1],
        ]
        for segment in (first, second)
    ]
    return int(np.count_nonzero(windows[0] & windows[1]))
