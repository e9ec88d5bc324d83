"""p-values of exchangeable values are uniform, alarms as rare as promised, and changes are told soon."""

import numpy as np
import pytest

from maskloop.drift.detector import LEAST_KNOWN, tie_break, watch
from maskloop.drift.signals import choose_to_label, correction_share, learnt_distances
from maskloop.types import EditCounts

THRESHOLD = 300_000.0


def _ties(count, seed=0):
    return np.random.default_rng(10_000 + seed).random(count).tolist()


def _draws(kind, rng, count):
    match kind:
        case "normal":
            return rng.standard_normal(count)
        case "heavy tails":
            return rng.standard_cauchy(count)
        case "many ties":
            return rng.integers(0, 3, count).astype(float)
        case _:
            return np.zeros(count)


KINDS = ["normal", "heavy tails", "many ties", "all equal"]


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_watch_exchangeable_p_values_are_uniform_and_raise_no_alarm(kind, two_sided):
    from scipy.stats import kstest

    values = _draws(kind, np.random.default_rng(1), 6000)
    watched = watch(
        [values[:40]], [values[40:]], _ties(5960), images_per_alarm=THRESHOLD, two_sided=two_sided
    )
    assert kstest(watched.p_n, "uniform").pvalue > 0.001
    assert watched.alarms == ()
    assert watched.strange_share == pytest.approx(0.05, abs=0.07)


SHIFTS = [
    pytest.param(40, 3.0, False, id="much, few known"),
    pytest.param(200, 1.5, False, id="less"),
    pytest.param(200, -2.0, True, id="downwards, two-sided"),
    pytest.param(200, 2.0, True, id="upwards, two-sided"),
]


@pytest.mark.parametrize(("known", "shift", "two_sided"), SHIFTS)
def test_watch_change_is_told_within_a_hundred(known, shift, two_sided):
    told = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = np.concatenate([rng.standard_normal(150), shift + rng.standard_normal(100)])
        watched = watch(
            [rng.standard_normal(known)],
            [values],
            _ties(250, seed),
            images_per_alarm=THRESHOLD,
            two_sided=two_sided,
        )
        told.append(bool(watched.alarms) and 150 <= watched.alarms[0] < 250)
    assert sum(told) == 10


def test_watch_downward_change_raises_no_one_sided_alarm():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.standard_normal(150), rng.standard_normal(100) - 3])
    assert watch([[]], [values], _ties(250), images_per_alarm=THRESHOLD).alarms == ()


def test_watch_with_few_known_makes_no_bet():
    values = [*np.zeros(LEAST_KNOWN // 2), *np.full(LEAST_KNOWN // 2 - 1, 99.0)]
    watched = watch([[]], [values], _ties(len(values)), images_per_alarm=2.0)
    assert (watched.alarms, watched.evidence) == ((), 0.0)


def test_watch_of_nothing():
    watched = watch([[1.0, 2.0]], [[]], [], images_per_alarm=10.0)
    assert (watched.alarms, watched.evidence, watched.strange_share, len(watched.p_n)) == ((), 0.0, None, 0)


def test_watch_a_prefix_stays_as_it_was():
    rng = np.random.default_rng(5)
    values, ties = rng.standard_normal(300).tolist(), _ties(300)
    whole = watch([[]], [values], ties, images_per_alarm=50.0)
    part = watch([[]], [values[:200]], ties[:200], images_per_alarm=50.0)
    assert part.alarms == tuple(place for place in whole.alarms if place < 200)
    assert (whole.p_n[:200] == part.p_n).all()


def test_tie_break_is_the_same_everywhere_and_spread_out():
    assert tie_break("m-v1", "images", 3) == tie_break("m-v1", "images", 3)
    many = [tie_break("m-v1", place) for place in range(2000)]
    assert 0 < min(many) < 0.01
    assert 0.99 < max(many) < 1


def test_watch_several_series_tell_what_one_of_them_sees():
    rng = np.random.default_rng(4)
    blind, sees = rng.standard_normal(250), rng.standard_normal(250)
    sees[150:] += 3
    known = [rng.standard_normal(100), rng.standard_normal(100)]
    (first, *_) = watch(known, [blind, sees], _ties(250), images_per_alarm=THRESHOLD).alarms
    assert 150 <= first < 200
    watched = watch(known, [blind[:150], sees[:150]], _ties(150), images_per_alarm=THRESHOLD)
    assert watched.alarms == ()
    assert (watched.p_n <= 1).all()


def test_learnt_distances_weigh_directions_by_their_spread():
    rng = np.random.default_rng(0)
    learnt = rng.standard_normal((500, 3)) * [1.0, 0.01, 0.0] + [0, 5, 7]
    along, across, centre = learnt_distances(learnt, np.array([[1, 5, 7], [0, 6, 7], [0, 5, 7]], np.float32))
    assert centre < along < across / 100
    assert learnt_distances(learnt, np.zeros((0, 3), np.float32)).shape == (0,)


SHARES = [
    pytest.param(EditCounts(), 0.0, id="no region"),
    pytest.param(EditCounts(kept=3), 0.0, id="all kept"),
    pytest.param(EditCounts(kept=1, changed=1, nudged=1, added=1, removed=1), 0.75, id="some"),
    pytest.param(EditCounts(added=2), 1.0, id="all added"),
]


@pytest.mark.parametrize(("edits", "share"), SHARES)
def test_correction_share_by_table(edits, share):
    assert correction_share(edits) == share


def test_choose_to_label_takes_the_strangest_and_then_the_farthest():
    embeddings = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2]]
    assert choose_to_label([2, 0, 1, 3, 4], embeddings, count=3) == (2, 3, 4)
    assert choose_to_label([2, 0], embeddings, count=3) == (2, 0)
    assert choose_to_label([2, 0, 1, 3, 4], None, count=2) == (2, 0)
