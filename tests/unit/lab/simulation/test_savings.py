"""What is saved, worked out by hand, and its bounds against a slow plain version."""

import math
import re

import numpy as np
import pytest

from maskloop.lab.simulation import savings
from maskloop.lab.simulation.outcome import Run
from maskloop.lab.simulation.savings import Saving, cost_saved, cost_to_reach


def make_run(*quality, seed=0, step=10, objects=None):
    labels = tuple(step * (place + 1) for place in range(len(quality)))
    return Run(seed=seed, labels=labels, objects=objects or labels, quality=quality)


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
def test_cost_to_reach_case(quality, target, expected):
    labels = [10 * (place + 1) for place in range(len(quality))]
    found = cost_to_reach(labels, quality, target)
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
def test_cost_saved_reached_is_a_share_of_the_others_labels(ours, theirs, share):
    saved = cost_saved([make_run(*ours)], [make_run(*theirs)], 0.8)
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
def test_cost_saved_not_reached_is_none_with_a_word(ours, theirs, word):
    saved = cost_saved([make_run(*ours)], [make_run(*theirs)], 0.8)
    assert saved.share is None
    assert re.match(word, saved.word)


def test_cost_saved_several_seeds_uses_mean_curves_and_has_bounds():
    ours = [make_run(0.2, 0.9, 0.9, seed=0), make_run(0.2, 0.7, 0.9, seed=1)]
    theirs = [make_run(0.2, 0.5, 0.8, seed=0), make_run(0.2, 0.5, 0.8, seed=1)]
    saved = cost_saved(ours, theirs, 0.8)
    assert (saved.needed, saved.against) == (pytest.approx(20), pytest.approx(30))
    assert saved.low <= saved.share <= saved.high


@pytest.mark.parametrize(
    "against",
    [
        pytest.param([make_run(0.1, 0.2, seed=1)], id="another seed"),
        pytest.param([make_run(0.1, 0.2, step=9)], id="other labels"),
        pytest.param([make_run(0.1, 0.2, 0.3)], id="more rounds"),
        pytest.param([], id="nothing"),
    ],
)
def test_cost_saved_not_comparable_raises(against):
    with pytest.raises(ValueError, match="expected"):
        cost_saved([make_run(0.1, 0.2)], against, 0.1)


def test_cost_saved_fewer_images_with_more_objects_save_no_objects():
    ours = [make_run(0.2, 0.8, 0.9, objects=(10, 40, 60))]
    theirs = [make_run(0.2, 0.5, 0.8, objects=(10, 20, 30))]
    assert cost_saved(ours, theirs, 0.8).share == pytest.approx(1 / 3)
    assert cost_saved(ours, theirs, 0.8, cost="objects").share == pytest.approx(-1 / 3)
    assert cost_saved(ours, theirs, 0.8, cost="seconds") is None


def slow_bounds(runs, against, target, cost):
    """Return (low, high) and how often each missed: each resample by itself, in four plain cases."""

    def mean_curve(some):
        rounds = range(len(some[0].labels))
        spent = [sum(run.cost(cost)[at] for run in some) / len(some) for at in rounds]
        quality = [sum(run.quality[at] for run in some) / len(some) for at in rounds]
        return spent, quality

    def first(spent, quality):
        if quality[0] >= target:
            return spent[0]
        for at in range(1, len(spent)):
            if quality[at - 1] < target <= quality[at]:
                rise = quality[at] - quality[at - 1]
                return spent[at - 1] + (spent[at] - spent[at - 1]) * (target - quality[at - 1]) / rise
        return None

    rng, lows, highs, missed, other_missed = np.random.default_rng(0), [], [], 0, 0
    for _ in range(savings.RESAMPLES):
        drawn = rng.integers(len(runs), size=len(runs))
        ours, theirs = (mean_curve([each[at] for at in drawn]) for each in (runs, against))
        one, two = first(*ours), first(*theirs)
        if one is not None and two is not None:
            low = high = 1 - one / two
        elif one is not None:  # random would have needed more than it spent
            low, high = 1 - one / theirs[0][-1], 1.0
        elif two is not None:  # the strategy would have
            low, high = -math.inf, 1 - ours[0][-1] / two
        else:
            low, high = -math.inf, 1.0
        lows.append(low)
        highs.append(high)
        missed += one is None
        other_missed += two is None
    place = int(0.025 * (savings.RESAMPLES - 1))
    return sorted(lows)[place], sorted(highs, reverse=True)[place], missed, other_missed


@pytest.mark.parametrize("cost", ["labels", "objects"])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.55, 0.6, 0.7, 0.95])
@pytest.mark.parametrize("case", range(4))
def test_cost_saved_bounds_are_those_of_the_slow_plain_version(case, target, cost, monkeypatch):
    monkeypatch.setattr(savings, "RESAMPLES", 300)
    rng = np.random.default_rng(case)

    def draw(seed, gain):
        quality = np.sort(rng.uniform(0.1, 0.6, size=4)) + gain
        objects = np.cumsum(rng.integers(1, 30, size=4))
        return make_run(*quality.tolist(), seed=seed, objects=tuple(objects.tolist()))

    ours, theirs = [draw(seed, 0.1) for seed in range(5)], [draw(seed, 0.0) for seed in range(5)]
    saved = cost_saved(ours, theirs, target, cost=cost)
    low, high, missed, other_missed = slow_bounds(ours, theirs, target, cost)
    assert saved.low == (None if low == -math.inf else pytest.approx(low))
    assert saved.high == (None if high == 1.0 else pytest.approx(high))
    assert (saved.missed, saved.against_missed) == (missed / 300, other_missed / 300)


def test_cost_saved_resamples_that_chance_misses_open_the_upper_bound():
    """Random's own end is its target: about half the resamples miss it, and were once left out."""
    theirs = [make_run(0.2, 0.3, end, seed=seed) for seed, end in enumerate((0.5, 0.6, 0.7, 0.8))]
    ours = [make_run(0.2, 0.7, 0.9, seed=seed) for seed in range(4)]
    saved = cost_saved(ours, theirs, 0.65)
    assert saved.share is not None
    assert saved.missed == 0
    assert 0.3 < saved.against_missed < 0.7
    assert saved.high is None
    assert saved.interval_word.startswith("at least ")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.3, "10% to 30%"),
        (-0.001, 0.3, "0% to 30%"),
        (0.1, None, "at least 10%"),
        (None, -0.2, "at most -20%"),
        (None, None, "open on both sides"),
    ],
)
def test_interval_word_case(low, high, word):
    saved = Saving(share=0.2, word="", target=0.5, needed=1, against=2, low=low, high=high, missed=0.0)
    assert saved.interval_word == word


def test_interval_word_single_seed_is_empty():
    assert cost_saved([make_run(0.1, 0.2)], [make_run(0.1, 0.2)], 0.1).interval_word == ""
