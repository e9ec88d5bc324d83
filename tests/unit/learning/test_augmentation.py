import numpy as np
import pytest

from maskloop.learning.augmentation import Augmentation, augment, fit_canvas

STILL = Augmentation(flips=False, quarter_turns=False, scale=(1.0, 1.0), colour=0.0)


def make_pair(size_hw=(32, 48), seed=0):
    """Return an image whose red channel is its own index map, so that both must move together."""
    rng = np.random.default_rng(seed)
    index_hw = np.zeros(size_hw, dtype=np.int16)
    for index in (1, 2, 3):
        top, left = rng.integers(0, np.array(size_hw) - 12)
        index_hw[top : top + 12, left : left + 12] = index
    image_hwc = np.repeat((index_hw * 60).astype(np.uint8)[..., None], 3, axis=2)
    return image_hwc, index_hw


def view(image_hwc, index_hw, augmentation, seed=0, canvas_hw=(32, 48)):
    return augment(
        image_hwc,
        index_hw,
        canvas_hw=canvas_hw,
        augmentation=augmentation,
        rng=np.random.default_rng(seed),
        fill_rgb=(0, 0, 0),
    )


def test_augment_nothing_allowed_returns_the_image():
    image_hwc, index_hw = make_pair()
    seen_hwc, seen_hw = view(image_hwc, index_hw, STILL)
    assert np.array_equal(seen_hwc, image_hwc)
    assert np.array_equal(seen_hw, index_hw)


@pytest.mark.parametrize("seed", range(12))
def test_augment_flips_and_turns_are_exact_and_masks_follow(seed):
    image_hwc, index_hw = make_pair((32, 32), seed)
    turning = Augmentation(flips=True, quarter_turns=True, scale=(1.0, 1.0), colour=0.0)
    seen_hwc, seen_hw = view(image_hwc, index_hw, turning, seed, canvas_hw=(32, 32))
    assert np.array_equal(seen_hwc[..., 0], seen_hw * 60)
    poses = [np.rot90(plane, turns) for plane in (index_hw, index_hw.T) for turns in range(4)]
    assert any(np.array_equal(seen_hw, pose) for pose in poses)


@pytest.mark.parametrize("seed", range(6))
def test_augment_scaled_masks_follow(seed):
    image_hwc, index_hw = make_pair(seed=seed)
    seen_hwc, seen_hw = view(image_hwc, index_hw, Augmentation(colour=0.0), seed)
    assert np.mean(np.abs(seen_hwc[..., 0] / 60 - seen_hw) < 0.6) > 0.95  # all but blurred borders


def test_augment_same_state_is_identical_other_differs():
    pair = make_pair()
    first, second, third = (view(*pair, Augmentation(), seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_augment_smaller_image_leaves_the_rest_empty():
    image_hwc, index_hw = np.full((8, 8, 3), 200, np.uint8), np.ones((8, 8), np.int16)
    seen_hwc, seen_hw = view(image_hwc, index_hw, STILL, seed=3)
    assert np.count_nonzero(seen_hw) == pytest.approx(64, abs=8)
    assert seen_hwc[seen_hw == 0].mean() < 10


@pytest.mark.parametrize("size_hw", [(32, 48), (30, 50), (40, 20)], ids=str)
def test_fit_canvas_any_size_keeps_pixels(size_hw):
    image_hwc, index_hw = make_pair(size_hw)
    seen_hwc, seen_hw = fit_canvas(image_hwc, index_hw, canvas_hw=(32, 48), fill_rgb=(0, 0, 0))
    assert seen_hw.shape == (32, 48)
    assert np.array_equal(seen_hwc[..., 0], seen_hw * 60)
