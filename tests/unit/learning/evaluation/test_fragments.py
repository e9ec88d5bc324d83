"""Which predicted segments are fragments of an object."""

import numpy as np
import pytest

from maskloop.learning.evaluation.fragments import count_fragments
from maskloop.types import Segment


def box(top, left, height, width, label="disc"):
    return Segment(mask_hw=np.ones((height, width), np.bool_), offset_yx=(top, left), label=label)


WHOLE = box(0, 0, 10, 100)
CASES = [
    pytest.param([], [], 0, id="nothing"),
    pytest.param([], [WHOLE], 0, id="nothing found"),
    pytest.param([box(0, 0, 9, 9)], [], 0, id="no object"),
    pytest.param([WHOLE], [WHOLE], 0, id="the object"),
    pytest.param([box(0, 0, 10, 30)], [WHOLE], 0, id="one bad mask"),
    pytest.param([box(0, 0, 10, 30), box(0, 30, 10, 30), box(0, 60, 10, 30)], [WHOLE], 3, id="three pieces"),
    pytest.param([box(0, 0, 10, 60), box(0, 60, 10, 20), box(0, 80, 10, 20)], [WHOLE], 2, id="one stands"),
    pytest.param([box(0, 0, 20, 100), box(0, 80, 10, 20)], [WHOLE], 1, id="the better one is no piece"),
    pytest.param([WHOLE, WHOLE], [WHOLE], 1, id="twice"),
    pytest.param([WHOLE, box(0, 0, 10, 20, "square")], [WHOLE], 0, id="another label"),
    pytest.param([box(0, 0, 10, 30, "square"), box(0, 40, 10, 30, "square")], [WHOLE], 2, id="wrong label"),
    pytest.param([box(0, 90, 10, 30), WHOLE], [WHOLE], 0, id="mostly outside"),
    pytest.param([WHOLE, box(20, 0, 10, 100)], [WHOLE, box(20, 0, 10, 100)], 0, id="two objects"),
]


@pytest.mark.parametrize(("predicted", "objects", "expected"), CASES)
def test_count_fragments(predicted, objects, expected):
    assert count_fragments(predicted, objects) == expected
    assert count_fragments(predicted[::-1], objects[::-1]) == expected
