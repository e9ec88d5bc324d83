"""Regions that touch: two halves of one object fit together, two objects have a dent between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.outline import outline_shape
from maskloop.curation.review.overlap import box_array
from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import BoolMask, Segment

__all__ = ["NO_NEIGHBOUR", "touching_numbers"]

NO_NEIGHBOUR = {  # what is said of a region that touches no other of its label
    "touch": 0.0,  # largest share of its outline that another region touches
    "joint_solidity": 0.0,  # of both together, less that of the less solid one
    "joint_growth": 0.0,  # log of both areas together over its own
}
GAP = 1  # pixels between two regions that touch
MOST_SIDE = 256  # pixels of a window's longer side; of a larger one only some rows and columns are read
MOST_NEIGHBOURS = 20  # that are compared: those whose boxes share most with the region's


def touching_numbers(regions: Sequence[Segment]) -> list[dict[str, float]]:
    """Return for each region of an image what the neighbour says that touches most of its outline.

    Args:
        regions: of one image; a neighbour is one of the same label.

    Returns:
        The names are those of `NO_NEIGHBOUR`.
    """
    found = [dict(NO_NEIGHBOUR) for _ in regions]
    boxes_n4 = box_array(regions)
    labels_n = np.array([one.label for one in regions], dtype=object)
    near = GAP + 1
    for index, region in enumerate(regions):
        top, left, bottom, right = region.box_yxyx
        rows_n = np.minimum(boxes_n4[:, 2], bottom + near) - np.maximum(boxes_n4[:, 0], top - near)
        columns_n = np.minimum(boxes_n4[:, 3], right + near) - np.maximum(boxes_n4[:, 1], left - near)
        meets_n = (rows_n > 0) & (columns_n > 0) & (labels_n == region.label)
        meets_n[index] = False
        order_n = np.argsort(-(rows_n * columns_n), kind="stable")
        candidates = order_n[meets_n[order_n]][:MOST_NEIGHBOURS].tolist()
        if candidates:
            shares = [_touch(region, regions[n]) for n in candidates]
            best = int(np.argmax(shares))
            if shares[best] > 0:
                other = regions[candidates[best]]
                found[index] = {"touch": shares[best], **_joint(region, other)}
    return found


def _touch(region: Segment, other: Segment) -> float:
    """Return the share of a region's outline that lies at another region."""
    own_hw, other_hw = _together(region, other)
    outline_hw = own_hw & ~(cv2.erode(own_hw.astype(np.uint8), _square(1)) > 0)
    grown_hw = cv2.dilate(other_hw.astype(np.uint8), _square(GAP + 1)) > 0
    return float((outline_hw & grown_hw).sum() / max(1, int(outline_hw.sum())))


def _joint(region: Segment, other: Segment) -> dict[str, float]:
    own_hw, other_hw = _together(region, other)
    closed_hw = cv2.morphologyEx((own_hw | other_hw).astype(np.uint8), cv2.MORPH_CLOSE, _square(GAP)) > 0
    both = mask_to_segment(closed_hw | own_hw | other_hw, label=region.label)
    if both is None:  # both have a pixel
        return {"joint_solidity": 0.0, "joint_growth": 0.0}
    alone = min(outline_shape(one)["solidity"] for one in (region, other))
    return {
        "joint_solidity": outline_shape(both)["solidity"] - alone,
        "joint_growth": float(np.log(both.area / max(1, int(own_hw.sum())))),
    }


def _together(region: Segment, other: Segment) -> tuple[BoolMask, BoolMask]:
    """Return both masks in one window that holds them with a margin."""
    boxes_24 = box_array([region, other])
    top, left = boxes_24[:, :2].min(axis=0).tolist()
    bottom, right = boxes_24[:, 2:].max(axis=0).tolist()
    step = -(-max(bottom - top, right - left) // MOST_SIDE)
    masks = []
    for one in (region, other):
        placed = replace(one, offset_yx=(one.offset_yx[0] - top, one.offset_yx[1] - left))
        drawn_hw = paste_segment(placed, (bottom - top, right - left))
        masks.append(np.pad(drawn_hw[::step, ::step], GAP + 2))
    return masks[0], masks[1]


def _square(reach: int) -> NDArray[np.uint8]:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
