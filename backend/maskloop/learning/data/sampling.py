"""The order of examples in an epoch: fresh ones and those with rare classes may come more often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_order", "example_weights", "with_guesses"]

FRESH_FACTOR = 2.0  # weight of an example that the champion has not learnt from
COMMON_SHARE = 0.2  # images with a class on a smaller share of images than this come more often
MAX_REPEATS = 4.0


def example_weights(labels_of_images: Sequence[frozenset[str]], fresh: Sequence[bool]) -> NDArray[np.float64]:
    """Return float64 (N,): how often each image comes, relative to the others.

    The repeat factor of an image is that of its rarest class, max(1, sqrt(0.2 / share of images with it)), at
    most 4; fresh images have twice the weight.

    Args:
        labels_of_images: the classes on each image; empty for an image without objects.
        fresh: which images the champion has not learnt from.

    Source:
        Gupta et al., "LVIS", CVPR 2019, appendix: repeat factor sampling.
    """
    images = Counter(label for labels in labels_of_images for label in labels)
    common = COMMON_SHARE * len(labels_of_images)
    repeats = {
        label: min(max(1.0, math.sqrt(common / count)), MAX_REPEATS) for label, count in images.items()
    }
    rarity = [max((repeats[label] for label in labels), default=1.0) for labels in labels_of_images]
    return np.asarray(np.asarray(rarity) * np.where(fresh, FRESH_FACTOR, 1.0), dtype=np.float64)


def with_guesses(weights: NDArray[np.float64], guessed: Sequence[bool]) -> NDArray[np.float64]:
    """Return float64 (N,): the weights, with images that a model labelled as half of all views at the most.

    Each of them comes as often as the others, and none more often than an annotated image does on average.

    Args:
        weights: (N,), positive, as if all images were annotated.
        guessed: which images a model labelled, no person.
    """
    guessed_n = np.asarray(guessed, dtype=bool)
    if not guessed_n.any() or guessed_n.all():
        return weights
    drawn = weights[~guessed_n]
    return np.where(guessed_n, min(drawn.sum() / guessed_n.sum(), drawn.mean()), weights)


def epoch_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return int64 (N,): the images of an epoch, each in proportion to its weight.

    The count of an image differs from its exact share by less than one; equal weights give each image once.

    Args:
        weights: (N,), positive.
        seed: seed of the training; seed and epoch determine the order.
        epoch: number of the epoch.
    """
    rng = np.random.default_rng([seed, 0, epoch])
    order = rng.permutation(len(weights))
    shares = weights[order] * (len(weights) / weights.sum())
    # Systematic sampling with one random offset; 1e-9 is for sums that rounding leaves just below an integer
    bounds = np.floor(np.cumsum(shares) + rng.uniform(0.25, 0.75) + 1e-9).astype(np.int64)
    counts = np.diff(bounds, prepend=0)
    chosen = np.repeat(order, counts)[: len(weights)]
    return np.asarray(rng.permutation(chosen), dtype=np.int64)
