import numpy as np
import pytest

from maskloop.selection.gain import MIN_IMAGES, estimate_gain


def test_estimate_gain_twice_the_corrections_lies_within_its_bounds():
    rng = np.random.default_rng(3)
    gain = estimate_gain(rng.poisson(6, 200).tolist(), rng.poisson(3, 60).tolist())
    assert gain.ratio == pytest.approx(gain.chosen_mean / gain.random_mean)
    assert gain.ratio_low < 2 < gain.ratio_high
    assert gain.ratio_low > 1.4


def test_estimate_gain_no_difference_interval_holds_one_in_most_seeds():
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(40):
        gain = estimate_gain(rng.poisson(4, 80).tolist(), rng.poisson(4, 40).tolist(), seed=seed)
        held += gain.ratio_low <= 1 <= gain.ratio_high
    assert held >= 34  # 95 % of 40 are 38


@pytest.mark.parametrize(
    ("chosen", "at_random"),
    [
        ([], []),
        ([3.0] * MIN_IMAGES, [1.0] * (MIN_IMAGES - 1)),
        ([1.0] * (MIN_IMAGES - 1), [3.0] * MIN_IMAGES),
        ([3.0] * MIN_IMAGES, [0.0] * MIN_IMAGES),
    ],
    ids=["none", "few at random", "few chosen", "nothing to correct"],
)
def test_estimate_gain_too_few_images_has_no_ratio(chosen, at_random):
    gain = estimate_gain(chosen, at_random)
    assert (gain.ratio, gain.ratio_low, gain.ratio_high) == (None, None, None)
    assert (gain.chosen_images, gain.random_images) == (len(chosen), len(at_random))
    assert gain.chosen_mean == (np.mean(chosen) if chosen else None)


def test_estimate_gain_resamples_without_corrections_has_no_upper_bound():
    gain = estimate_gain([2.0] * 9, [0.0, 0.0, 0.0, 0.0, 1.0])
    assert gain.ratio == pytest.approx(10)
    assert gain.ratio_high is None
