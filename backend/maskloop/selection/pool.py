"""The values of selection: the pool of unlabelled images, a strategy's preference, and the final order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrangement", "Clustering", "Pool", "Preference"]

Floats: TypeAlias = NDArray[np.float64]
Embeddings: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clustering:
    """Clusters of similar images."""

    cluster_n: NDArray[np.int64]  # (N,) cluster number of each image of the pool, 0..K-1; some may be unused
    centres_kd: Embeddings  # (K, D) mean of each cluster; NaN for an unused number


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The unlabelled images, and the embeddings of the labelled ones."""

    task_ids: tuple[int, ...]  # Label Studio's numbers of N tasks, ascending
    confidence_n: Floats  # (N,) confidence of the model, 0..1
    found_n: NDArray[np.int64]  # (N,) how many objects the model finds, from 0
    embedding_nd: Embeddings  # (N, D) of unit length
    labelled_md: Embeddings  # (M, D) of unit length; M may be 0
    clustering: Clustering

    def __post_init__(self) -> None:
        count, size = len(self.task_ids), self.embedding_nd.shape[-1]
        one_each = (self.confidence_n.shape, self.found_n.shape, self.clustering.cluster_n.shape)
        shapes = (*one_each, self.embedding_nd.shape)
        if shapes != ((count,),) * 3 + ((count, size),) or self.labelled_md.shape[1:] != (size,):
            raise ValueError(
                f"Pool: expected {count} confidences, counts, clusters and embeddings, got {shapes}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Preference:
    """A strategy's result: the lowest score first, among clusters the one with the fewest labels first."""

    score_n: Floats  # (N,) 0..1
    cluster_n: NDArray[np.int64] | None = None  # (N,); None: without clusters


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangement:
    """The score and cluster of each image of the pool, by which Label Studio orders its tasks."""

    score_n: Floats  # (N,) 0..1, the lowest first
    cluster_n: NDArray[np.int64]  # (N,) the cluster with the fewest solved tasks first
    at_random_n: NDArray[np.bool_]  # (N,) drawn at random, to measure the gain of the strategy
