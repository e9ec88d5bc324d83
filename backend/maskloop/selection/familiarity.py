"""An image on which nothing is found is sure to be empty only for a model that knows such images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskloop.selection.clusters import nearest_labelled
from maskloop.selection.pool import Embeddings, Floats

__all__ = ["EMPTY_CONFIDENCE", "doubt_empty"]

EMPTY_CONFIDENCE = 0.5  # the most, where nothing is known of images like it: it may be empty or not
MIN_LABELLED = 2  # fewer have no distance from each other
MAX_LABELLED = 1000  # whose distances from each other are computed


def doubt_empty(
    confidence_n: Floats,
    is_empty_n: NDArray[np.bool_],
    embedding_nd: Embeddings,
    labelled_md: Embeddings,
) -> Floats:
    """Return the confidences, lower where nothing was found on an image unlike the labelled ones.

    Such a confidence is multiplied by the usual distance of a labelled image from the nearest other one, over
    the image's distance from the nearest labelled one, at most 1: the model has learnt from images like it as
    much as these are like each other. With fewer than two labelled images it is halved.

    Args:
        confidence_n: (N,) 0..1.
        is_empty_n: (N,) whether the model finds nothing.
        embedding_nd: (N, D) of unit length.
        labelled_md: (M, D) of unit length; M may be 0.

    Source:
        After the nearest-neighbour description of Tax, "One-class classification", 2001, with the median
        distance in place of that of the one neighbour.
    """
    doubted_n = confidence_n.copy()
    if not is_empty_n.any():
        return doubted_n
    if len(labelled_md) < MIN_LABELLED:
        doubted_n[is_empty_n] = doubted_n[is_empty_n] * EMPTY_CONFIDENCE
        return doubted_n
    distance_e, _ = nearest_labelled(embedding_nd[is_empty_n], labelled_md)
    usual = float(np.median(_distances_to_others(labelled_md[:MAX_LABELLED])))
    share_e = np.divide(usual, distance_e, out=np.ones_like(distance_e), where=distance_e > usual)
    doubted_n[is_empty_n] *= share_e
    return doubted_n


def _distances_to_others(labelled_md: Embeddings) -> Floats:
    """Return the distance of each labelled image from the nearest other one, float64 (M,)."""
    cosine_mm = np.clip(labelled_md.astype(np.float64) @ labelled_md.astype(np.float64).T, -1.0, 1.0)
    np.fill_diagonal(cosine_mm, -np.inf)
    nearest_m: Floats = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosine_mm.max(axis=1)))
    return nearest_m
