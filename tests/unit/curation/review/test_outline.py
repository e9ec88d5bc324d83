import cv2
import numpy as np
import pytest
from tests.unit.curation.review.conftest import rectangle
from tests.unit.curation.review.test_local_colours import disc

from maskloop.curation.review.outline import outline_shape, share_at_image_edge, waist
from maskloop.masks import mask_to_segment
from maskloop.types import Segment

SIZE_HW = (96, 160)


def dumbbell(distance: int) -> Segment:
    drawn_hw = np.zeros(SIZE_HW, np.uint8)
    for column in (40, 40 + distance):
        cv2.circle(drawn_hw, (column, 40), 14, 1, -1)
    drawn_hw[36:45, 40 : 40 + distance] = 1
    segment = mask_to_segment(drawn_hw > 0, label="disc")
    assert segment is not None
    return segment


@pytest.mark.parametrize(("distance", "expected"), [(40, 0.5), (30, 0.5), (6, 0.0)])
def test_waist_of_two_discs(distance: int, expected: float):
    assert waist(dumbbell(distance).mask_hw) == pytest.approx(expected, abs=0.05)


def test_outline_shape_of_a_disc():
    shape = outline_shape(disc(40, 40, 20, SIZE_HW))
    assert shape["solidity"] > 0.95
    assert shape["roundness"] > 0.8
    assert (shape["parts"], waist(disc(40, 40, 20, SIZE_HW).mask_hw)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("top", "left", "share"),
    [(10, 10, 0.0), (0, 10, 1.0), (86, 10, 1.0), (10, 0, 1.0), (10, 150, 1.0), (0, 150, 2.0)],
)
def test_share_at_image_edge_is_what_the_image_cuts_off(top: int, left: int, share: float):
    assert share_at_image_edge(rectangle(top, left, 10, 10), SIZE_HW) == share
