import numpy as np
import pytest

from maskloop.selection.gain import LEAST_IMAGES, worth_of_choosing


def test_worth_twice_the_corrections_lies_within_its_bounds():
    rng = np.random.default_rng(3)
    worth = worth_of_choosing(rng.poisson(6, 200).tolist(), rng.poisson(3, 60).tolist())
    assert worth.ratio == pytest.approx(worth.chosen_mean / worth.random_mean)
    assert worth.ratio_low < 2 < worth.ratio_high
    assert worth.ratio_low > 1.4


def test_worth_no_difference_holds_one_in_most_tries():
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(40):
        worth = worth_of_choosing(rng.poisson(4, 80).tolist(), rng.poisson(4, 40).tolist(), seed=seed)
        held += worth.ratio_low <= 1 <= worth.ratio_high
    assert held >= 34  # 95 % of 40 are 38


@pytest.mark.parametrize(
    ("chosen", "by_chance"),
    [
        ([], []),
        ([3.0] * LEAST_IMAGES, [1.0] * (LEAST_IMAGES - 1)),
        ([1.0] * (LEAST_IMAGES - 1), [3.0] * LEAST_IMAGES),
        ([3.0] * LEAST_IMAGES, [0.0] * LEAST_IMAGES),
    ],
    ids=["none", "few by chance", "few chosen", "nothing to correct"],
)
def test_worth_nothing_to_go_by_has_no_ratio(chosen, by_chance):
    worth = worth_of_choosing(chosen, by_chance)
    assert (worth.ratio, worth.ratio_low, worth.ratio_high) == (None, None, None)
    assert (worth.chosen_images, worth.random_images) == (len(chosen), len(by_chance))
    assert worth.chosen_mean == (np.mean(chosen) if chosen else None)


def test_worth_some_resamples_without_a_correction_has_no_upper_bound():
    worth = worth_of_choosing([2.0] * 9, [0.0, 0.0, 0.0, 0.0, 1.0])
    assert worth.ratio == pytest.approx(10)
    assert worth.ratio_high is None
