"""Clusters of similar images, with numbers that stay the same from one model version to the next.

Label Studio counts solved tasks per cluster number over the predictions of all versions, so a number has to
mean the same cluster in each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.selection.pool import Clustering, Embeddings, Floats

__all__ = ["assign", "cluster_count", "cluster_pool", "nearest_labelled"]

Ints = NDArray[np.int64]

FIRST_NUMBER = 1  # 0 is the cluster of a strategy without clusters
MAX_CLUSTERS = 128
KEPT_FACTOR = 2.0  # the number of clusters is kept while it is within this factor of the suitable one
KNOWN_SHARE = 0.8  # of images with a previous number; from here on the previous clusters are kept
BLOCK_VALUES = 4_000_000  # of float32 in one block of distances
FEW_IMAGES = 20_000  # up to here k-means over all images takes seconds


def cluster_count(images: int) -> int:
    """Return a suitable number of clusters: the square root of the number of images, 1..128.

    With the square root there are as many clusters as images per cluster. The upper bound is for Label
    Studio, whose query for the next task compares every candidate with every cluster that has a solved task.
    """
    return int(np.clip(round(np.sqrt(images)), 1, MAX_CLUSTERS))


def cluster_pool(
    embedding_nd: Embeddings,
    *,
    task_ids: Sequence[int] = (),
    previous: Mapping[int, int] | None = None,
    labelled_md: Embeddings | None = None,
    labelled_ids: Sequence[int] = (),
    clusters: int | None = None,
    seed: int,
) -> Clustering:
    """Cluster images by k-means; with `previous`, most images keep their cluster number.

    A new model has other embeddings. Each image is assigned to the nearest mean that the previous clusters
    have in the new embeddings: one step of k-means per version. Where more clusters are needed or many images
    are new, k-means continues from there. The resulting clusters take the previous numbers by the largest
    overlap; a cluster without a previous number takes one that was never used.

    Args:
        embedding_nd: (N, D), embeddings of the pool.
        task_ids: N task numbers; only needed with `previous`.
        previous: task -> its cluster number in the previous version, also of labelled tasks; the number of
            its cluster, not the one that `arrange` gave it if it was drawn at random.
        labelled_md: (M, D), embeddings of labelled images, which keep the clusters stable.
        labelled_ids: M task numbers.
        clusters: number of clusters; None: by `cluster_count`, or as before while that is close.
        seed: seed of the first means.

    Returns:
        The cluster number of each image of the pool, from 1, and the means; NaN for an unused number.

    Raises:
        ValueError: an embedding is not finite.

    Source:
        Arthur, Vassilvitskii, "k-means++", SODA 2007; largest overlap: Kuhn, "The Hungarian Method for the
        Assignment Problem", 1955.
    """
    points_pd = np.asarray(embedding_nd, dtype=np.float32)
    if labelled_md is not None and len(labelled_md):
        points_pd = np.concatenate([points_pd, np.asarray(labelled_md, dtype=np.float32)])
    _check_finite(points_pd)
    old_p = _old_numbers([*task_ids, *labelled_ids], previous, len(points_pd))
    count = min(_count(len(points_pd), old_p, clusters), len(points_pd))
    if count == 0:
        return Clustering(
            cluster_n=np.empty(0, dtype=np.int64),
            centres_kd=np.empty((0, points_pd.shape[1]), dtype=np.float32),
        )
    group_p = _group(points_pd, old_p, count, seed)
    number_g = _take_numbers(group_p, old_p, unused=max([FIRST_NUMBER - 1, *(previous or {}).values()]) + 1)
    cluster_p = number_g[group_p]
    return Clustering(cluster_n=cluster_p[: len(embedding_nd)], centres_kd=_means(points_pd, cluster_p))


def assign(embedding_nd: Embeddings, clustering: Clustering) -> Ints:
    """Return the number of the nearest cluster for images that came later; 0 where there are no clusters."""
    used_u = np.flatnonzero(np.isfinite(clustering.centres_kd).all(axis=1))
    if not len(used_u):
        return np.zeros(len(embedding_nd), dtype=np.int64)
    _, index_n = nearest_labelled(embedding_nd, clustering.centres_kd[used_u])
    return used_u[index_n].astype(np.int64)


def nearest_labelled(embedding_nd: Embeddings, labelled_md: Embeddings) -> tuple[Floats, Ints]:
    """Return the nearest labelled image of each image, computed in blocks of bounded memory.

    Returns:
        distance_n: Euclidean, 0..2 between embeddings of unit length; infinite without labelled images.
        index_n: row of `labelled_md`; -1 without labelled images.
    """
    count = len(embedding_nd)
    distance_n, index_n = np.full(count, np.inf), np.full(count, -1, dtype=np.int64)
    if not len(labelled_md):
        return distance_n, index_n
    square_m = np.einsum("md,md->m", labelled_md, labelled_md, dtype=np.float32)
    step = max(1, BLOCK_VALUES // len(labelled_md))
    for start in range(0, count, step):
        block_bd = np.asarray(embedding_nd[start : start + step], dtype=np.float32)
        index_b = (square_m - 2.0 * (block_bd @ labelled_md.T)).argmin(axis=1)
        index_n[start : start + step] = index_b
        # From the difference, since the product loses precision for distances near zero.
        distance_n[start : start + step] = np.linalg.norm(block_bd - labelled_md[index_b], axis=1)
    return distance_n, index_n


def _check_finite(points_pd: Embeddings) -> None:
    bad = np.flatnonzero(~np.isfinite(points_pd).all(axis=1))
    if len(bad):
        raise ValueError(f"embeddings: expected finite numbers, got others in rows {bad[:5].tolist()}")


def _old_numbers(task_ids: Sequence[int], previous: Mapping[int, int] | None, count: int) -> Ints:
    """Return each image's number in the previous version, -1 where it had none."""
    if not previous:
        return np.full(count, -1, dtype=np.int64)
    if len(task_ids) != count:
        raise ValueError(f"task_ids: expected {count} with those of labelled images, got {len(task_ids)}")
    old_p = np.array([previous.get(task, -1) for task in task_ids], dtype=np.int64)
    return np.where(old_p < FIRST_NUMBER, -1, old_p)


def _count(images: int, old_p: Ints, clusters: int | None) -> int:
    if clusters is not None:
        return clusters
    fitting, before = cluster_count(images), len(np.unique(old_p[old_p >= 0]))
    close = before and fitting / KEPT_FACTOR <= before <= fitting * KEPT_FACTOR
    return before if close else fitting


def _group(points_pd: Embeddings, old_p: Ints, count: int, seed: int) -> Ints:
    """Return the cluster of each image, 0..G-1, each of which is used."""
    known_p = old_p >= 0
    means_gd: Embeddings | None = None
    if known_p.any():
        largest = np.argsort(-np.bincount(old_p[known_p]), kind="stable")[:count]
        before_kd = _means(points_pd[known_p], old_p[known_p])[largest]
        before_gd = before_kd[np.isfinite(before_kd).all(axis=1)]
        if len(before_gd) == count and known_p.mean() >= KNOWN_SHARE:
            return _renumbered(nearest_labelled(points_pd, before_gd)[1])
        means_gd = _add_means(points_pd, before_gd, count, np.random.default_rng(seed))
    return _renumbered(_search(points_pd, means_gd, count, seed))


def _add_means(
    points_pd: Embeddings, means_gd: Embeddings, count: int, rng: np.random.Generator
) -> Embeddings:
    """Add images that are far from all means until there are `count` (as in k-means++)."""
    means = list(means_gd)
    square_p = nearest_labelled(points_pd, means_gd)[0] ** 2
    while len(means) < count and square_p.sum() > 0:
        far = rng.choice(len(points_pd), p=square_p / square_p.sum())
        means.append(points_pd[far])
        square_p = np.minimum(square_p, ((points_pd - points_pd[far]) ** 2).sum(axis=1))
    return np.stack(means)


def _search(points_pd: Embeddings, means_gd: Embeddings | None, count: int, seed: int) -> Ints:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    init = "k-means++" if means_gd is None else means_gd
    groups = count if means_gd is None else len(means_gd)
    kind = KMeans if len(points_pd) <= FEW_IMAGES else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters
        fitted = kind(n_clusters=groups, init=init, n_init=1, random_state=seed % 2**32).fit(points_pd)
    return np.asarray(fitted.labels_, dtype=np.int64)


def _renumbered(group_p: Ints) -> Ints:
    return np.asarray(np.unique(group_p, return_inverse=True)[1], dtype=np.int64)


def _take_numbers(group_p: Ints, old_p: Ints, *, unused: int) -> Ints:
    """Return for each cluster the previous number by the largest overlap, or one that was never used."""
    from scipy.optimize import linear_sum_assignment

    groups, known_p = int(group_p.max()) + 1, old_p >= 0
    number_g = np.full(groups, -1, dtype=np.int64)
    if known_p.any():
        overlap_go = np.zeros((groups, int(old_p.max()) + 1), dtype=np.int64)
        np.add.at(overlap_go, (group_p[known_p], old_p[known_p]), 1)
        rows, columns = linear_sum_assignment(overlap_go, maximize=True)
        matched = overlap_go[rows, columns] > 0
        number_g[rows[matched]] = columns[matched]
    fresh_g = number_g < 0
    number_g[fresh_g] = unused + np.arange(int(fresh_g.sum()))
    return number_g


def _means(points_pd: Embeddings, cluster_p: Ints) -> Embeddings:
    """Return (highest number + 1, D): the mean of the images of each number; NaN where it has none."""
    count = int(cluster_p.max()) + 1
    sums_kd = np.zeros((count, points_pd.shape[1]), dtype=np.float64)
    order_p = np.argsort(cluster_p, kind="stable")
    numbers_u, starts_u, sizes_u = np.unique(cluster_p[order_p], return_index=True, return_counts=True)
    sums_kd[:] = np.nan
    sums_kd[numbers_u] = (
        np.add.reduceat(points_pd[order_p], starts_u, axis=0, dtype=np.float64) / sizes_u[:, None]
    )
    return sums_kd.astype(np.float32)
