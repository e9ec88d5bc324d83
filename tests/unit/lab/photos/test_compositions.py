"""Scenes of photo material: exact and disjoint masks, the same for the same seed, few and many objects."""

import numpy as np
import pytest

from maskloop.lab.photos.compositions import PhotoScenes
from maskloop.lab.photos.cutouts import Photo
from maskloop.shipped import ANY_OBJECT

EDGE = 96


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:60, :80]
    mask_hw = ((y - 30) / 22) ** 2 + ((x - 40) / 30) ** 2 <= 1
    made = [
        Photo(image_hwc=rng.integers(0, 256, (60, 80, 3)).astype(np.uint8), mask_hw=mask_hw) for _ in range(3)
    ]
    return [*made, Photo(image_hwc=np.full((50, 50, 3), 90, np.uint8), mask_hw=None)]


@pytest.fixture(scope="module")
def scenes(photos):
    return PhotoScenes(photos, edge=EDGE, max_objects=40)


def _layers(made):
    """Return uint8 (H, W): how many segments have each pixel."""
    count_hw = np.zeros(made.image_hwc.shape[:2], np.uint8)
    for one in made.segments:
        top, left = one.offset_yx
        height, width = one.mask_hw.shape
        count_hw[top : top + height, left : left + width] += one.mask_hw
    return count_hw


def test_scene_has_disjoint_objects_of_one_label_inside_it(scenes):
    for seed in range(40):
        made = scenes.make(seed)
        assert made.image_hwc.shape == (EDGE, EDGE, 3)
        assert _layers(made).max(initial=0) <= 1
        assert {one.label for one in made.segments} <= {ANY_OBJECT}
        assert all(one.mask_hw.sum() >= 16 for one in made.segments)


def test_scene_of_a_seed_is_always_the_same_and_of_another_not(photos, scenes):
    again = PhotoScenes(photos, edge=EDGE, max_objects=40)
    for seed in (0, 7, 10**7):
        first, second = scenes.make(seed), again.make(seed)
        assert np.array_equal(first.image_hwc, second.image_hwc)
        assert np.array_equal(_layers(first), _layers(second))
    assert not np.array_equal(scenes.make(1).image_hwc, scenes.make(2).image_hwc)


def test_scenes_have_few_large_and_many_small_objects(scenes):
    made = [scenes.make(seed) for seed in range(80)]
    counts = [len(one.segments) for one in made]
    largest = [max((seg.mask_hw.sum() for seg in one.segments), default=0) / EDGE**2 for one in made]
    assert min(counts) <= 2
    assert max(counts) >= 15
    assert max(largest) > 0.1
    assert min(share for share, count in zip(largest, counts, strict=True) if count > 10) < 0.03


def test_scene_has_at_most_as_many_objects_as_asked(photos):
    few = PhotoScenes(photos, edge=EDGE, max_objects=3)
    assert max(len(few.make(seed).segments) for seed in range(30)) == 3


def test_masks_lie_on_what_was_painted(photos):
    """A thing of white on a black ground: where the mask is, the scene is brighter than where it is not."""
    y, x = np.mgrid[:64, :64]
    white = Photo(
        image_hwc=np.full((64, 64, 3), 255, np.uint8), mask_hw=(y - 32) ** 2 + (x - 32) ** 2 <= 24**2
    )
    black = Photo(image_hwc=np.zeros((64, 64, 3), np.uint8), mask_hw=np.zeros((64, 64), np.bool_))
    material = PhotoScenes([white, black], edge=EDGE, max_objects=3)
    material._things = (white,)
    material._kind = lambda _: "thing"
    material._ground = lambda _: np.zeros((EDGE, EDGE, 3), np.float32)
    for seed in range(12):
        made = material.make(seed)
        inside_hw = _layers(made) > 0
        grey_hw = made.image_hwc.mean(axis=2)
        if grey_hw.mean() < 128:  # scenes are inverted by chance
            bright_hw = grey_hw > (grey_hw[inside_hw].mean() + grey_hw[~inside_hw].mean()) / 2
            assert (bright_hw & inside_hw).sum() / (bright_hw | inside_hw).sum() > 0.85


def test_no_thing_that_stands_out_is_refused():
    with pytest.raises(ValueError, match="stands out"):
        PhotoScenes([Photo(image_hwc=np.zeros((9, 9, 3), np.uint8), mask_hw=None)], edge=64, max_objects=4)
