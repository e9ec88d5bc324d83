"""Groups of alike images, with numbers that mean the same group from one model version to the next.

Label Studio counts what was solved per number over the predictions of all versions, so a number that changed
its meaning would spoil the count.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.selection.pool import Clustering, Embeddings, Floats

__all__ = ["assign", "cluster_count", "cluster_pool", "nearest_labelled"]

Ints = NDArray[np.int64]

FIRST_NUMBER = 1  # 0 is what is told where clusters do not matter
MOST_CLUSTERS = 128
KEPT_FACTOR = 2.0  # the number of groups stays while the one that would suit is within this of it
KNOWN_SHARE = 0.8  # of images with a number from before: from here on the groups before are good enough
BLOCK_VALUES = 4_000_000  # of float32 in one block of distances
FEW_IMAGES = 20_000  # up to here k-means over all at once takes seconds


def cluster_count(images: int) -> int:
    """Return how many groups suit this many images: their square root, 1..128.

    With the square root there are as many groups as images in a group, so that a round over the groups and
    the choice within one are worth the same. The upper end is for Label Studio, whose question for the next
    task compares every candidate with every group that has a solved task.
    """
    return int(np.clip(round(np.sqrt(images)), 1, MOST_CLUSTERS))


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
    """Group images by k-means; with `previous`, so that most keep their number.

    A new model has other features. What stays is which images were together: each image goes to the nearest
    of the middles that the groups before have in the new features, one step of k-means a version. Where more
    groups are needed or many images are new, k-means goes on from there. The groups found take the old
    numbers by the largest overlap; one without an old one takes a number that was never used.

    Args:
        embedding_nd: (N, D) of the pool.
        task_ids: N numbers; only needed with `previous`.
        previous: task -> its number in the version before, of labelled tasks too; the number of its group,
            not the queue that `arrange` gave it if it was left to chance.
        labelled_md: (M, D) of images that have labels; they hold the groups in place.
        labelled_ids: M numbers.
        clusters: how many groups; None: by `cluster_count`, and as before while that is not far off.
        seed: of the first middles.

    Returns:
        The number of each image of the pool, from 1, and the middles; a row of NaN is a number without a
        group.

    Raises:
        ValueError: an embedding has numbers that are not finite.

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
    return Clustering(cluster_n=cluster_p[: len(embedding_nd)], centres_kd=_middles(points_pd, cluster_p))


def assign(embedding_nd: Embeddings, clustering: Clustering) -> Ints:
    """Return the number of the nearest group for images that came later; 0 where there is no group."""
    used_u = np.flatnonzero(np.isfinite(clustering.centres_kd).all(axis=1))
    if not len(used_u):
        return np.zeros(len(embedding_nd), dtype=np.int64)
    _, index_n = nearest_labelled(embedding_nd, clustering.centres_kd[used_u])
    return used_u[index_n].astype(np.int64)


def nearest_labelled(embedding_nd: Embeddings, labelled_md: Embeddings) -> tuple[Floats, Ints]:
    """Find the labelled image that is most alike, in blocks of bounded memory.

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
        # Once more from the difference: the product loses the digits of a distance near zero.
        distance_n[start : start + step] = np.linalg.norm(block_bd - labelled_md[index_b], axis=1)
    return distance_n, index_n


def _check_finite(points_pd: Embeddings) -> None:
    bad = np.flatnonzero(~np.isfinite(points_pd).all(axis=1))
    if len(bad):
        raise ValueError(f"embeddings: expected finite numbers, got others in rows {bad[:5].tolist()}")


def _old_numbers(task_ids: Sequence[int], previous: Mapping[int, int] | None, count: int) -> Ints:
    """Return each image's number in the version before, -1 where it had none."""
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
    """Return the group of each image, 0..G-1 without a gap."""
    known_p = old_p >= 0
    middles_gd: Embeddings | None = None
    if known_p.any():
        largest = np.argsort(-np.bincount(old_p[known_p]), kind="stable")[:count]
        before_kd = _middles(points_pd[known_p], old_p[known_p])[largest]
        before_gd = before_kd[np.isfinite(before_kd).all(axis=1)]
        if len(before_gd) == count and known_p.mean() >= KNOWN_SHARE:
            return _gapless(nearest_labelled(points_pd, before_gd)[1])
        middles_gd = _more_middles(points_pd, before_gd, count, np.random.default_rng(seed))
    return _gapless(_search(points_pd, middles_gd, count, seed))


def _more_middles(
    points_pd: Embeddings, middles_gd: Embeddings, count: int, rng: np.random.Generator
) -> Embeddings:
    """Add images that are far from all middles until there are enough (the draw of k-means++)."""
    middles = list(middles_gd)
    square_p = nearest_labelled(points_pd, middles_gd)[0] ** 2
    while len(middles) < count and square_p.sum() > 0:
        far = rng.choice(len(points_pd), p=square_p / square_p.sum())
        middles.append(points_pd[far])
        square_p = np.minimum(square_p, ((points_pd - points_pd[far]) ** 2).sum(axis=1))
    return np.stack(middles)


def _search(points_pd: Embeddings, middles_gd: Embeddings | None, count: int, seed: int) -> Ints:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    init = "k-means++" if middles_gd is None else middles_gd
    groups = count if middles_gd is None else len(middles_gd)
    kind = KMeans if len(points_pd) <= FEW_IMAGES else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than groups
        fitted = kind(n_clusters=groups, init=init, n_init=1, random_state=seed % 2**32).fit(points_pd)
    return np.asarray(fitted.labels_, dtype=np.int64)


def _gapless(group_p: Ints) -> Ints:
    return np.asarray(np.unique(group_p, return_inverse=True)[1], dtype=np.int64)


def _take_numbers(group_p: Ints, old_p: Ints, *, unused: int) -> Ints:
    """Return for each group the old number that most of its images had, or one never used."""
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


def _middles(points_pd: Embeddings, cluster_p: Ints) -> Embeddings:
    """Return the mean of each number's images, (highest number + 1, D); NaN where it has none."""
    count = int(cluster_p.max()) + 1
    sums_kd = np.zeros((count, points_pd.shape[1]), dtype=np.float64)
    order_p = np.argsort(cluster_p, kind="stable")
    numbers_u, starts_u, sizes_u = np.unique(cluster_p[order_p], return_index=True, return_counts=True)
    sums_kd[:] = np.nan
    sums_kd[numbers_u] = (
        np.add.reduceat(points_pd[order_p], starts_u, axis=0, dtype=np.float64) / sizes_u[:, None]
    )
    return sums_kd.astype(np.float32)
