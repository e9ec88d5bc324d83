"""Calibrated scores: shares that are known, a ranking that stays, and little data that changes little."""

import numpy as np
import pytest

from maskloop.learning.evaluation.calibration import ScoreCalibration, calibration_error, fit_calibration


def drawn(count, share_of_score, *, seed=0):
    rng = np.random.default_rng(seed)
    score_d = rng.uniform(0.5, 1.0, count)
    return score_d, rng.random(count) < share_of_score(score_d)


@pytest.mark.parametrize(
    "share_of_score",
    [
        pytest.param(lambda score: score**3, id="too sure"),
        pytest.param(lambda score: 0.2 * score, id="four in five wrong"),
        pytest.param(lambda score: 1 - (1 - score) ** 2, id="not sure enough"),
        pytest.param(lambda score: score, id="calibrated already"),
    ],
)
def test_fit_calibration_error_of_new_segments_falls_below_five_percent(share_of_score):
    found = fit_calibration(*drawn(2000, share_of_score))
    score_d, right_d = drawn(2000, share_of_score, seed=1)
    assert calibration_error(found.apply_all(score_d), right_d) < 0.05


@pytest.mark.parametrize("right", [True, False], ids=["all right", "all wrong"])
def test_fit_calibration_one_outcome_only_stays_finite_and_keeps_the_ranking(right):
    score_d = np.linspace(0, 1, 30)
    found = fit_calibration(score_d, np.full(30, right))
    displayed_d = found.apply_all(score_d[1:-1])
    assert (np.diff(displayed_d) > 0).all()
    assert 0 < displayed_d.min() < displayed_d.max() < 1
    assert (displayed_d.mean() > 0.5) is np.bool_(right)


def test_fit_calibration_few_segments_is_none():
    assert fit_calibration(np.full(19, 0.9), np.zeros(19, np.bool_)) is None


def test_fit_calibration_twenty_segments_move_less_than_two_thousand():
    few, many = (fit_calibration(np.full(n, 0.9), np.zeros(n, np.bool_)).apply(0.9) for n in (20, 2000))
    assert many < few < 0.9


def test_calibration_error_is_the_weighted_gap_of_bins():
    # Bin .9: mean .95, three of four right: gap .2 of 4; bin .5: mean .55, none of one right: gap .55 of 1.
    right_d = np.array([True, True, True, False, False])
    assert calibration_error([0.95] * 4 + [0.55], right_d) == pytest.approx((4 * 0.2 + 0.55) / 5)
    assert calibration_error([], np.zeros(0, np.bool_)) == 0.0


@pytest.mark.parametrize(("slope", "shift"), [(0, 0), (-1, 0), (1, float("nan"))])
def test_score_calibration_that_would_turn_the_ranking_is_refused(slope, shift):
    with pytest.raises(ValueError, match="slope above 0"):
        ScoreCalibration(slope=slope, shift=shift, segments=1)
