"""Masks that are a little off move to the border of the object that they mean; others stay."""

import numpy as np
import pytest

from maskloop.interactive.colour_edges import snap_mask
from maskloop.interactive.prompt import Click, Prompt

SIZE_HW = (96, 128)
TRUTH = np.zeros(SIZE_HW, dtype=np.bool_)
TRUTH[30:70, 40:90] = True
PROMPT = Prompt(clicks=(Click(x=0.5, y=0.5),))


def _picture(contrast):
    noise = np.random.default_rng(0).normal(0, 4, (*SIZE_HW, 3))
    return np.clip(100 + noise + contrast * TRUTH[..., None], 0, 255).astype(np.uint8)


def _shifted(rows, columns):
    return np.roll(TRUTH, (rows, columns), axis=(0, 1))


def _iou(first_hw, second_hw):
    return np.sum(first_hw & second_hw) / np.sum(first_hw | second_hw)


@pytest.mark.parametrize("shift", [(0, 4), (-5, 0), (4, -4)], ids=str)
def test_snap_mask_near_an_edge_moves_to_it(shift):
    before_hw = _shifted(*shift)
    after_hw = snap_mask(before_hw, _picture(80), (24, 32), PROMPT)
    assert _iou(before_hw, TRUTH) < 0.86
    assert _iou(after_hw, TRUTH) > 0.95


def test_snap_mask_finer_than_colours_are_compared_stays():
    before_hw = _shifted(0, 4)
    assert snap_mask(before_hw, _picture(80), (96 * 4, 128 * 4), PROMPT) is before_hw


def test_snap_mask_where_colours_say_something_else_stays():
    before_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    before_hw[5:15, 5:15] = True  # nothing is there
    after_hw = snap_mask(before_hw, _picture(80), (24, 32), Prompt(clicks=(Click(x=0.07, y=0.1),)))
    assert _iou(after_hw, before_hw) > 0.3


def test_snap_mask_image_of_another_size_is_the_same_place():
    picture = _picture(80)[::2, ::2]
    assert _iou(snap_mask(_shifted(0, 4), picture, (24, 32), PROMPT), TRUTH) > 0.9


def test_snap_mask_twice_is_the_same():
    results = [snap_mask(_shifted(2, 2), _picture(30), (24, 32), PROMPT) for _ in range(2)]
    np.testing.assert_array_equal(*results)
