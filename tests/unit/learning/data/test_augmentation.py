import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.errors import ConfigurationError
from maskloop.learning.data.augmentation import Augmentation, augment, fit_canvas, mirror_pairs
from maskloop.settings import Settings

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
    seen = augment(
        image_hwc,
        index_hw,
        canvas_hw=canvas_hw,
        augmentation=augmentation,
        rng=np.random.default_rng(seed),
        fill_rgb=(0, 0, 0),
    )
    return seen.image_hwc, seen.index_hw


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


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(20, 60), st.integers(20, 60), st.floats(0.1, 1.0), st.floats(1.0, 2.0)
)
def test_augment_any_jitter_keeps_image_and_masks_together(seed, height, width, low, high):
    image_hwc, index_hw = make_pair((height, width), seed)
    jitter = Augmentation(scale=(low, high), colour=0.0)
    seen_hwc, seen_hw = view(image_hwc, index_hw, jitter, seed, canvas_hw=(48, 64))
    wrong = np.abs(seen_hwc[..., 0] / 60 - seen_hw) > 0.75

    def count_far(reach):
        border = np.zeros_like(wrong)
        for step in itertools.product(range(-reach, reach + 1), repeat=2):
            border |= np.roll(seen_hw, step, (0, 1)) != seen_hw
        return int((wrong & ~border)[1:-1, 1:-1].sum())

    # Averages blur what nearest decides: only pixels near another index may differ by more, and they are
    # averages of many where little is left of the image. Where less than half is left, nearest skips thin
    # parts that averages show: one pixel in one of some 700 images.
    assert count_far(2) == 0
    if low >= 0.25:
        assert count_far(1) <= (2 if low < 0.5 else 0)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("left hand", "right hand", "head"), (("left hand", "right hand"),)),
        (("R_eye", "L_eye"), (("R_eye", "L_eye"),)),
        (("Left", "Right", "LEFT"), (("Left", "Right"),)),
        (("left hand", "head"), ()),
        (("lefteye", "righteye", "lr", "rl"), (("lefteye", "righteye"),)),
        (("leftover", "bright", "lr", "rl"), ()),
        ((), ()),
    ],
    ids=["words", "letters", "case", "alone", "inside-words", "no-half", "none"],
)
def test_mirror_pairs_are_found_by_name(labels, expected):
    assert mirror_pairs(labels) == expected


@pytest.mark.parametrize("seed", range(8))
def test_augment_upright_is_the_image_or_its_mirror(seed):
    image_hwc, index_hw = make_pair((32, 32), seed)
    still = Augmentation(scale=(1.0, 1.0), colour=0.0)
    rng = np.random.default_rng(seed)
    seen = augment(image_hwc, index_hw, canvas_hw=(32, 32), augmentation=still, rng=rng, upright=True)
    assert np.array_equal(seen.index_hw, index_hw[:, ::-1] if seen.mirrored else index_hw)


def test_augmentation_scale_upside_down_names_the_setting(home):
    with pytest.raises(ConfigurationError, match="MASKLOOP_AUGMENT_SCALE"):
        Augmentation.from_settings(Settings(home=home, augment_scale=(2.0, 0.5)))


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.45], ids=str)
def test_augment_shrunk_view_is_the_mean_of_its_pixels(scale):
    noise_hwc = np.random.default_rng(0).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    seen_hwc, seen_hw = view(
        noise_hwc,
        np.ones((320, 320), np.int16),
        Augmentation(flips=False, quarter_turns=False, colour=0.0, scale=(scale, scale)),
        canvas_hw=(320, 320),
    )
    assert np.count_nonzero(seen_hw) == pytest.approx((320 * scale) ** 2, rel=0.02)
    # Area averaging leaves scale times the spread of independent pixels; sampling would keep most of it
    assert seen_hwc[seen_hw == 1].std() < 74 * scale * 1.5


def test_augment_enlarged_view_is_taken_from_the_finer_image():
    fine_hwc = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    coarse_hwc, index_hw = np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.int16)
    twice = Augmentation(flips=False, quarter_turns=False, colour=0.0, scale=(2.0, 2.0))
    seen = augment(
        coarse_hwc,
        index_hw,
        canvas_hw=(64, 64),
        augmentation=twice,
        rng=np.random.default_rng(0),
        finer=(fine_hwc, np.ones((64, 64), np.int16), None),
    )
    assert np.array_equal(seen.image_hwc, fine_hwc)
