"""Negative clicks: an answer is still the first object, else that object is cut."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.interactive.conftest import SIZE_HW

from maskloop.interactive import answer as answer_module
from maskloop.interactive.answer import Answer, find_answer
from maskloop.interactive.prompt import Click, Prompt
from maskloop.interactive.same_object import is_same_object, without_negatives
from maskloop.masks import mask_to_segment, paste_segment

ON_DISC, LEFT_OF_DISC, FAR = (0.19, 0.33), (0.08, 0.33), (0.9, 0.9)


def _block(top, left, bottom, right):
    mask_hw = np.zeros((40, 40), dtype=np.bool_)
    mask_hw[top:bottom, left:right] = True
    return mask_to_segment(mask_hw, label="block")


FIRST, CUT = _block(10, 10, 30, 30), _block(10, 10, 30, 20)


@pytest.mark.parametrize(
    ("found", "cut", "is_same"),
    [
        pytest.param(FIRST, FIRST, True, id="the same"),
        pytest.param(CUT, CUT, True, id="what is left of it"),
        pytest.param(_block(10, 10, 30, 15), CUT, True, id="half of what is left"),
        pytest.param(_block(12, 12, 15, 15), CUT, False, id="shrunk to nearly nothing"),
        pytest.param(_block(10, 21, 30, 30), CUT, False, id="the part that was to go"),
        pytest.param(_block(0, 0, 9, 9), CUT, False, id="another object"),
        pytest.param(_block(0, 0, 40, 40), CUT, False, id="much that was not in it"),
        pytest.param(_block(8, 8, 30, 20), CUT, True, id="a little that was not in it"),
        pytest.param(_block(12, 12, 15, 15), None, True, id="nothing is left to compare with"),
    ],
)
def test_is_same_object_compares_with_the_positive_clicks_object(found, cut, is_same):
    assert is_same_object(found, FIRST, cut) is is_same


def _prompt(*places):
    return Prompt(clicks=tuple(Click(x=x / 40, y=y / 40, is_positive=sign > 0) for x, y, sign in places))


@pytest.mark.parametrize(
    ("places", "area"),
    [
        pytest.param([(20, 20, 1), (2, 2, -1)], 400, id="beside it: as it was"),
        pytest.param([(12, 20, 1), (26, 20, -1)], (200, 300), id="on it: the part around the click goes"),
        pytest.param([(20, 20, 1), (20, 20, -1)], 399, id="on the positive one: its pixel goes"),
        pytest.param([(2, 2, 1), (20, 20, -1)], None, id="the positive one is not on it: nothing is left"),
    ],
)
def test_without_negatives_takes_the_part_around_them(places, area):
    cut = without_negatives(FIRST, _prompt(*places), (40, 40))
    if area is None:
        assert cut is None
    elif isinstance(area, tuple):
        assert area[0] < cut.area < area[1]
        assert not paste_segment(cut, (40, 40))[20, 26]
    else:
        assert cut.area == area


def _jumping(monkeypatch, name):
    """Let each tier answer negative clicks with a mask of its own choice."""
    plain = answer_module._to_segment

    def to_segment(features, prompt, found, *, snap):
        segment = plain(features, prompt, found, snap=snap)
        if not prompt.negative:
            return segment
        mask_hw = np.zeros(SIZE_HW, dtype=np.bool_)
        if name == "elsewhere":
            mask_hw[30:48, 30:60] = True
        elif name == "a few pixels":
            mask_hw[15:17, 12:14] = True
        elif name == "everything":
            mask_hw[:] = True
        return mask_to_segment(mask_hw, label="block")

    monkeypatch.setattr(answer_module, "_to_segment", to_segment)


@pytest.mark.parametrize("beside", [LEFT_OF_DISC, FAR], ids=["on the object", "far from it"])
@pytest.mark.parametrize("name", ["elsewhere", "a few pixels", "everything", "nothing"])
def test_find_answer_negative_click_never_loses_the_object(make_features, monkeypatch, name, beside):
    features, first = make_features(), Prompt(clicks=(Click(x=ON_DISC[0], y=ON_DISC[1]),))
    before = find_answer(features, first)
    _jumping(monkeypatch, name)
    negative = Click(x=beside[0], y=beside[1], is_positive=False)
    after = find_answer(features, replace(first, clicks=(*first.clicks, negative)))
    assert isinstance(after, Answer)
    assert (after.tier, after.segment.label) == (before.tier, before.segment.label)
    was_hw, is_hw = (paste_segment(one.segment, SIZE_HW) for one in (before, after))
    assert not np.any(is_hw & ~was_hw)
    assert is_hw.sum() > 0.5 * was_hw.sum()
    assert not is_hw[negative.cell(SIZE_HW)]
