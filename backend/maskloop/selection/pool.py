"""The values that choosing works on: the images that may be asked about, and the order they are asked in."""

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
    """Groups of alike images."""

    cluster_n: NDArray[np.int64]  # (N,) the group of each image of the pool, below K; a group may be empty
    centres_kd: Embeddings  # (K, D) the middle of each group; NaN for a number without one


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What is known of the images without labels, and of those with."""

    task_ids: tuple[int, ...]  # N numbers, ascending
    confidence_n: Floats  # (N,) 0..1: how sure the model is; the lowest has the most to correct
    embedding_nd: Embeddings  # (N, D) of unit length
    labelled_md: Embeddings  # (M, D) of unit length: of the images that have labels; M may be 0
    clustering: Clustering

    def __post_init__(self) -> None:
        count, size = len(self.task_ids), self.embedding_nd.shape[-1]
        found = (self.confidence_n.shape, self.embedding_nd.shape, self.clustering.cluster_n.shape)
        if found != ((count,), (count, size), (count,)) or self.labelled_md.shape[1:] != (size,):
            raise ValueError(f"Pool: expected {count} confidences, embeddings and clusters, got {found}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Preference:
    """What a strategy says: within a cluster the lowest score first, of the clusters the least labelled."""

    score_n: Floats  # (N,) 0..1
    cluster_n: NDArray[np.int64] | None = None  # (N,); None: clusters do not matter


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangement:
    """What is told to Label Studio of each image of the pool, which orders by it."""

    score_n: Floats  # (N,) 0..1, the lowest first
    cluster_n: NDArray[np.int64]  # (N,) the cluster with the fewest solved tasks first
    at_random_n: NDArray[np.bool_]  # (N,) drawn by chance, to measure what choosing is worth
