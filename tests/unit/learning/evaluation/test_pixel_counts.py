"""Boundary IoU against its definition, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from maskloop.learning.evaluation.pixel_counts import boundary_iou


def slow_rim(mask_hw: np.ndarray, width_px: int) -> np.ndarray:
    padded = np.pad(mask_hw, width_px)
    rim_hw = np.zeros_like(mask_hw)
    for y, x in zip(*np.nonzero(mask_hw), strict=True):
        rim_hw[y, x] = not padded[y : y + 2 * width_px + 1, x : x + 2 * width_px + 1].all()
    return rim_hw


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask_hw = np.zeros((40, 50), dtype=bool)
    mask_hw[top:bottom, left:right] = True
    return mask_hw


BLOB = np.add.outer(np.sin(np.arange(40) / 5), np.cos(np.arange(50) / 7)) > 0.2
PAIRS = {
    "shifted": (box(5, 5, 30, 30), box(6, 7, 31, 32)),
    "hole": (box(5, 5, 30, 30), box(5, 5, 30, 30) & ~box(12, 12, 20, 20)),
    "border": (box(0, 0, 40, 50), box(0, 0, 40, 49)),
    "apart": (box(0, 0, 5, 5), box(20, 20, 25, 25)),
    "one pixel": (box(3, 3, 4, 4), box(3, 3, 5, 4)),
    "one empty": (box(0, 0, 0, 0), box(20, 20, 25, 25)),
    "blobs": (BLOB, np.roll(BLOB, 2, axis=1)),
}


@pytest.mark.parametrize("width_px", [1, 3, 100])
@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS.keys())
def test_boundary_iou_equals_its_definition(first: np.ndarray, second: np.ndarray, width_px: int) -> None:
    rims = slow_rim(first, width_px), slow_rim(second, width_px)
    expected = (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()
    assert boundary_iou(first, second, width_px=width_px) == pytest.approx(expected)
    assert boundary_iou(second, first, width_px=width_px) == pytest.approx(expected)


def test_boundary_iou_sees_what_iou_hardly_does() -> None:
    truth, rough = np.zeros((2, 400, 400), dtype=bool)
    truth[20:380, 20:380] = rough[22:378, 22:378] = True
    assert (truth & rough).sum() / (truth | rough).sum() > 0.97
    assert boundary_iou(truth, rough, width_px=4) == pytest.approx(1 / 3, abs=0.01)


def test_boundary_iou_both_empty_is_one() -> None:
    assert boundary_iou(box(0, 0, 0, 0), box(0, 0, 0, 0), width_px=2) == 1.0
    assert boundary_iou(np.zeros((0, 4), bool), np.zeros((0, 4), bool), width_px=2) == 1.0


BAD = {
    "float": (np.zeros((4, 4)), np.zeros((4, 4), bool), 1, "expected bool"),
    "three axes": (np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool), 1, "expected bool"),
    "sizes": (np.zeros((4, 4), bool), np.zeros((4, 5), bool), 1, "expected one size"),
    "width": (np.zeros((4, 4), bool), np.zeros((4, 4), bool), 0, "at least 1 px, got 0"),
}


@pytest.mark.parametrize(("first", "second", "width_px", "message"), BAD.values(), ids=BAD.keys())
def test_boundary_iou_unusable_input_raises(
    first: np.ndarray, second: np.ndarray, width_px: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        boundary_iou(first, second, width_px=width_px)
