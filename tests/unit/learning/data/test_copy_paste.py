import numpy as np
import pytest

from maskloop.learning.data.augmentation import View
from maskloop.learning.data.copy_paste import paste_objects


def make_view(seed, objects, size_hw=(12, 16)):
    """Return a view whose pixels tell where they come from: (seed, index, 0)."""
    rng = np.random.default_rng(seed)
    index_hw = rng.integers(-1, objects + 1, size=size_hw).astype(np.int16)
    image_hwc = np.zeros((*size_hw, 3), np.uint8)
    image_hwc[..., 0], image_hwc[..., 1] = seed, index_hw + 1
    return View(image_hwc, index_hw, False)


def slow_paste(target, first, source, chosen):
    """Return image and index map pixel by pixel."""
    image_hwc, index_hw = target.image_hwc.copy(), target.index_hw.copy()
    for y, x in np.ndindex(*index_hw.shape):
        for place, position in enumerate(chosen):
            if source.index_hw[y, x] == position + 1:
                image_hwc[y, x], index_hw[y, x] = source.image_hwc[y, x], first + place
    return image_hwc, index_hw


@pytest.mark.parametrize("chosen", [(), (1,), (2, 0), (0, 1, 2)], ids=str)
def test_paste_objects_is_that_of_pixel_by_pixel(chosen):
    target, source = make_view(1, 2), make_view(2, 3)
    view, classes = paste_objects(target, (5, 6), source, (7, 8, 9), chosen=chosen)
    image_hwc, index_hw = slow_paste(target, 3, source, chosen)
    assert np.array_equal(view.image_hwc, image_hwc)
    assert np.array_equal(view.index_hw, index_hw)
    assert classes == (5, 6, *((7, 8, 9)[position] for position in chosen))


def test_paste_objects_ignored_areas_of_the_source_are_not_pasted():
    target, source = make_view(1, 2), make_view(2, 3)
    view, _ = paste_objects(target, (5, 6), source, (7, 8, 9), chosen=(0, 1, 2))
    unlabelled = source.index_hw == -1
    assert np.array_equal(view.index_hw[unlabelled], target.index_hw[unlabelled])
