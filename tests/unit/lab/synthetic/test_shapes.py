import cv2
import numpy as np
import pytest

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.masks import paste_segment


@pytest.mark.parametrize("domain", ["base", "shifted"])
def test_make_image_same_seed_is_identical(domain):
    first, second = (make_image(7, domain=domain, size_hw=(64, 96)) for _ in range(2))
    assert np.array_equal(first.image_hwc, second.image_hwc)
    assert [s.label for s in first.segments] == [s.label for s in second.segments]
    assert all(
        np.array_equal(a.mask_hw, b.mask_hw) for a, b in zip(first.segments, second.segments, strict=True)
    )


def test_make_image_other_seed_differs():
    assert not np.array_equal(make_image(1).image_hwc, make_image(2).image_hwc)


@pytest.mark.parametrize("size_hw", [(128, 128), (256, 320), (100, 60), (32, 32)], ids=str)
def test_make_image_any_size_fits(size_hw):
    made = make_image(3, size_hw=size_hw)
    assert made.image_hwc.shape == (*size_hw, 3)
    assert made.image_hwc.dtype == np.uint8
    assert all(s.box_yxyx[2] <= size_hw[0] and s.box_yxyx[3] <= size_hw[1] for s in made.segments)


def test_make_image_many_seeds_masks_are_disjoint_and_no_slivers():
    for seed in range(60):
        made = make_image(seed)
        covered_hw = sum(paste_segment(s, (128, 128)).astype(int) for s in made.segments)
        assert 1 <= len(made.segments) <= 5
        assert covered_hw.max() == 1
        assert min(s.area for s in made.segments) >= 24


def test_make_image_many_seeds_every_class_occurs():
    seen = {s.label for seed in range(40) for s in make_image(seed).segments}
    assert seen == set(SHAPE_CLASSES)


def test_make_image_mask_edge_is_where_colour_changes():
    # The image's own gradient, an independent witness, is far stronger on mask borders than elsewhere.
    made = make_image(11, size_hw=(256, 256))
    grey_hw = cv2.GaussianBlur(cv2.cvtColor(made.image_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32), (5, 5), 0)
    strength_hw = np.hypot(cv2.Sobel(grey_hw, cv2.CV_32F, 1, 0), cv2.Sobel(grey_hw, cv2.CV_32F, 0, 1))
    mask_hw = np.logical_or.reduce([paste_segment(s, (256, 256)) for s in made.segments]).astype(np.uint8)
    border_hw = cv2.morphologyEx(mask_hw, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    assert strength_hw[border_hw].mean() > 3 * strength_hw[~border_hw].mean()


def test_make_image_ring_has_hole():
    rings = [
        s
        for seed in range(30)
        for s in make_image(seed, classes=["ring"]).segments
        if min(s.mask_hw.shape) > 30
    ]
    holes = [cv2.connectedComponents((~np.pad(s.mask_hw, 1)).astype(np.uint8))[0] - 1 for s in rings]
    assert max(holes) >= 2  # outside and inside


def test_make_image_shifted_is_darker():
    base, shifted = (
        np.mean([make_image(seed, domain=domain).image_hwc.mean() for seed in range(10)])
        for domain in ("base", "shifted")
    )
    assert shifted < 0.7 * base


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"domain": "lunar"}, "domain"),
        ({"classes": ["cube"]}, "cube"),
        ({"classes": []}, "classes"),
        ({"size_hw": (16, 64)}, "32x32"),
    ],
    ids=["domain", "class", "no-class", "small"],
)
def test_make_image_bad_request_raises(kwargs, word):
    with pytest.raises(ValueError, match=word):
        make_image(0, **kwargs)
