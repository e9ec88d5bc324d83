"""Labels saved, bands and gains, worked out by hand."""

import re

import pytest

from maskloop.lab.simulation.outcome import Run, band_of, labels_saved, labels_to_reach, mean_gain


def make_run(*quality, seed=0, step=10):
    labels = tuple(step * (place + 1) for place in range(len(quality)))
    return Run(seed=seed, labels=labels, objects=labels, quality=quality)


@pytest.mark.parametrize(
    ("quality", "target", "expected"),
    [
        pytest.param((0.2, 0.4, 0.6), 0.5, 25.0, id="between two points"),
        pytest.param((0.2, 0.4, 0.6), 0.4, 20.0, id="at a point"),
        pytest.param((0.2, 0.4, 0.6), 0.2, 10.0, id="at the start"),
        pytest.param((0.2, 0.4, 0.6), 0.1, 10.0, id="before the start"),
        pytest.param((0.2, 0.4, 0.6), 0.61, None, id="never"),
        pytest.param((0.2, 0.6, 0.1, 0.6), 0.6, 20.0, id="falls again"),
        pytest.param((0.4, 0.2, 0.4), 0.4, 10.0, id="twice as high"),
        pytest.param((0.3, 0.3, 0.5), 0.4, 25.0, id="flat first"),
        pytest.param((0.3,), 0.4, None, id="one point"),
    ],
)
def test_labels_to_reach_case(quality, target, expected):
    labels = [10 * (place + 1) for place in range(len(quality))]
    found = labels_to_reach(labels, quality, target)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        pytest.param((0.2, 0.8, 0.9), (0.2, 0.5, 0.8), 1 / 3, id="fewer labels"),
        pytest.param((0.2, 0.5, 0.8), (0.2, 0.8, 0.9), -0.5, id="more labels"),
        pytest.param((0.2, 0.5, 0.8), (0.2, 0.5, 0.8), 0.0, id="tie"),
        pytest.param((0.8, 0.8, 0.8), (0.9, 0.9, 0.9), 0.0, id="both reach it at the start"),
    ],
)
def test_labels_saved_reached_is_a_share_of_the_others_labels(ours, theirs, share):
    saved = labels_saved([make_run(*ours)], [make_run(*theirs)], 0.8)
    assert saved.share == pytest.approx(share)
    assert (saved.word, saved.low, saved.high) == ("reached", None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        pytest.param((0.2, 0.3), (0.2, 0.8), "not reached with 20 labels", id="we do not"),
        pytest.param((0.2, 0.3), (0.2, 0.3), "neither reached it with 20 labels", id="neither does"),
        pytest.param(
            (0.8, 0.9), (0.2, 0.3), "random did not reach it .* at least 50% saved", id="only we do"
        ),
    ],
)
def test_labels_saved_not_reached_is_none_with_a_word(ours, theirs, word):
    saved = labels_saved([make_run(*ours)], [make_run(*theirs)], 0.8)
    assert saved.share is None
    assert re.match(word, saved.word)


def test_labels_saved_several_seeds_uses_mean_curves_and_has_bounds():
    ours = [make_run(0.2, 0.9, 0.9, seed=0), make_run(0.2, 0.7, 0.9, seed=1)]
    theirs = [make_run(0.2, 0.5, 0.8, seed=0), make_run(0.2, 0.5, 0.8, seed=1)]
    saved = labels_saved(ours, theirs, 0.8)
    assert (saved.labels, saved.against) == (pytest.approx(20), pytest.approx(30))
    assert saved.low <= saved.share <= saved.high


@pytest.mark.parametrize(
    "against",
    [
        pytest.param([make_run(0.1, 0.2, seed=1)], id="another seed"),
        pytest.param([make_run(0.1, 0.2, step=9)], id="other labels"),
        pytest.param([], id="nothing"),
    ],
)
def test_labels_saved_not_comparable_raises(against):
    with pytest.raises(ValueError, match="expected"):
        labels_saved([make_run(0.1, 0.2)], against, 0.1)


def test_band_of_three_seeds_is_students_interval():
    band = band_of([0.1, 0.2, 0.3])
    half = 4.302653 * 0.1 / 3**0.5  # t(0.975, 2 degrees of freedom), standard error
    assert (band.mean, band.low, band.high) == tuple(pytest.approx(0.2 + sign * half) for sign in (0, -1, 1))


def test_band_of_one_seed_is_a_point():
    band = band_of([0.4])
    assert (band.mean, band.low, band.high) == (0.4, 0.4, 0.4)


def test_mean_gain_leaves_the_common_start_out():
    ours = [make_run(0.5, 0.6, 0.9, seed=0), make_run(0.5, 0.6, 0.7, seed=1)]
    theirs = [make_run(0.5, 0.5, 0.7, seed=0), make_run(0.5, 0.5, 0.6, seed=1)]
    gain = mean_gain(ours, theirs)
    assert gain.mean == pytest.approx(0.125)
    assert gain.low < gain.mean < gain.high


def test_mean_gain_single_seed_has_no_bounds():
    assert mean_gain([make_run(0.5, 0.6)], [make_run(0.5, 0.4)]).low is None


def test_run_lists_of_other_lengths_raise():
    with pytest.raises(ValueError, match="lists of one length"):
        Run(seed=0, labels=(1, 2), objects=(1, 2), quality=(0.1,))
