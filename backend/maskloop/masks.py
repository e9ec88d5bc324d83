"""Pure operations on boolean masks and on their crops; knows no model and no file format."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.types import BoolMask, Prediction, Segment

__all__ = [
    "agreement",
    "crop_mask",
    "drop_duplicates",
    "drop_pieces",
    "drop_specks",
    "mask_to_segment",
    "paste_segment",
    "segment_intersection",
    "segment_iou",
    "segments_to_index_map",
    "window_around",
]

ROWS = 64  # of a mask at once: indices are copied as 64 bits each
LEAST_IOU = 0.5  # above it a segment has at most one partner where segments do not overlap


def crop_mask(mask_hw: BoolMask) -> tuple[BoolMask, tuple[int, int]]:
    """Return the smallest crop that holds every foreground pixel, and its (top, left) offset.

    Args:
        mask_hw: bool (H, W).

    Returns:
        A bool copy (h, w) and the offset in pixels; a (0, 0) crop at (0, 0) where nothing is set.
    """
    if not mask_hw.any():
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    left, top, width, height = cv2.boundingRect(mask_hw.astype(np.bool_, copy=False).view(np.uint8))
    crop = mask_hw[top : top + height, left : left + width]
    return crop.astype(np.bool_, copy=True), (top, left)


def mask_to_segment(mask_hw: BoolMask, *, label: str, score: float = 1.0) -> Segment | None:
    """Return the segment of a full-size mask, or None where the mask is empty.

    Args:
        mask_hw: bool (H, W), the whole image.
        label: the class's name.
        score: 0..1.
    """
    crop_hw, offset_yx = crop_mask(mask_hw)
    if crop_hw.size == 0:
        return None
    return Segment(mask_hw=crop_hw, offset_yx=offset_yx, label=label, score=score)


def paste_segment(segment: Segment, size_hw: tuple[int, int]) -> BoolMask:
    """Return the segment's mask as bool (H, W) of the whole image.

    What lies outside `size_hw` is cut off.
    """
    full_hw = np.zeros(size_hw, dtype=np.bool_)
    top, left = segment.offset_yx
    target = full_hw[top : top + segment.mask_hw.shape[0], left : left + segment.mask_hw.shape[1]]
    target[...] = segment.mask_hw[: target.shape[0], : target.shape[1]]
    return full_hw


def window_around(segment: Segment, size_hw: tuple[int, int], reach: int) -> tuple[BoolMask, tuple[int, int]]:
    """Return the mask in its box and `reach` pixels around it, inside the image, and where that begins.

    Args:
        segment: inside the image.
        size_hw: of the image.
        reach: pixels.
    """
    top, left, bottom, right = segment.box_yxyx
    y, x = max(0, top - reach), max(0, left - reach)
    placed = dataclasses.replace(segment, offset_yx=(top - y, left - x))
    return paste_segment(placed, (min(size_hw[0], bottom + reach) - y, min(size_hw[1], right + reach) - x)), (
        y,
        x,
    )


def drop_specks(segment: Segment, least_share: float) -> Segment:
    """Return the segment without the separate parts that are too small; its largest part always stays.

    Args:
        segment: any.
        least_share: of the segment's area, 0..1; parts are 8-connected.
    """
    _, labels_hw, stats, _ = cv2.connectedComponentsWithStats(segment.mask_hw.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # row 0 is the background
    wanted = (areas >= least_share * areas.sum()) | (areas == areas.max())
    if wanted.all():
        return segment
    kept = np.append(False, wanted)
    chosen_hw = np.empty(labels_hw.shape, dtype=np.bool_)
    for top in range(0, len(labels_hw), ROWS):
        rows = slice(top, top + ROWS)
        np.take(kept, labels_hw[rows].astype(np.int32, copy=False), out=chosen_hw[rows], mode="clip")
    kept_hw, (top, left) = crop_mask(chosen_hw)
    offset_yx = (segment.offset_yx[0] + top, segment.offset_yx[1] + left)
    return dataclasses.replace(segment, mask_hw=kept_hw, offset_yx=offset_yx)


def drop_duplicates(segments: tuple[Segment, ...], most_iou: float) -> tuple[Segment, ...]:
    """Return the segments without duplicates: those that overlap a better one of any label too much.

    Args:
        segments: best first.
        most_iou: 0..1; a segment with more IoU with an earlier one that stays is dropped.
    """
    areas = [segment.area for segment in segments]
    kept: list[int] = []
    for index, segment in enumerate(segments):
        # the boxes first: an intersection lies in them, and a union is no smaller than the larger segment
        if all(
            _box_intersection(segment, segments[better]) <= most_iou * max(areas[index], areas[better])
            or segment_iou(segment, segments[better]) <= most_iou
            for better in kept
        ):
            kept.append(index)
    return tuple(segments[index] for index in kept)


def drop_pieces(segments: tuple[Segment, ...], most_inside: float) -> tuple[Segment, ...]:
    """Return the segments without pieces: those that lie inside a better one of their label.

    A piece has a low IoU with the whole object, so it is no duplicate. Its intersection over the smaller area
    (IoM) with the whole is near 1. A segment that is larger than the better one stays: it may be the whole
    object. One inside a segment of another label stays as well: it may be a small object on a large one.

    Args:
        segments: best first.
        most_inside: 0..1; a segment with a larger share of its area inside one earlier segment that stays,
            has its label and is at least as large, is dropped. 1 keeps all.
    """
    areas = [segment.area for segment in segments]
    kept: list[int] = []
    for index, segment in enumerate(segments):
        most = most_inside * areas[index]
        wholes = (
            better
            for better in kept
            if segments[better].label == segment.label and areas[better] >= areas[index]
        )
        # the boxes first: most pairs need no look at their pixels
        if not any(
            _box_intersection(segment, segments[whole]) > most
            and segment_intersection(segment, segments[whole]) > most
            for whole in wholes
        ):
            kept.append(index)
    return tuple(segments[index] for index in kept)


def segment_iou(first: Segment, second: Segment) -> float:
    """Return the intersection over union of two segments of one image, 0..1."""
    overlap = segment_intersection(first, second)
    if overlap == 0:
        return 0.0
    return overlap / (first.area + second.area - overlap)


def segments_to_index_map(segments: tuple[Segment, ...], size_hw: tuple[int, int]) -> NDArray[np.int32]:
    """Return int32 (H, W): 0 where nothing is, else 1 + the index of the last segment drawn there."""
    index_hw = np.zeros(size_hw, dtype=np.int32)
    for index, segment in enumerate(segments, start=1):
        top, left = segment.offset_yx
        target = index_hw[top : top + segment.mask_hw.shape[0], left : left + segment.mask_hw.shape[1]]
        target[segment.mask_hw[: target.shape[0], : target.shape[1]]] = index
    return index_hw


def _shared_box(first: Segment, second: Segment) -> tuple[int, int, int, int]:
    (top, left, bottom, right), other = first.box_yxyx, second.box_yxyx
    return max(top, other[0]), max(left, other[1]), min(bottom, other[2]), min(right, other[3])


def _box_intersection(first: Segment, second: Segment) -> int:
    top, left, bottom, right = _shared_box(first, second)
    return max(0, bottom - top) * max(0, right - left)


def segment_intersection(first: Segment, second: Segment) -> int:
    """Return how many pixels two segments of one image have in common."""
    top, left, bottom, right = _shared_box(first, second)
    if top >= bottom or left >= right:
        return 0
    windows = []
    for segment in (first, second):
        y, x = segment.offset_yx
        windows.append(segment.mask_hw[top - y : bottom - y, left - x : right - x])
    return int(np.count_nonzero(windows[0] & windows[1]))


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
