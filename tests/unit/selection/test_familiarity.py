"""Nothing found on an image: sure where such images were learnt, doubtful where none was."""

import numpy as np
import pytest

from maskloop.selection.familiarity import doubt_empty


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


LEARNT = at(0, 2, 4, 6)  # 2 degrees from each other
CASES = [
    pytest.param([3], LEARNT, [0.8], id="like what was learnt"),
    pytest.param([8], LEARNT, [0.8], id="as near as they are to each other"),
    pytest.param([10], LEARNT, [0.4], id="twice as far"),
    pytest.param([180], LEARNT, [0.8 * 0.0349 / 1.9973], id="of another kind"),
    pytest.param([10], at(), [0.4], id="nothing was learnt"),
    pytest.param([0], at(0), [0.4], id="one image was learnt"),
    pytest.param([10], at(5, 5), [0.0], id="all that was learnt is alike"),
]


@pytest.mark.parametrize(("degrees", "learnt", "expected"), CASES)
def test_doubt_empty_by_the_distance_from_what_was_learnt(degrees, learnt, expected):
    learnt = learnt.reshape(-1, 2)
    found = doubt_empty(np.full(1, 0.8), np.ones(1, np.bool_), at(*degrees), learnt)
    assert found == pytest.approx(expected, abs=0.01)


def test_doubt_empty_leaves_images_with_segments_alone():
    confidence_n, is_empty_n = np.array([0.9, 0.9, 0.2]), np.array([False, True, False])
    found = doubt_empty(confidence_n, is_empty_n, at(90, 90, 90), LEARNT)
    assert found[[0, 2]].tolist() == [0.9, 0.2]
    assert found[1] < 0.05
    assert confidence_n.tolist() == [0.9, 0.9, 0.2]


def test_doubt_empty_surer_stays_surer_at_one_place():
    found = doubt_empty(np.linspace(0, 1, 9), np.ones(9, np.bool_), at(*[20] * 9), LEARNT)
    assert (np.diff(found) > 0).all()
