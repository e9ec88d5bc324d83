import cv2
import numpy as np
from tests.unit.curation.review.conftest import SIZE_HW, rectangle, scene

from maskloop.curation.review.overlap import read_map, shared_pixels
from maskloop.masks import paste_segment


def test_shared_pixels_equal_whole_masks():
    first, second = scene(1), [*scene(2), rectangle(0, 0, 64, 64)]
    expected = [
        [np.count_nonzero(paste_segment(one, SIZE_HW) & paste_segment(other, SIZE_HW)) for other in second]
        for one in first
    ]
    assert shared_pixels(first, second).tolist() == expected


def test_shared_pixels_of_nothing_is_empty():
    assert shared_pixels([], scene(1)).shape == (0, 4)


def test_read_map_window_equals_the_whole_map_resized():
    low_hw = np.random.default_rng(0).random((16, 12)).astype(np.float16)
    whole_hw = cv2.resize(low_hw.astype(np.float32), (48, 64), interpolation=cv2.INTER_LINEAR)
    part_hw = read_map(low_hw, (64, 48), (5, 7, 60, 41))
    np.testing.assert_allclose(part_hw, whole_hw[5:60, 7:41], atol=0.02)
