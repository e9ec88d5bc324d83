"""Segments survive the trip into the database, and broken text is told apart."""

from dataclasses import replace

import numpy as np
import pytest

from maskloop.errors import StoreError
from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.types import Segment

RING = np.ones((5, 5), dtype=np.bool_)
RING[1:4, 1:4] = False
MASKS = [
    pytest.param(np.ones((1, 1), dtype=np.bool_), id="one pixel"),
    pytest.param(RING, id="hole"),
    pytest.param(np.eye(7, dtype=np.bool_), id="diagonal"),
    pytest.param(np.random.default_rng(0).random((33, 17)) < 0.5, id="noise"),
]


@pytest.mark.parametrize("mask", MASKS)
def test_segments_to_text_and_back_is_equal(mask):
    segment = Segment(mask_hw=mask, offset_yx=(4, 9), label="disc é", score=0.25)
    (again,) = segments_from_text(segments_to_text((segment,)))
    np.testing.assert_array_equal(again.mask_hw, mask)
    assert (again.offset_yx, again.label, again.score) == ((4, 9), "disc é", 0.25)


def test_segments_to_text_says_which_are_boxes_and_is_as_before_where_none_is():
    mask = Segment(mask_hw=RING, offset_yx=(0, 0), label="a")
    both = (mask, replace(mask, is_box=True))
    assert [one.is_box for one in segments_from_text(segments_to_text(both))] == [False, True]
    assert "box" not in segments_to_text((mask,))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="not JSON"),
        pytest.param('[{"label": "disc"}]', id="fields missing"),
        pytest.param('[{"label":"a","score":1,"offset":[0,0],"size":[5,5],"counts":"zzz"}]', id="broken RLE"),
    ],
)
def test_segments_from_text_broken_raises(text):
    with pytest.raises(StoreError, match="correction 7"):
        segments_from_text(text, place="correction 7")
