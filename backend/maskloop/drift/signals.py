"""What is watched of images: how far they are from those learnt, and which of the strange ones to label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.types import EditCounts

__all__ = ["choose_to_label", "correction_share", "learnt_distances"]

SHRINKAGE = 0.2


def learnt_distances(learnt_md: NDArray[np.float32], others_nd: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distance of each image from those that were learnt from, float64 (N,): Mahalanobis's.

    By the mean and the covariance of the learnt ones, drawn a fifth of the way towards one variance for all
    directions, so that few images of many numbers have an inverse.

    Args:
        learnt_md: (M, D), what is known of the learnt images, M at least 2.
        others_nd: (N, D), the same of others.

    Source:
        Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018;
        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    learnt_md = np.asarray(learnt_md, dtype=np.float64)
    centre_d = learnt_md.mean(axis=0)
    spread_d = np.maximum(learnt_md.std(axis=0), 1e-6)  # numbers of different units weigh alike
    scaled_md, scaled_nd = (learnt_md - centre_d) / spread_d, (others_nd - centre_d) / spread_d
    covariance_dd = np.cov(scaled_md, rowvar=False).reshape(len(spread_d), len(spread_d))
    level = max(float(np.trace(covariance_dd)) / len(spread_d), 1e-6)
    inverse_dd = np.linalg.inv((1 - SHRINKAGE) * covariance_dd + SHRINKAGE * level * np.eye(len(spread_d)))
    squared_n: NDArray[np.float64] = np.einsum("nd,de,ne->n", scaled_nd, inverse_dd, scaled_nd)
    return squared_n


def correction_share(edits: EditCounts) -> float:
    """Return the share of an image's regions that had to be corrected, 0..1; 0 where it has none."""
    touched = edits.changed + edits.removed + edits.added
    total = edits.kept + touched
    return touched / total if total else 0.0


def choose_to_label(
    strange: Sequence[int], embeddings_nd: NDArray[np.float32] | None, *, count: int
) -> tuple[int, ...]:
    """Return the places of the images to label: the strangest, then those farthest from the chosen ones.

    Args:
        strange: places of strange images, the strangest first.
        embeddings_nd: (N, D) of all images; None: the strangest are taken.
        count: how many at the most.

    Source:
        Farthest-first traversal: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    if embeddings_nd is None or len(strange) <= count:
        return tuple(strange[:count])
    unit_sd = _unit(embeddings_nd[list(strange)])
    chosen = [0]
    away_s = 1.0 - unit_sd @ unit_sd[0]
    while len(chosen) < count:
        farthest = int(np.argmax(away_s))
        chosen.append(farthest)
        away_s = np.minimum(away_s, 1.0 - unit_sd @ unit_sd[farthest])
    return tuple(strange[place] for place in chosen)


def _unit(values_nd: NDArray[np.float32]) -> NDArray[np.float32]:
    values_nd = np.asarray(values_nd, dtype=np.float32)
    lengths_n = np.linalg.norm(values_nd, axis=-1, keepdims=True)
    unit_nd: NDArray[np.float32] = values_nd / np.maximum(lengths_n, np.finfo(np.float32).tiny)
    return unit_nd
