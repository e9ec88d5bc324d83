"""RLE of whole images, compared with the COCO API."""

import numpy as np
import pytest
from pycocotools import mask as coco_api

from maskloop.errors import CodecError
from maskloop.mask_runs import rle_to_segment, segment_to_rle
from maskloop.masks import mask_to_segment
from maskloop.types import Segment

ring = np.ones((9, 7), dtype=bool)
ring[3:6, 2:5] = False
MASKS = {
    "one pixel": np.eye(1, dtype=bool),
    "full": np.ones((5, 6), dtype=bool),
    "hole": ring,
    "parts at the corners": np.kron(np.eye(2, dtype=bool), np.ones((3, 2), dtype=bool)),
    "long runs": np.pad(np.ones((700, 3), dtype=bool), ((1, 900), (400, 0))),
    "last row and next column": np.array([[0, 1], [0, 1], [1, 0]], dtype=bool),
    **{f"noise {share}": np.random.default_rng(7).random((23, 31)) < share for share in (0.05, 0.5, 0.95)},
}


@pytest.mark.parametrize("name", MASKS)
def test_segment_to_rle_is_what_coco_writes_and_comes_back(name):
    mask_hw = MASKS[name]
    segment = mask_to_segment(mask_hw, label="a")
    text = segment_to_rle(segment, mask_hw.shape)
    assert text == coco_api.encode(np.asfortranarray(mask_hw, dtype=np.uint8))["counts"].decode()
    back = rle_to_segment(text, mask_hw.shape, label="a")
    assert back.offset_yx == segment.offset_yx
    assert np.array_equal(back.mask_hw, segment.mask_hw)


def test_segment_to_rle_cuts_off_what_lies_outside():
    segment = Segment(mask_hw=np.ones((4, 4), dtype=bool), offset_yx=(2, 3), label="a")
    expected = np.zeros((5, 5), dtype=np.uint8, order="F")
    expected[2:, 3:] = 1
    assert segment_to_rle(segment, (5, 5)) == coco_api.encode(expected)["counts"].decode()


def test_rle_to_segment_without_a_pixel_is_none():
    assert (
        rle_to_segment(coco_api.encode(np.zeros((4, 3), np.uint8, "F"))["counts"].decode(), (4, 3), label="")
        is None
    )


DAMAGED = {
    "empty": "",
    "no digit": "\x01",
    "cut off": "P",
    "not ASCII": "ä",
    "too short": "03",
    "too long": "0" + "o" * 12,
    "negative": "0O0N",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_rle_to_segment_damaged_raises(text):
    with pytest.raises(CodecError, match="expected"):
        rle_to_segment(text, (3, 2), label="a")
