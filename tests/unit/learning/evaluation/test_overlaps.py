"""Shared pixels, compared with masks of the whole image."""

import numpy as np
import pytest

from maskloop.learning.evaluation.overlaps import find_overlaps
from maskloop.masks import mask_to_segment, paste_segment, segment_iou

SIZE_HW = (24, 30)


def some_segments(seed, count):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, *SIZE_HW)) < 0.05
    for mask in masks:
        mask[:, rng.integers(30) :] = False
    return [segment for mask in masks if (segment := mask_to_segment(mask, label="disc")) is not None]


def test_find_overlaps_agrees_with_whole_masks():
    first, second = some_segments(1, 8), some_segments(2, 9)
    found = find_overlaps(first, second)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            shared = int((paste_segment(one, SIZE_HW) & paste_segment(other, SIZE_HW)).sum())
            assert found.shared.get((i, j), 0) == shared
            assert found.iou(i, j) == pytest.approx(segment_iou(one, other))
            assert found.first_inside(i, j) == pytest.approx(shared / one.area)
            assert found.second_inside(i, j) == pytest.approx(shared / other.area)
    assert found.shared


def test_find_overlaps_empty_sets_share_nothing():
    assert find_overlaps([], some_segments(1, 3)).shared == {}
    assert find_overlaps(some_segments(1, 3), []).shared == {}
