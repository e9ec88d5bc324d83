"""From what a version thinks of each task to the score and cluster that Label Studio orders by."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskloop.log import log_action
from maskloop.store.scores import Arranged, Thought
from maskloop_studio.projects.task_order import told_cluster, told_scores

if TYPE_CHECKING:
    from maskloop.selection.pool import Clustering
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["arrange_scored"]

logger = logging.getLogger(__name__)
FEW = 0.2  # of the tasks arranged before: so many new ones take the nearest cluster, and the rest stays


def arrange_scored(project_id: int, champion: ModelVersion, services: Services) -> None:
    """Give each task scored by a version its score and cluster.

    The first time, and when the pool has grown by more than a fifth since, all are clustered and arranged;
    clusters keep their numbers from the version before. In between, new tasks take the nearest cluster and
    their place in the order, and nothing is changed for the others.

    Args:
        project_id: Label Studio's number.
        champion: the version.
        services: what to work with.

    Raises:
        ConfigurationError: the strategy of the settings says something that cannot be used.
    """
    tag = champion.tag
    if not services.store.scores.has_unarranged(project_id, tag):
        return  # most prelabellings find nothing new: no embedding is read for that

    from maskloop.selection.arrangement import arrange
    from maskloop.selection.pool import Pool
    from maskloop.selection.strategies import find_strategy

    labelled_ids = set(services.store.annotations.labelled_tasks(project_id))
    thoughts = list(services.store.scores.thoughts(project_id, tag))
    labelled = [one for one in thoughts if one.labelled or one.task_id in labelled_ids]
    pool = [one for one in thoughts if not (one.labelled or one.task_id in labelled_ids)]
    new = sum(one.score is None for one in pool)
    if not new:
        return
    few = new <= FEW * (len(pool) - new)
    embedding_nd, labelled_md = _embeddings(pool, labelled)
    clustering = (
        _extended(pool, labelled, embedding_nd, labelled_md)
        if few
        else _clustered(project_id, tag, pool, labelled, embedding_nd, labelled_md, services)
    )
    settings = services.settings
    arrangement = arrange(
        Pool(
            task_ids=tuple(one.task_id for one in pool),
            confidence_n=np.array([one.confidence for one in pool], dtype=np.float64),
            embedding_nd=embedding_nd,
            labelled_md=labelled_md,
            clustering=clustering,
        ),
        find_strategy(settings.strategy),
        random_share=settings.random_share,
        seed=settings.seed,
    )
    told_n = told_scores(arrangement)
    services.store.scores.arrange(
        project_id,
        tag,
        [
            Arranged(
                task_id=one.task_id,
                score=float(told_n[row]),
                cluster=int(clustering.cluster_n[row]),
                queue=told_cluster(int(arrangement.cluster_n[row]), champion.number),
                at_random=bool(arrangement.at_random_n[row]),
            )
            for row, one in enumerate(pool)
            if one.score is None or not few
        ],
    )
    log_action(
        logger, "tasks_arranged", project_id=project_id, model_version=tag, tasks=len(pool), new=new, few=few
    )


def _embeddings(
    pool: Sequence[Thought], labelled: Sequence[Thought]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (N, D) and (M, D), of unit length again after float16; zeros where there is none."""
    size = next((len(one.embedding_d) for one in (*pool, *labelled) if one.embedding_d is not None), 1)

    def stacked(thoughts: Sequence[Thought]) -> NDArray[np.float32]:
        rows_nd = np.zeros((len(thoughts), size), dtype=np.float32)
        for row, one in enumerate(thoughts):
            if one.embedding_d is not None:
                rows_nd[row] = one.embedding_d
        rows_nd /= np.maximum(np.linalg.norm(rows_nd, axis=1, keepdims=True), 1e-6)
        return rows_nd

    return stacked(pool), stacked([one for one in labelled if one.embedding_d is not None])


def _clustered(
    project_id: int,
    tag: str,
    pool: Sequence[Thought],
    labelled: Sequence[Thought],
    embedding_nd: NDArray[np.float32],
    labelled_md: NDArray[np.float32],
    services: Services,
) -> Clustering:
    from maskloop.selection.clusters import cluster_pool

    return cluster_pool(
        embedding_nd,
        task_ids=[one.task_id for one in pool],
        previous=_numbers_before(project_id, tag, [*pool, *labelled], services),
        labelled_md=labelled_md,
        labelled_ids=[one.task_id for one in labelled if one.embedding_d is not None],
        clusters=services.settings.clusters,
        seed=services.settings.seed,
    )


def _numbers_before(
    project_id: int, tag: str, thoughts: Sequence[Thought], services: Services
) -> dict[int, int] | None:
    """Return task -> cluster, as this version was arranged before, else as the one pushed before it was."""
    own = {one.task_id: one.cluster for one in thoughts if one.cluster is not None}
    if own:
        return own
    scores = services.store.scores
    stored = scores.versions(project_id)
    for version in services.store.pushes.versions(project_id):
        if version != tag and version in stored:
            before = scores.thoughts(project_id, version)
            return {one.task_id: one.cluster for one in before if one.cluster is not None} or None
    return None


def _extended(
    pool: Sequence[Thought],
    labelled: Sequence[Thought],
    embedding_nd: NDArray[np.float32],
    labelled_md: NDArray[np.float32],
) -> Clustering:
    """Return the clusters as they are, with new tasks in the nearest."""
    from maskloop.selection.clusters import assign
    from maskloop.selection.pool import Clustering

    cluster_n = np.array([-1 if one.cluster is None else one.cluster for one in pool], dtype=np.int64)
    cluster_m = np.array(
        [-1 if one.cluster is None else one.cluster for one in labelled if one.embedding_d is not None],
        dtype=np.int64,
    )
    centres_kd = _middles(np.concatenate([embedding_nd, labelled_md]), np.concatenate([cluster_n, cluster_m]))
    fresh_n = cluster_n < 0
    cluster_n[fresh_n] = assign(embedding_nd[fresh_n], Clustering(cluster_n=cluster_n, centres_kd=centres_kd))
    return Clustering(cluster_n=cluster_n, centres_kd=centres_kd)


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
