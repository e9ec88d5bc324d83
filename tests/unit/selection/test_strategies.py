"""Strategies by name and one's own, and what is refused of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.errors import ConfigurationError
from maskloop.selection import strategies
from maskloop.selection.arrangement import arrange
from maskloop.selection.pool import Clustering, Pool, Preference
from maskloop.selection.strategies import STRATEGIES, find_strategy, prefer, register_strategy

OWN = """
from maskloop.selection.pool import Preference

NUMBER = 3

def surest(pool, rng):
    return Preference(score_n=1.0 - pool.confidence_n)
"""


def make_pool(
    angles=(0.0, 0.1, 1.5, 3.0),
    confidence=(0.9, 0.2, 0.5, 0.5),
    clusters=(1, 1, 2, 2),
    labelled=(),
    found=None,
) -> Pool:
    """Embeddings on the unit circle, by their angle."""

    def circle(values) -> np.ndarray:
        return np.array([(np.cos(a), np.sin(a)) for a in values], dtype=np.float32).reshape(-1, 2)

    cluster_n, embedding_nd = np.array(clusters, dtype=np.int64), circle(angles)
    centres_kd = np.full((3, 2), np.nan, dtype=np.float32)
    for number in set(clusters):
        centres_kd[number] = embedding_nd[cluster_n == number].mean(axis=0)
    return Pool(
        task_ids=tuple(range(1, len(angles) + 1)),
        confidence_n=np.array(confidence, dtype=np.float64),
        found_n=np.array([1] * len(angles) if found is None else found, dtype=np.int64),
        embedding_nd=embedding_nd,
        labelled_md=circle(labelled),
        clustering=Clustering(cluster_n=cluster_n, centres_kd=centres_kd),
    )


def preference_of(name: str, pool: Pool) -> Preference:
    return prefer(find_strategy(name), pool, np.random.default_rng(0))


POOLS = {
    "empty": make_pool((), (), ()),
    "one": make_pool((0.3,), (0.4,), (1,)),
    "none labelled": make_pool(),
    "some labelled": make_pool(labelled=(0.0, 2.0)),
    "identical": make_pool((1.0,) * 5, (0.5,) * 5, (1,) * 5, labelled=(1.0,)),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_strategy_any_pool_is_arranged(name, pool):
    arrangement = arrange(pool, find_strategy(name), random_share=0.1, seed=0)
    assert len(set(arrangement.score_n.tolist())) == len(pool.task_ids)


@pytest.mark.parametrize(
    ("name", "clusters"),
    [(name, name == "clustered") for name in sorted(STRATEGIES)],
)
def test_strategy_uses_clusters_or_none(name, clusters):
    assert (preference_of(name, make_pool()).cluster_n is not None) is clusters


def test_uncertainty_is_the_confidence():
    pool = make_pool()
    np.testing.assert_array_equal(preference_of("uncertainty", pool).score_n, pool.confidence_n)


def test_hybrid_without_labelled_images_starts_with_the_least_sure():
    assert preference_of("hybrid", make_pool()).score_n.argmin() == 1


def test_hybrid_two_similar_uncertain_images_only_one_comes_early():
    pool = make_pool((0.0, 0.01, 1.5), (0.1, 0.11, 0.6), (1, 1, 1), labelled=(3.0,))
    assert np.argsort(preference_of("hybrid", pool).score_n).tolist() == [0, 2, 1]


def test_hybrid_images_all_alike_go_by_confidence():
    pool = make_pool((1.0,) * 4, (0.9, 0.2, 0.5, 0.6), (1,) * 4, labelled=(1.0,))
    assert np.argsort(preference_of("hybrid", pool).score_n).tolist() == [1, 2, 3, 0]


def test_diversity_next_image_is_the_farthest_from_those_taken():
    pool = make_pool((0.1, 0.9, 1.4, 0.5), (0.5,) * 4, (1,) * 4, labelled=(0.0,))
    assert np.argsort(preference_of("diversity", pool).score_n).tolist() == [2, 3, 1, 0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_diversity_is_the_slow_k_centre_greedy(seed, count):
    rng = np.random.default_rng(seed)
    pool = make_pool(rng.uniform(0, 1.5, count), (0.5,) * count, (1,) * count, labelled=(0.0,))
    left, taken = list(range(count)), [pool.labelled_md[0]]
    for row in np.argsort(preference_of("diversity", pool).score_n):
        away = {at: min(np.linalg.norm(pool.embedding_nd[at] - one) for one in taken) for at in left}
        assert away[row] == pytest.approx(max(away.values()), abs=1e-3)
        left.remove(row)
        taken.append(pool.embedding_nd[row])


def test_hybrid_those_not_taken_one_by_one_follow(monkeypatch):
    rng = np.random.default_rng(0)
    pool = make_pool(rng.uniform(0, 1.5, 30), rng.random(30), (1,) * 30, labelled=(0.0,))
    whole = np.argsort(preference_of("hybrid", pool).score_n)
    monkeypatch.setattr(strategies, "MAX_TAKEN", 5)
    score_n = preference_of("hybrid", pool).score_n
    assert ((score_n >= 0.0) & (score_n <= 1.0)).all()
    assert np.argsort(score_n)[:5].tolist() == whole[:5].tolist()


def test_diversity_does_not_ask_how_sure_the_model_is():
    one, other = (
        preference_of("diversity", make_pool(confidence=(c,) * 4, labelled=(0.0,))) for c in (0.1, 0.9)
    )
    np.testing.assert_array_equal(one.score_n, other.score_n)


def test_diversity_twin_of_a_labelled_image_comes_last_in_its_cluster():
    score_n = preference_of(
        "diversity", make_pool((0.0, 0.8, 0.9), (0.5,) * 3, (1, 1, 1), labelled=(0.0,))
    ).score_n
    assert score_n.argmax() == 0


def test_most_objects_is_the_order_of_the_counts():
    pool = make_pool(np.arange(6.0), (0.5,) * 6, (1,) * 6, found=(3, 0, 250, 251, 1, 12))
    assert np.argsort(preference_of("most-objects", pool).score_n).tolist() == [3, 2, 5, 0, 4, 1]


def test_most_objects_equal_counts_go_by_chance_and_stay_between_their_neighbours():
    pool = make_pool(np.arange(6.0), (0.5,) * 6, (1,) * 6, found=(5, 2, 2, 2, 2, 1))
    orders = {
        tuple(np.argsort(find_strategy("most-objects")(pool, np.random.default_rng(seed)).score_n).tolist())
        for seed in range(40)
    }
    assert len(orders) > 10  # of 24
    assert {(order[0], order[-1]) for order in orders} == {(0, 5)}


def test_pool_counts_of_another_length_raise():
    with pytest.raises(ValueError, match="expected 4 confidences, counts"):
        make_pool(found=(1, 2))


def test_random_depends_on_the_seed_only():
    pool, strategy = make_pool(), find_strategy("random")
    one, again, other = (strategy(pool, np.random.default_rng(seed)).score_n for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_find_strategy_ones_own_by_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "my_choosing.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool()
    np.testing.assert_array_equal(preference_of("my_choosing:surest", pool).score_n, 1.0 - pool.confidence_n)
    with pytest.raises(ConfigurationError, match=r"my_choosing:NUMBER.*expected a function, got int"):
        find_strategy("my_choosing:NUMBER")
    with pytest.raises(ConfigurationError, match="AttributeError"):
        find_strategy("my_choosing:missing")


@pytest.mark.parametrize("name", ["", "best", "no_such_module:f", ":f", "os:", "maskloop..x:f"])
def test_find_strategy_unknown_raises_with_known_names(name):
    with pytest.raises(ConfigurationError, match="MASKLOOP_STRATEGY"):
        find_strategy(name)


def test_register_strategy_gives_a_name(monkeypatch):
    monkeypatch.setattr(strategies, "STRATEGIES", dict(STRATEGIES))
    assert register_strategy("mine", strategies.hybrid) is strategies.hybrid
    assert find_strategy("mine") is strategies.hybrid
    register_strategy("mine", strategies.hybrid)  # again is no harm
    with pytest.raises(ConfigurationError, match="a name in use"):
        register_strategy("mine", strategies.random)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_register_strategy_name_that_could_not_be_found_is_refused(name):
    with pytest.raises(ConfigurationError, match="without a colon"):
        register_strategy(name, strategies.hybrid)


WRONG = {
    "no preference": (np.zeros(4), "expected a Preference, got ndarray"),
    "too few": (Preference(score_n=np.zeros(3)), r"4 float scores, got float64 \(3,\)"),
    "whole numbers": (Preference(score_n=np.zeros(4, dtype=int)), "4 float scores, got int64"),
    "not a number": (Preference(score_n=np.array([0.1, 0.2, np.nan, 0.4])), "got nan for task 3"),
    "over one": (Preference(score_n=np.array([0.1, 1.2, 0.3, 0.4])), "got 1.2 for task 2"),
    "too few clusters": (
        Preference(score_n=np.zeros(4), cluster_n=np.zeros(2, dtype=np.int64)),
        r"4 whole cluster numbers, got int64 \(2,\)",
    ),
    "broken clusters": (Preference(score_n=np.zeros(4), cluster_n=np.zeros(4)), "whole cluster numbers"),
    "negative cluster": (Preference(score_n=np.zeros(4), cluster_n=np.array([0, 1, -2, 1])), "got -2"),
}


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=WRONG.keys())
def test_prefer_answer_that_cannot_be_used_names_the_function(answer, message):
    def mine(pool, rng):
        return answer

    with pytest.raises(ConfigurationError, match=message) as caught:
        prefer(mine, make_pool(), np.random.default_rng(0))
    assert "mine" in str(caught.value)


def test_prefer_function_that_fails_is_named():
    def mine(pool, rng):
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ConfigurationError, match=r"mine.*ZeroDivisionError: by nothing"):
        prefer(mine, make_pool(), np.random.default_rng(0))
