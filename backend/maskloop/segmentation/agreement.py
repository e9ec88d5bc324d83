"""How much two predictions of one image say the same; the measure of panoptic quality, between two models."""

from __future__ import annotations

from maskloop.masks import segment_iou
from maskloop.types import Prediction

__all__ = ["agreement"]

LEAST_IOU = 0.5  # above it a segment has at most one partner where segments do not overlap


def agreement(first: Prediction, second: Prediction) -> float:
    """Return 0..1: the IoU of matching segments, less for each that has no match; 1 where both are empty.

    Args:
        first: of an image.
        second: of the same image, by another model.

    Source: Kirillov et al. 2019, Panoptic Segmentation, section 4 (PQ, over all classes at once).
    """
    total = len(first.segments) + len(second.segments)
    if total == 0:
        return 1.0
    pairs = [
        (segment_iou(one, other), index, partner)
        for index, one in enumerate(first.segments)
        for partner, other in enumerate(second.segments)
        if one.label == other.label
    ]
    matched: set[int] = set()
    taken: set[int] = set()
    shared = 0.0
    for iou, index, partner in sorted(pairs, reverse=True):
        if iou > LEAST_IOU and index not in matched and partner not in taken:
            matched.add(index)
            taken.add(partner)
            shared += iou
    return 2 * shared / total
