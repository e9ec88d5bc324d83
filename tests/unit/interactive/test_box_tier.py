"""A box: an answer has to fill it, and where the model sees nothing there, colours decide."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.unit.interactive.conftest import SIZE_HW, object_mask
from torch.nn import functional

from maskloop.interactive.answer import find_answer
from maskloop.interactive.box_tier import box_fit, ellipse_logits
from maskloop.interactive.prompt import Click, Prompt
from maskloop.masks import mask_to_segment, paste_segment


def _box(rows, columns):
    return columns.start / 64, rows.start / 48, columns.stop / 64, rows.stop / 48


def _block(rows, columns):
    mask_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    mask_hw[rows, columns] = True
    return mask_hw


@pytest.mark.parametrize(
    ("own", "drawn"),
    [
        pytest.param((slice(10, 20), slice(10, 30)), (slice(10, 20), slice(10, 30)), id="equal"),
        pytest.param((slice(10, 20), slice(10, 30)), (slice(12, 24), slice(8, 20)), id="overlapping"),
        pytest.param((slice(10, 20), slice(10, 30)), (slice(30, 40), slice(40, 60)), id="apart"),
        pytest.param((slice(10, 11), slice(10, 11)), (slice(0, 48), slice(0, 64)), id="one pixel in all"),
    ],
)
def test_box_fit_is_the_iou_of_both_boxes_as_masks(own, drawn):
    first_hw, second_hw = _block(*own), _block(*drawn)
    expected = (first_hw & second_hw).sum() / (first_hw | second_hw).sum()
    assert box_fit(mask_to_segment(first_hw, label="a"), _box(*drawn), SIZE_HW) == pytest.approx(expected)


@pytest.mark.parametrize(
    "axes", [(60, 40), (12, 30), (9, 9), (5, 4)], ids=["large", "upright", "a cell", "half a cell"]
)
def test_ellipse_logits_upsampled_are_the_ellipse_in_the_box(axes):
    half_x, half_y = axes
    box = (100 - half_x) / 200, (68 - half_y) / 136, (100 + half_x) / 200, (68 + half_y) / 136
    logits_hw = ellipse_logits(box, (17, 25))
    mask_hw = functional.interpolate(logits_hw[None, None], (136, 200), mode="bilinear")[0, 0].numpy() > 0
    drawn_hw = cv2.ellipse(np.zeros((136, 200), np.uint8), (100, 68), axes, 0, 0, 360, 1, -1) > 0
    assert (mask_hw & drawn_hw).sum() / (mask_hw | drawn_hw).sum() > 0.6


@pytest.mark.parametrize("name", ["disc", "block", "lost"])
def test_find_answer_box_that_an_object_fills_is_that_object(make_features, name):
    rows, columns = np.nonzero(object_mask(name))
    box = _box(slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    found = find_answer(make_features(), Prompt(box_xyxy=box))
    assert found.tier in ("query", "embedding")
    mask_hw = paste_segment(found.segment, SIZE_HW)
    assert (mask_hw & object_mask(name)).sum() / (mask_hw | object_mask(name)).sum() > 0.6


def test_find_answer_box_where_the_model_sees_nothing_is_what_colours_show(make_features):
    rows, columns = slice(34, 46), slice(16, 32)
    truth_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    truth_hw[rows, columns] = True
    truth_hw[34:40, 24:32] = False  # no ellipse at all
    colours_hwc = np.full((*SIZE_HW, 3), 200, dtype=np.uint8)
    colours_hwc[truth_hw] = (30, 60, 20)
    features = replace(make_features(), colours_hwc=colours_hwc)
    found = find_answer(features, Prompt(box_xyxy=_box(rows, columns)))
    mask_hw = paste_segment(found.segment, SIZE_HW)
    assert found.tier == "box"
    assert (mask_hw & truth_hw).sum() / (mask_hw | truth_hw).sum() > 0.9


def test_find_answer_box_stays_inside_it_and_out_of_what_is_forbidden(make_features):
    rows, columns = slice(34, 46), slice(16, 32)
    forbidden_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    forbidden_hw[:, :22] = True
    prompt = Prompt(box_xyxy=_box(rows, columns), forbidden_hw=forbidden_hw)
    top, left, bottom, right = find_answer(make_features(), prompt).segment.box_yxyx
    assert left >= 22
    assert (top, bottom, right) >= (33, 33, 23)
    assert (bottom, right) <= (47, 33)


def test_find_answer_ellipse_gives_way_to_a_mask_that_fills_the_box_as_well(make_features):
    box = _box(slice(8, 24), slice(2, 20))  # a little off the disc's own
    found = find_answer(make_features(), Prompt(box_xyxy=box))
    assert (found.tier, found.segment.label) == ("query", "disc")


@pytest.mark.parametrize(
    ("x", "y", "is_positive"), [(0.3, 0.75, True), (0.3, 0.75, False), (0.4, 0.9, False)]
)
def test_find_answer_click_corrects_the_answer_to_a_box_and_chooses_no_other(
    make_features, x, y, is_positive
):
    box = _box(slice(34, 46), slice(16, 32))
    alone = find_answer(make_features(), Prompt(box_xyxy=box))
    click = Click(x=x, y=y, is_positive=is_positive)
    found = find_answer(make_features(), Prompt(box_xyxy=box, clicks=(click,)))
    before_hw, after_hw = (paste_segment(one.segment, SIZE_HW) for one in (alone, found))
    assert (before_hw & after_hw).sum() / (before_hw | after_hw).sum() > 0.5
    assert after_hw[click.cell(SIZE_HW)] == is_positive
