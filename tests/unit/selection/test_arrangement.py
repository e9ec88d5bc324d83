"""The order in which Label Studio serves tasks, and the share of random tasks."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.selection.arrangement import arrange, drawn_at_random, overall_rank, serve_order
from maskloop.selection.pool import Arrangement, Clustering, Pool, Preference
from maskloop.selection.strategies import random, uncertainty


def unit(rows) -> np.ndarray:
    array = np.asarray(rows, dtype=np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-9)


def make_pool(count: int, *, groups: int = 5, seed: int = 0) -> Pool:
    """Clusters of uneven size, the later ones harder."""
    rng = np.random.default_rng(seed)
    share_k = 1.0 / np.arange(1, groups + 1)
    cluster_n = rng.choice(groups, count, p=share_k / share_k.sum()) + 1
    middles_kd = unit(rng.normal(size=(groups + 1, 8)))
    return Pool(
        task_ids=tuple(range(1, count + 1)),
        confidence_n=rng.beta(2.0, 1.0 + 3.0 * cluster_n / groups),
        found_n=np.ones(count, dtype=np.int64),
        embedding_nd=unit(middles_kd[cluster_n]),
        labelled_md=middles_kd[:0],
        clustering=Clustering(cluster_n=cluster_n, centres_kd=middles_kd),
    )


def in_turns(pool: Pool, rng: np.random.Generator) -> Preference:
    return Preference(score_n=pool.confidence_n, cluster_n=pool.clustering.cluster_n)


def rest_of(pool: Pool, keep_n: np.ndarray, confidence_n: np.ndarray) -> Pool:
    return Pool(
        task_ids=tuple(np.array(pool.task_ids)[keep_n].tolist()),
        confidence_n=confidence_n[keep_n],
        found_n=pool.found_n[keep_n],
        embedding_nd=pool.embedding_nd[keep_n],
        labelled_md=pool.labelled_md,
        clustering=Clustering(
            cluster_n=pool.clustering.cluster_n[keep_n], centres_kd=pool.clustering.centres_kd
        ),
    )


def served(pool: Pool, *, stop: int, every: int, seed: int, share: float) -> list[tuple[int, bool]]:
    """Return (row, left to chance) as served, with a new arrangement by a new model every so many tasks."""
    rng, keep_n = np.random.default_rng(seed), np.ones(len(pool.task_ids), dtype=bool)
    confidence_n, solved, done = pool.confidence_n, Counter(), []
    while len(done) < stop:
        rows = np.flatnonzero(keep_n)
        arrangement = arrange(rest_of(pool, keep_n, confidence_n), in_turns, random_share=share, seed=seed)
        for place in islice(serve_order(arrangement, solved), min(every, stop - len(done))):
            done.append((int(rows[place]), bool(arrangement.at_random_n[place])))
            solved[int(arrangement.cluster_n[place])] += 1
            keep_n[rows[place]] = False
        confidence_n = np.clip(pool.confidence_n + 0.1 * rng.normal(size=len(keep_n)), 0.0, 1.0)
    return done


def slow_order(arrangement: Arrangement, solved_clusters: dict[int, int]) -> list[int]:
    """Label Studio's rule, word by word."""
    solved, left, order = Counter(solved_clusters), set(range(len(arrangement.score_n))), []
    while left:
        best = min(left, key=lambda row: (solved[arrangement.cluster_n[row]], arrangement.score_n[row]))
        solved[arrangement.cluster_n[best]] += 1
        order.append(best)
        left.remove(best)
    return order


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    levels=st.sampled_from([1, 2, 50]),
    seed=st.integers(0, 2**40),
)
def test_arrange_any_pool_scores_differ_and_keep_the_preference(count, share, levels, seed):
    pool = make_pool(count, seed=seed)
    pool = rest_of(pool, np.ones(count, dtype=bool), np.round(pool.confidence_n * levels) / levels)
    arrangement = arrange(pool, in_turns, random_share=share, seed=seed)
    assert len(set(arrangement.score_n.tolist())) == count
    assert ((arrangement.score_n >= 0.0) & (arrangement.score_n <= 1.0)).all()
    chosen_n = ~arrangement.at_random_n
    assert np.abs(arrangement.score_n - pool.confidence_n)[chosen_n].max(initial=0.0) < 1e-6
    np.testing.assert_array_equal(arrangement.cluster_n[chosen_n], pool.clustering.cluster_n[chosen_n])
    for cluster in np.unique(arrangement.cluster_n[chosen_n]):
        rows = np.flatnonzero(chosen_n & (arrangement.cluster_n == cluster))
        assert (np.diff(pool.confidence_n[rows][np.argsort(arrangement.score_n[rows])]) >= 0.0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), solved=st.dictionaries(st.integers(0, 6), st.integers(0, 9)))
def test_serve_order_is_label_studios_rule(seed, solved):
    arrangement = arrange(make_pool(40, seed=seed), in_turns, random_share=0.2, seed=seed)
    assert list(serve_order(arrangement, solved)) == slow_order(arrangement, solved)


def test_serve_order_ends_with_an_empty_pool():
    arrangement = arrange(make_pool(0), in_turns, random_share=0.1, seed=0)
    assert (list(serve_order(arrangement)), overall_rank(arrangement).tolist()) == ([], [])


def test_overall_rank_numbers_the_turns():
    arrangement = arrange(make_pool(30), in_turns, random_share=0.1, seed=0)
    assert np.argsort(overall_rank(arrangement)).tolist() == list(serve_order(arrangement))


def test_arrange_without_share_and_clusters_is_ascending_confidence():
    pool = make_pool(50)
    arrangement = arrange(pool, uncertainty, random_share=0.0, seed=0)
    np.testing.assert_array_equal(arrangement.score_n, pool.confidence_n)
    assert list(serve_order(arrangement)) == np.argsort(pool.confidence_n).tolist()
    assert not arrangement.at_random_n.any()


def test_arrange_repeated_returns_the_same():
    first, second = (arrange(make_pool(80), random, random_share=0.3, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.score_n, second.score_n)
    np.testing.assert_array_equal(first.cluster_n, second.cluster_n)


def test_drawn_at_random_belongs_to_the_task_alone():
    all_n = drawn_at_random(range(1000), random_share=0.1, seed=3)
    some_n = drawn_at_random([5, 900, 17], random_share=0.1, seed=3)
    assert some_n.tolist() == all_n[[5, 900, 17]].tolist()
    more_n = drawn_at_random(range(1000), random_share=0.3, seed=3)
    assert (more_n | ~all_n).all()
    assert (drawn_at_random(range(1000), random_share=0.1, seed=4) != all_n).any()


@pytest.mark.parametrize("every", [400, 20, 3], ids=["one version", "every 20 tasks", "every 3 tasks"])
def test_arrange_share_left_to_chance_holds_wherever_one_stops(every):
    flags = np.array(
        [
            [drawn for _, drawn in served(make_pool(300, seed=s), stop=90, every=every, seed=s, share=0.2)]
            for s in range(30)
        ]
    )
    for stop in (10, 30, 60, 90):
        mean, trials = flags[:, :stop].mean(), 30 * stop
        # The pool's own share varies with its 300 coins, beside the coins of the places.
        spread = np.sqrt(0.16 / trials + 0.16 / (30 * 300))
        assert abs(mean - 0.2) < 3.5 * spread


def test_arrange_left_to_chance_are_a_fair_sample_of_the_pool():
    differences = []
    for seed in range(30):
        pool = make_pool(300, seed=seed)
        rows = [row for row, drawn in served(pool, stop=100, every=25, seed=seed, share=0.2) if drawn]
        differences.append(pool.confidence_n[rows].mean() - pool.confidence_n.mean())
    assert abs(np.mean(differences)) < 3.5 * np.std(differences) / np.sqrt(len(differences))


def test_arrange_left_to_chance_come_all_the_same_whatever_the_scores():
    pool = make_pool(200)
    turned = rest_of(pool, np.ones(200, dtype=bool), 1.0 - pool.confidence_n)
    orders = []
    for each in (pool, turned):
        arrangement = arrange(each, uncertainty, random_share=0.2, seed=1)
        orders.append([row for row in serve_order(arrangement) if arrangement.at_random_n[row]])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_arrange_all_random_is_one_queue(count):
    arrangement = arrange(make_pool(count), in_turns, random_share=1.0, seed=0)
    assert arrangement.at_random_n.all()
    assert set(arrangement.cluster_n.tolist()) == {0}


def test_arrange_identical_scores_are_not_in_order_of_the_number():
    arrangement = arrange(
        make_pool(50), lambda pool, _: Preference(score_n=np.ones(50)), random_share=0.0, seed=0
    )
    order = list(serve_order(arrangement))
    assert sorted(order) == list(range(50))
    assert order != sorted(order)
