"""The rounds with a learner that does not learn: same starts, nothing twice, budgets kept."""

import itertools

import numpy as np
import pytest

from maskloop.errors import ConfigurationError
from maskloop.lab.simulation.loop import Budget, Learnt, PoolScores, run_cell, starting_set
from maskloop.selection.strategies import STRATEGIES

POOL = 30
OBJECTS = [index % 4 for index in range(POOL)]


class FakeLearner:
    """As good as the share of images that it was shown; surer of those with a higher number."""

    def __init__(self):
        rows = np.random.default_rng(0).normal(size=(POOL, 8))
        self.embedding_nd = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.found_n = 1 + np.arange(POOL) % 5
        self.edits_ne = np.arange(5 * POOL).reshape(POOL, 5)
        self.asked = []

    def learn(self, images, *, seed, previous, score_pool):
        self.asked.append((tuple(images), seed, None if previous is None else previous.key, score_pool))
        scores = (
            PoolScores(
                confidence_n=np.arange(POOL) / POOL,
                found_n=self.found_n,
                embedding_nd=self.embedding_nd,
                edits_ne=self.edits_ne,
            )
            if score_pool
            else None
        )
        return Learnt(key=str(len(images)), quality={"score": len(images) / POOL}, scores=scores)


def run(strategy="hybrid", *, seed=0, learner=None, **budget):
    budget = Budget(**({"start": 4, "per_round": 5, "rounds": 3} | budget))
    return run_cell(learner or FakeLearner(), OBJECTS, strategy=strategy, budget=budget, seed=seed)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_run_cell_budget_is_kept_and_no_image_comes_twice(strategy):
    points = run(strategy)
    assert [point.labels for point in points] == [4, 9, 14, 19]
    chosen = list(itertools.chain.from_iterable(point.chosen for point in points))
    assert len(set(chosen)) == len(chosen) == 19
    assert points[-1].objects == sum(OBJECTS[index] for index in chosen)
    assert points[-1].quality == {"score": 19 / POOL}


def test_run_cell_strategies_of_a_seed_start_alike_and_seeds_do_not():
    starts = {(strategy, seed): run(strategy, seed=seed)[0] for strategy in STRATEGIES for seed in (0, 1)}
    for seed in (0, 1):
        assert {starts[strategy, seed].chosen for strategy in STRATEGIES} == {starting_set(POOL, 4, seed)}
    assert starting_set(POOL, 4, 0) != starting_set(POOL, 4, 1)


def test_run_cell_same_seed_gives_the_same_curve():
    assert run(seed=3) == run(seed=3)


def test_run_cell_uncertainty_takes_what_the_model_is_least_sure_of():
    points = run("uncertainty")
    waiting = [index for index in range(POOL) if index not in points[0].chosen]
    assert points[1].chosen == tuple(waiting[:5])


def test_run_cell_hybrid_takes_from_as_many_clusters_as_it_can():
    chosen = run("hybrid", rounds=1, clusters=5)[1].chosen
    assert chosen != run("uncertainty", rounds=1)[1].chosen
    assert len(chosen) == 5


def test_run_cell_most_objects_takes_where_the_model_finds_most():
    learner = FakeLearner()
    points = run("most-objects", learner=learner, rounds=1)
    waiting = [index for index in range(POOL) if index not in points[0].chosen]
    most = sorted((learner.found_n[index] for index in waiting), reverse=True)[:5]
    assert [learner.found_n[index] for index in points[1].chosen] == most


def test_run_cell_edits_are_drawing_the_start_then_correcting_the_chosen():
    learner = FakeLearner()
    points = run("uncertainty", learner=learner)
    expected = [0, 0, 0, 0, sum(OBJECTS[index] for index in points[0].chosen)]
    for point in points:
        if point is not points[0]:
            for index in point.chosen:
                expected = [have + more for have, more in zip(expected, learner.edits_ne[index], strict=True)]
        assert point.edits == tuple(expected)


def test_run_cell_edits_that_are_not_known_stay_unknown():
    learner = FakeLearner()
    learner.edits_ne = None
    assert [point.edits is None for point in run(learner=learner)] == [False, True, True, True]


def test_run_cell_image_where_nothing_is_found_is_doubted_as_in_the_loop():
    learner = FakeLearner()
    surest = POOL - 1
    assert surest not in starting_set(POOL, 4, 0)
    learner.found_n[surest] = 0
    # Its embedding is opposite to those of the labelled ones, which are all alike.
    learner.embedding_nd[:] = (1, *[0] * 7)
    learner.embedding_nd[surest] = (-1, *[0] * 7)
    assert surest in run("uncertainty", learner=learner, rounds=1)[1].chosen


def test_run_cell_all_by_chance_leaves_the_strategy_no_say():
    sure = [run("uncertainty", rounds=1, seed=seed, random_share=1.0)[1].chosen for seed in range(20)]
    assert 10 < np.mean(sure) < 19  # of 0..29, where the strategy alone would take the first ones


def test_run_cell_pool_that_runs_out_ends_the_rounds():
    points = run("hybrid", per_round=20, rounds=9)
    assert [point.labels for point in points] == [4, 24, 30]


def test_run_cell_looks_at_the_pool_only_where_something_is_chosen():
    learner = FakeLearner()
    run("random", learner=learner, rounds=2)
    assert [score_pool for *_, score_pool in learner.asked] == [True, True, False]
    assert [previous for _, _, previous, _ in learner.asked] == [None, "4", "9"]


def test_run_cell_unknown_strategy_says_which_there_are():
    with pytest.raises(ConfigurationError, match="hybrid, most-objects, random"):
        run("cleverness")


@pytest.mark.parametrize(
    "wrong",
    [{"start": 0}, {"per_round": 0}, {"rounds": 0}, {"random_share": 1.1}],
    ids=lambda wrong: str(wrong),
)
def test_budget_impossible_raises(wrong):
    with pytest.raises(ValueError, match="Budget"):
        run(**wrong)
