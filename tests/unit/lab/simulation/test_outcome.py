"""Bands and gains at equal cost, worked out by hand and by many small steps."""

import numpy as np
import pytest

from maskloop.lab.simulation.outcome import Run, band_of, gain_at_equal_cost, mean_gain


def make_run(*quality, seed=0, step=10):
    labels = tuple(step * (place + 1) for place in range(len(quality)))
    return Run(seed=seed, labels=labels, objects=labels, quality=quality)


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


@pytest.mark.parametrize(
    "against",
    [
        pytest.param([make_run(0.1, 0.2, seed=1)], id="another seed"),
        pytest.param([make_run(0.1, 0.2, step=9)], id="other labels"),
        pytest.param([], id="nothing"),
    ],
)
def test_mean_gain_not_comparable_raises(against):
    with pytest.raises(ValueError, match="expected"):
        mean_gain([make_run(0.1, 0.2)], against)


def over(objects, quality, *, seed=0):
    return Run(seed=seed, labels=tuple(range(len(objects))), objects=objects, quality=quality)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param(((10, 20), (0.2, 0.4)), ((10, 20), (0.2, 0.4)), 0.0, id="alike"),
        pytest.param(((10, 20), (0.2, 0.6)), ((10, 20), (0.2, 0.4)), 0.1, id="half of the end"),
        # The same line: twice the objects a round is no gain at equal objects.
        pytest.param(
            ((0, 20, 40), (0.0, 0.2, 0.4)), ((0, 10, 20), (0.0, 0.1, 0.2)), 0.0, id="only more objects"
        ),
        pytest.param(((10, 30), (0.2, 0.6)), ((10, 20), (0.2, 0.2)), 0.1, id="up to the earlier end"),
        pytest.param(((12, 20), (0.5, 0.5)), ((10, 20), (0.0, 0.0)), 0.5, id="from the later start"),
        pytest.param(((10, 10, 20), (0.2, 0.6, 0.6)), ((10, 20), (0.2, 0.2)), 0.4, id="jump at the start"),
        pytest.param(((10, 10), (0.2, 0.6)), ((10, 20), (0.2, 0.4)), 0.4, id="one cost in common"),
    ],
)
def test_gain_at_equal_cost_case(ours, theirs, expected):
    gain = gain_at_equal_cost([over(*ours)], [over(*theirs)], cost="objects")
    assert (gain.mean, gain.low, gain.high) == (pytest.approx(expected), None, None)


def slow_gain(ours, theirs, steps=20_000):
    """Return the mean difference over many costs, each read off both curves by searching for its piece."""

    def read(run, cost):
        for at in range(len(run.objects) - 1):
            left, right = run.objects[at], run.objects[at + 1]
            if left <= cost <= right and left < right:
                share = (cost - left) / (right - left)
                return (1 - share) * run.quality[at] + share * run.quality[at + 1]
        raise AssertionError(cost)

    low = max(ours.objects[0], theirs.objects[0])
    high = min(ours.objects[-1], theirs.objects[-1])
    costs = [low + (high - low) * (step + 0.5) / steps for step in range(steps)]
    return sum(read(ours, cost) - read(theirs, cost) for cost in costs) / steps


@pytest.mark.parametrize("case", range(8))
def test_gain_at_equal_cost_is_the_slow_mean_of_small_steps(case):
    rng = np.random.default_rng(case)

    def draw(seed):
        objects = np.cumsum(rng.integers(0, 20, size=5)) + 5
        return over(tuple(objects.tolist()), tuple(rng.random(5).tolist()), seed=seed)

    ours, theirs = [draw(seed) for seed in range(3)], [draw(seed) for seed in range(3)]
    expected = [slow_gain(one, two) for one, two in zip(ours, theirs, strict=True)]
    gain, band = gain_at_equal_cost(ours, theirs, cost="objects"), band_of(expected)
    assert (gain.mean, gain.low, gain.high) == tuple(
        pytest.approx(value, abs=1e-4) for value in (band.mean, band.low, band.high)
    )


def test_gain_at_equal_cost_seconds_are_read_where_they_are_known():
    one = Run(seed=0, labels=(1, 2), objects=(1, 2), quality=(0.2, 0.6), seconds=(0.0, 10.0))
    two = Run(seed=0, labels=(1, 2), objects=(1, 2), quality=(0.2, 0.6), seconds=(0.0, 20.0))
    assert gain_at_equal_cost([one], [two], cost="seconds").mean == pytest.approx(0.1)
    assert gain_at_equal_cost([one], [two], cost="objects").mean == 0.0
    assert gain_at_equal_cost([one], [make_run(0.2, 0.6)], cost="seconds") is None


def test_gain_at_equal_cost_other_seeds_raise():
    with pytest.raises(ValueError, match="equal seeds"):
        gain_at_equal_cost([make_run(0.1)], [make_run(0.1, seed=1)], cost="objects")


@pytest.mark.parametrize(
    "wrong",
    [{"quality": (0.1,)}, {"seconds": (1.0,)}, {"objects": (1,)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_run_lists_of_other_lengths_raise(wrong):
    with pytest.raises(ValueError, match="lists of one length"):
        Run(**({"seed": 0, "labels": (1, 2), "objects": (1, 2), "quality": (0.1, 0.2)} | wrong))
