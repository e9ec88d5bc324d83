"""Pixel counts of one image: panoptic matches, class areas and class boundaries, without void and crowds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.masks import segments_to_index_map
from maskloop.types import BoolMask, Segment

__all__ = ["PixelCounts", "boundary_iou", "count_pixels", "inner_boundary"]

_BOUNDARY_SHARE = 0.02  # width as a share of the image's diagonal, as in the paper on boundary IoU


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelCounts:
    """Counts of one image for C classes."""

    panoptic_4c: NDArray[np.float64]  # sum of IoU of matched segments; matched, predicted, true segments
    area_3c: NDArray[np.float64]  # pixels: intersection, predicted, true
    boundary_3c: NDArray[np.float64]  # the same of the segments' inner boundaries


def count_pixels(
    found: tuple[Segment, ...],
    truth: GroundTruth,
    size_hw: tuple[int, int],
    class_ids: Mapping[str, int],
) -> PixelCounts:
    """Return the counts of an image.

    Each pixel belongs to one segment at most, among predictions to the best. A prediction where the ground
    truth has no object is wrong, since annotators draw every object; only `ignored_hw` is void.

    Args:
        found: predicted segments, best first; they may overlap.
        truth: ground truth.
        size_hw: size of the image.
        class_ids: label -> 0 .. C - 1.
    """
    on_top_last = tuple(reversed(found))
    there = (*truth.crowds, *truth.segments)
    found_hw = segments_to_index_map(on_top_last, size_hw)
    wanted_hw = segments_to_index_map(there, size_hw)
    void = len(there) + 1
    if truth.ignored_hw is not None:
        wanted_hw[truth.ignored_hw & (wanted_hw == 0)] = void
    # class 0 is background and void
    found_class = np.array([0, *(class_ids[segment.label] + 1 for segment in on_top_last)])
    wanted_class = np.array([0, *(class_ids[segment.label] + 1 for segment in there), 0])
    shape_fw = (len(found_class), len(wanted_class))
    joint = found_hw.ravel().astype(np.int64) * shape_fw[1] + wanted_hw.ravel()
    overlap_fw = np.bincount(joint, minlength=shape_fw[0] * shape_fw[1]).reshape(shape_fw)
    crowds = len(truth.crowds)
    uncounted_hw = (wanted_hw == void) | ((wanted_hw > 0) & (wanted_hw <= crowds))
    return PixelCounts(
        panoptic_4c=_panoptic(overlap_fw, found_class, wanted_class, crowds, len(class_ids) + 1)[:, 1:],
        area_3c=_areas(overlap_fw[:, :-1], found_class, wanted_class[:-1], len(class_ids) + 1)[:, 1:],
        boundary_3c=_boundaries(
            (on_top_last, found_hw, found_class),
            (there, wanted_hw, wanted_class),
            uncounted_hw,
            len(class_ids) + 1,
        )[:, 1:],
    )


def _panoptic(
    overlap_fw: NDArray[np.int64],
    found_class: NDArray[np.int64],
    wanted_class: NDArray[np.int64],
    crowds: int,
    classes: int,
) -> NDArray[np.float64]:
    """Return float64 (4, classes): sum of IoU, matched, predicted and true segments of each class.

    Args:
        overlap_fw: pixels that predicted segment f shares with true segment w; row and column 0 are the
            background, the next columns are crowds, the last column is void.
        found_class: class id of each row.
        wanted_class: class id of each column.
        crowds: number of columns that are crowds.
        classes: number of class ids.

    Source:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, sections 4.1 and 4.2; `pq_compute` of panopticapi.
    """
    found_area = overlap_fw.sum(axis=1)
    wanted_area = overlap_fw.sum(axis=0)
    void_f = overlap_fw[:, -1]
    union_fw = found_area[:, None] + wanted_area[None] - overlap_fw - void_f[:, None]
    iou_fw = overlap_fw / np.maximum(union_fw, 1)
    match_fw = (iou_fw > 0.5) & (found_class[:, None] == wanted_class[None])
    match_fw[0] = False
    match_fw[:, : crowds + 1] = False
    match_fw[:, -1] = False
    rows, columns = np.nonzero(match_fw)
    matched_class = wanted_class[columns]
    in_crowd_f = _of_own_class(overlap_fw, found_class, wanted_class)[:, 1 : crowds + 1].sum(axis=1)
    excused_f = void_f + in_crowd_f > 0.5 * found_area
    excused_f[rows] = False
    counted_w = np.arange(len(wanted_class)) > crowds
    counted_w[-1] = False
    return np.stack(
        [
            np.bincount(matched_class, weights=iou_fw[rows, columns], minlength=classes),
            np.bincount(matched_class, minlength=classes),
            np.bincount(found_class[(found_area > 0) & ~excused_f], minlength=classes),
            np.bincount(wanted_class[(wanted_area > 0) & counted_w], minlength=classes),
        ]
    )


def _areas(
    overlap_fw: NDArray[np.int64],
    found_class: NDArray[np.int64],
    wanted_class: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    right_fw = _of_own_class(overlap_fw, found_class, wanted_class)
    return np.stack(
        [
            np.bincount(found_class, weights=right_fw.sum(axis=1), minlength=classes),
            np.bincount(found_class, weights=overlap_fw.sum(axis=1), minlength=classes),
            np.bincount(wanted_class, weights=overlap_fw.sum(axis=0), minlength=classes),
        ]
    )


def _of_own_class(
    overlap_fw: NDArray[np.int64], found_class: NDArray[np.int64], wanted_class: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the overlaps, 0 where the classes differ."""
    return np.where(found_class[:, None] == wanted_class[None], overlap_fw, 0)


def _boundaries(
    found: tuple[tuple[Segment, ...], NDArray[np.int32], NDArray[np.int64]],
    wanted: tuple[tuple[Segment, ...], NDArray[np.int32], NDArray[np.int64]],
    uncounted_hw: NDArray[np.bool_],
    classes: int,
) -> NDArray[np.float64]:
    width_px = max(1, round(_BOUNDARY_SHARE * float(np.hypot(uncounted_hw.shape[0], uncounted_hw.shape[1]))))
    found_hw, wanted_hw = (
        np.where(uncounted_hw, 0, _boundary_classes(*side, width_px=width_px)) for side in (found, wanted)
    )
    shared_hw = np.where(found_hw == wanted_hw, found_hw, 0)
    return np.stack(
        [
            np.bincount(plane_hw.ravel(), minlength=classes).astype(np.float64)
            for plane_hw in (shared_hw, found_hw, wanted_hw)
        ]
    )


def _boundary_classes(
    segments: tuple[Segment, ...],
    index_hw: NDArray[np.int32],
    classes: NDArray[np.int64],
    *,
    width_px: int,
) -> NDArray[np.int64]:
    """Return int64 (H, W): the class id of the segment on whose visible boundary the pixel lies, else 0."""
    boundary_hw = np.zeros(index_hw.shape, np.int64)
    for index, segment in enumerate(segments, start=1):
        top, left, bottom, right = segment.box_yxyx
        window = (slice(top, bottom), slice(left, right))
        boundary_hw[window][inner_boundary(index_hw[window] == index, width_px=width_px)] = classes[index]
    return boundary_hw


def boundary_iou(first_hw: BoolMask, second_hw: BoolMask, *, width_px: int) -> float:
    """Return the IoU of the inner boundaries of two masks.

    The inner boundary has the pixels of a mask that lie at most `width_px` (chessboard distance) from a pixel
    outside the mask. Pixels beyond the image are outside.

    Args:
        first_hw: bool (H, W).
        second_hw: bool (H, W), of the same size.
        width_px: at least 1; the paper takes 2 % of the image's diagonal.

    Returns:
        0..1; the plain IoU where the boundary is wider than both masks; 1 where both are empty.

    Raises:
        ValueError: not two bool masks of one size, or a width below 1.

    Source:
        Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
        Evaluation", CVPR 2021, section 4; erosion as in their reference code.
    """
    if first_hw.dtype != np.bool_ or second_hw.dtype != np.bool_ or first_hw.ndim != 2:
        raise ValueError(
            f"boundary_iou: expected bool (H, W) twice, got {first_hw.dtype} {first_hw.shape}"
            f" and {second_hw.dtype} {second_hw.shape}"
        )
    if first_hw.shape != second_hw.shape:
        raise ValueError(f"boundary_iou: expected one size, got {first_hw.shape} and {second_hw.shape}")
    if width_px < 1:
        raise ValueError(f"boundary_iou: expected a width of at least 1 px, got {width_px}")
    first_boundary_hw = inner_boundary(first_hw, width_px=width_px)
    second_boundary_hw = inner_boundary(second_hw, width_px=width_px)
    union = np.count_nonzero(first_boundary_hw | second_boundary_hw)
    return np.count_nonzero(first_boundary_hw & second_boundary_hw) / union if union else 1.0


def inner_boundary(mask_hw: BoolMask, *, width_px: int) -> BoolMask:
    """Return bool (H, W): the pixels of a mask that lie at most `width_px` from a pixel outside it.

    Args:
        mask_hw: bool (H, W); pixels beyond the image are outside.
        width_px: at least 1.
    """
    if not mask_hw.size:
        return mask_hw
    side = 2 * min(width_px, max(mask_hw.shape)) + 1  # a larger square erodes everything as well
    # one axis after the other: the cost of a square kernel grows with the square of the width
    rows_hw = _erode(mask_hw.astype(np.uint8), np.ones((side, 1), np.uint8))
    inner_hw = _erode(rows_hw, np.ones((1, side), np.uint8)).astype(np.bool_)
    return mask_hw & ~inner_hw


def _erode(mask_hw: NDArray[np.uint8], kernel_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    eroded = cv2.erode(mask_hw, kernel_hw, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return eroded.astype(np.uint8, copy=False)
