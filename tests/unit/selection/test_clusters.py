"""Groups of alike images, their numbers, and the nearest labelled image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.selection import clusters
from maskloop.selection.clusters import assign, cluster_count, cluster_pool, nearest_labelled


def unit(rows) -> np.ndarray:
    array = np.asarray(rows, dtype=np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-9)


def make_groups(count: int, *, groups: int = 6, size: int = 16, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return embeddings of one model, those of another of the same images, and each image's group."""
    rng = np.random.default_rng(seed)
    group_n = rng.integers(groups, size=count)
    inner_nd = rng.normal(size=(groups, size))[group_n] + 0.15 * rng.normal(size=(count, size))
    turned_nd = np.maximum(inner_nd @ rng.normal(size=(size, size)), 0.0)
    return unit(inner_nd), unit(turned_nd), group_n


def numbers(task_ids, clustering) -> dict[int, int]:
    return dict(zip(task_ids, clustering.cluster_n.tolist(), strict=True))


@pytest.mark.parametrize(
    ("images", "count"),
    [(0, 1), (1, 1), (4, 2), (100, 10), (1000, 32), (10_000, 100), (10**6, 128)],
)
def test_cluster_count_is_the_square_root_within_bounds(images, count):
    assert cluster_count(images) == count


def test_cluster_pool_finds_the_groups():
    embedding_nd, _, group_n = make_groups(200)
    found = cluster_pool(embedding_nd, clusters=6, seed=0)
    pairs = set(zip(group_n.tolist(), found.cluster_n.tolist(), strict=True))
    assert len(pairs) == 6
    assert found.cluster_n.min() == 1
    assert np.isnan(found.centres_kd[0]).all()


@pytest.mark.parametrize(
    ("count", "clusters"),
    [(0, None), (1, None), (1, 5), (3, 8), (40, None)],
    ids=["none", "one", "one image, five groups", "fewer images than groups", "by size"],
)
def test_cluster_pool_any_size_numbers_every_image(count, clusters):
    embedding_nd, *_ = make_groups(count)
    found = cluster_pool(embedding_nd, clusters=clusters, seed=0)
    assert found.cluster_n.shape == (count,)
    used = np.unique(found.cluster_n)
    assert len(used) <= min(count, clusters or cluster_count(count))
    assert np.isfinite(found.centres_kd[used]).all()


def test_cluster_pool_identical_images_are_one_group():
    found = cluster_pool(np.tile(unit([[1.0, 2.0]]), (30, 1)), seed=0)
    assert set(found.cluster_n.tolist()) == {1}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cluster_pool_number_that_is_not_finite_names_the_row(bad):
    embedding_nd, *_ = make_groups(10)
    embedding_nd[7, 2] = bad
    with pytest.raises(ValueError, match=r"finite numbers.*rows \[7\]"):
        cluster_pool(embedding_nd, seed=0)


def test_cluster_pool_ids_that_do_not_fit_are_refused():
    embedding_nd, *_ = make_groups(10)
    with pytest.raises(ValueError, match="expected 10"):
        cluster_pool(embedding_nd, task_ids=[1, 2], previous={1: 1}, seed=0)


def test_cluster_pool_another_models_features_keep_the_numbers():
    before_nd, after_nd, _ = make_groups(300)
    ids = list(range(300))
    previous = numbers(ids, cluster_pool(before_nd, clusters=6, seed=0))
    found = cluster_pool(after_nd, task_ids=ids, previous=previous, clusters=6, seed=1)
    assert np.mean([previous[task] == number for task, number in numbers(ids, found).items()]) > 0.95


def test_cluster_pool_labelled_images_keep_their_groups_number_in_use():
    before_nd, after_nd, group_n = make_groups(300)
    ids = np.arange(300)
    previous = numbers(ids.tolist(), cluster_pool(before_nd, clusters=6, seed=0))
    gone = group_n == 2  # all of a group was labelled
    found = cluster_pool(
        after_nd[~gone],
        task_ids=ids[~gone].tolist(),
        previous=previous,
        labelled_md=after_nd[gone],
        labelled_ids=ids[gone].tolist(),
        clusters=6,
        seed=1,
    )
    number = previous[int(ids[gone][0])]
    assert number not in found.cluster_n
    assert np.isfinite(found.centres_kd[number]).all()


@pytest.mark.parametrize(
    ("old", "new", "fresh"),
    [(100, 110, 0.0), (250, 60, 0.0), (60, 300, 0.4)],
    ids=["few new", "shrunk", "grown five times"],
)
def test_cluster_pool_another_size_keeps_the_numbers_of_old_tasks(old, new, fresh):
    before_nd, after_nd, _ = make_groups(max(old, new))
    ids = list(range(max(old, new)))
    previous = numbers(ids[:old], cluster_pool(before_nd[:old], seed=0))
    found = cluster_pool(after_nd[:new], task_ids=ids[:new], previous=previous, seed=1)
    both = range(min(old, new))
    kept = np.mean([previous[task] == found.cluster_n[task] for task in both])
    assert kept > (0.75 if not fresh else 0.5)
    used = set(found.cluster_n.tolist())
    assert (len(used - set(previous.values())) > 0) == (fresh > 0)


def test_cluster_pool_new_groups_take_numbers_never_used():
    before_nd, after_nd, _ = make_groups(120)
    ids = list(range(120))
    previous = {task: 40 + number for task, number in numbers(ids, cluster_pool(before_nd, seed=0)).items()}
    previous[999] = 70  # of a task that is gone
    found = cluster_pool(after_nd, task_ids=ids, previous=previous, clusters=20, seed=0)
    fresh = set(found.cluster_n.tolist()) - set(previous.values())
    assert fresh
    assert min(fresh) == 71


def test_cluster_pool_zero_before_means_no_group_before():
    embedding_nd, *_ = make_groups(60)
    ids = list(range(60))
    found = cluster_pool(embedding_nd, task_ids=ids, previous=dict.fromkeys(ids, 0), seed=0)
    np.testing.assert_array_equal(found.cluster_n, cluster_pool(embedding_nd, seed=0).cluster_n)


def test_assign_gives_an_image_its_nearest_group():
    embedding_nd, *_ = make_groups(200)
    found = cluster_pool(embedding_nd, clusters=6, seed=0)
    np.testing.assert_array_equal(assign(embedding_nd, found), found.cluster_n)


def test_assign_without_groups_is_zero():
    empty = cluster_pool(np.zeros((0, 4), dtype=np.float32), seed=0)
    assert assign(unit(np.ones((2, 4))), empty).tolist() == [0, 0]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 30), labelled=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_nearest_labelled_is_the_nearest(count, labelled, seed):
    rng = np.random.default_rng(seed)
    embedding_nd, labelled_md = unit(rng.normal(size=(count, 5))), unit(rng.normal(size=(labelled, 5)))
    distance_n, index_n = nearest_labelled(embedding_nd, labelled_md)
    every_nm = np.linalg.norm(embedding_nd[:, None] - labelled_md[None], axis=2)
    np.testing.assert_allclose(distance_n, every_nm.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(every_nm[np.arange(count), index_n], every_nm.min(axis=1), atol=1e-5)


def test_nearest_labelled_in_blocks_is_the_same(monkeypatch):
    embedding_nd, labelled_md, _ = make_groups(50)
    whole = nearest_labelled(embedding_nd, labelled_md)
    monkeypatch.setattr(clusters, "BLOCK_VALUES", 120)
    for found, expected in zip(nearest_labelled(embedding_nd, labelled_md), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nearest_labelled_without_any_is_endlessly_far():
    distance_n, index_n = nearest_labelled(unit(np.ones((2, 4))), np.zeros((0, 4), dtype=np.float32))
    assert (distance_n.tolist(), index_n.tolist()) == ([np.inf] * 2, [-1, -1])


def test_nearest_labelled_itself_is_at_no_distance():
    embedding_nd, *_ = make_groups(20)
    assert nearest_labelled(embedding_nd, embedding_nd)[0].tolist() == [0.0] * 20
