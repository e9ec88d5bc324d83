"""From the scores of a version to the score and cluster by which Label Studio orders the tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskloop.log import log_action
from maskloop.store.scores import Arranged, PoolTask
from maskloop_studio.projects.task_order import pushed_cluster, pushed_scores

if TYPE_CHECKING:
    from maskloop.selection.pool import Clustering, Pool
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.types import ModelVersion

__all__ = ["arrange_scored"]

logger = logging.getLogger(__name__)
FEW = 0.2  # of the tasks arranged before: so many new ones take the nearest cluster, and the rest stays


def arrange_scored(project_id: int, champion: ModelVersion, *, store: Store, settings: Settings) -> None:
    """Give each task scored by a version its score and cluster.

    The first time, and when the pool has grown by more than a fifth since, all are clustered and arranged;
    clusters keep their numbers from the version before. In between, new tasks take the nearest cluster and
    their place in the order, and nothing is changed for the others.

    Args:
        project_id: Label Studio's number.
        champion: the version.
        store: has the version's scores; gets the arrangement.
        settings: the strategy and its parameters.

    Raises:
        ConfigurationError: the settings name a strategy that cannot be used.
    """
    tag = champion.tag
    if not store.scores.has_unarranged(project_id, tag):
        return  # most prelabellings find nothing new: no embedding is read for that

    from maskloop.selection.arrangement import arrange
    from maskloop.selection.strategies import find_strategy

    labelled_ids = set(store.annotations.labelled_tasks(project_id))
    scored = list(store.scores.pool_tasks(project_id, tag))
    labelled = [one for one in scored if one.labelled or one.task_id in labelled_ids]
    unlabelled = [one for one in scored if not (one.labelled or one.task_id in labelled_ids)]
    new = sum(one.score is None for one in unlabelled)
    if not new:
        return
    few = new <= FEW * (len(unlabelled) - new)
    tasks = _embed(unlabelled, labelled)
    if few:
        clustering = _extended(tasks)
    else:
        previous = _numbers_before(project_id, tag, scored, store)
        clustering = _clustered(tasks, previous, settings)
    arrangement = arrange(
        _pool(tasks, clustering),
        find_strategy(settings.strategy),
        random_share=settings.random_share,
        seed=settings.seed,
    )
    pushed_n = pushed_scores(arrangement)
    store.scores.arrange(
        project_id,
        tag,
        [
            Arranged(
                task_id=one.task_id,
                score=float(pushed_n[row]),
                cluster=int(clustering.cluster_n[row]),
                queue=pushed_cluster(int(arrangement.cluster_n[row]), champion.number),
                at_random=bool(arrangement.at_random_n[row]),
            )
            for row, one in enumerate(unlabelled)
            if one.score is None or not few
        ],
    )
    log_action(
        logger,
        "tasks_arranged",
        project_id=project_id,
        model_version=tag,
        tasks=len(unlabelled),
        new=new,
        few=few,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _EmbeddedTasks:
    """Scored tasks with their embeddings, zeros where there is none."""

    unlabelled: Sequence[PoolTask]
    labelled: Sequence[PoolTask]  # those of them that have an embedding
    embedding_nd: NDArray[np.float32]  # of the unlabelled ones
    labelled_md: NDArray[np.float32]


def _embed(unlabelled: Sequence[PoolTask], labelled: Sequence[PoolTask]) -> _EmbeddedTasks:
    """Return the tasks with embeddings of unit length again after float16."""
    size = next((len(one.embedding_d) for one in (*unlabelled, *labelled) if one.embedding_d is not None), 1)

    def stacked(tasks: Sequence[PoolTask]) -> NDArray[np.float32]:
        rows_nd = np.zeros((len(tasks), size), dtype=np.float32)
        for row, one in enumerate(tasks):
            if one.embedding_d is not None:
                rows_nd[row] = one.embedding_d
        rows_nd /= np.maximum(np.linalg.norm(rows_nd, axis=1, keepdims=True), 1e-6)
        return rows_nd

    with_embedding = [one for one in labelled if one.embedding_d is not None]
    return _EmbeddedTasks(
        unlabelled=unlabelled,
        labelled=with_embedding,
        embedding_nd=stacked(unlabelled),
        labelled_md=stacked(with_embedding),
    )


def _pool(tasks: _EmbeddedTasks, clustering: Clustering) -> Pool:
    from maskloop.selection.familiarity import doubt_empty
    from maskloop.selection.pool import Pool

    found_n = np.array([one.found or 0 for one in tasks.unlabelled], dtype=np.int64)
    return Pool(
        task_ids=tuple(one.task_id for one in tasks.unlabelled),
        confidence_n=doubt_empty(
            np.array([one.confidence for one in tasks.unlabelled], dtype=np.float64),
            np.array([one.found == 0 for one in tasks.unlabelled], dtype=np.bool_),
            tasks.embedding_nd,
            tasks.labelled_md,
        ),
        found_n=found_n,
        embedding_nd=tasks.embedding_nd,
        labelled_md=tasks.labelled_md,
        clustering=clustering,
    )


def _clustered(tasks: _EmbeddedTasks, previous: Mapping[int, int] | None, settings: Settings) -> Clustering:
    from maskloop.selection.clusters import cluster_pool

    return cluster_pool(
        tasks.embedding_nd,
        task_ids=[one.task_id for one in tasks.unlabelled],
        previous=previous,
        labelled_md=tasks.labelled_md,
        labelled_ids=[one.task_id for one in tasks.labelled],
        clusters=settings.clusters,
        seed=settings.seed,
    )


def _numbers_before(
    project_id: int, tag: str, scored: Sequence[PoolTask], store: Store
) -> dict[int, int] | None:
    """Return task -> cluster, as this version was arranged before, else as the one pushed before it was."""
    own = {one.task_id: one.cluster for one in scored if one.cluster is not None}
    if own:
        return own
    stored = store.scores.versions(project_id)
    for version in store.pushes.versions(project_id):
        if version != tag and version in stored:
            before = store.scores.pool_tasks(project_id, version)
            return {one.task_id: one.cluster for one in before if one.cluster is not None} or None
    return None


def _extended(tasks: _EmbeddedTasks) -> Clustering:
    """Return the clusters as they are, with new tasks in the nearest."""
    from maskloop.selection.clusters import assign
    from maskloop.selection.pool import Clustering

    cluster_n, cluster_m = _clusters_of(tasks.unlabelled), _clusters_of(tasks.labelled)
    centres_kd = _middles(
        np.concatenate([tasks.embedding_nd, tasks.labelled_md]), np.concatenate([cluster_n, cluster_m])
    )
    fresh_n = cluster_n < 0
    cluster_n[fresh_n] = assign(
        tasks.embedding_nd[fresh_n], Clustering(cluster_n=cluster_n, centres_kd=centres_kd)
    )
    return Clustering(cluster_n=cluster_n, centres_kd=centres_kd)


def _clusters_of(tasks: Sequence[PoolTask]) -> NDArray[np.int64]:
    """Return each task's cluster, -1 where it has none."""
    return np.array([-1 if one.cluster is None else one.cluster for one in tasks], dtype=np.int64)


def _middles(points_pd: NDArray[np.float32], cluster_p: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean of each number's images, NaN where it has none; those without a number do not count."""
    known_p = cluster_p >= 0
    numbers = cluster_p[known_p]
    count = int(numbers.max(initial=0)) + 1
    sums_kd = np.zeros((count, points_pd.shape[1]), dtype=np.float64)
    np.add.at(sums_kd, numbers, points_pd[known_p])
    sizes_k = np.bincount(numbers, minlength=count)
    middles_kd = np.full_like(sums_kd, np.nan)
    middles_kd[sizes_k > 0] = sums_kd[sizes_k > 0] / sizes_k[sizes_k > 0, None]
    return middles_kd.astype(np.float32)
