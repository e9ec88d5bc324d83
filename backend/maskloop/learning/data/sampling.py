"""In which order examples are shown: old ones are replayed, new and rare ones come more often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["example_weights", "round_order"]

FRESH_FACTOR = 2.0  # of what no model has learnt yet
COMMON_SHARE = 0.2  # a class on fewer images than this is shown more often
MOST_REPEATS = 4.0


def example_weights(labels_of_images: Sequence[frozenset[str]], fresh: Sequence[bool]) -> NDArray[np.float64]:
    """Return how often each image is to be shown, relative to the others.

    The repeat factor of an image is that of its rarest class, max(1, sqrt(share wanted / share had)); images
    that no model has learnt yet count double, unless all are such.

    Args:
        labels_of_images: the classes on each image; none on an empty one.
        fresh: which images are new.

    Source:
        Gupta et al., "LVIS", CVPR 2019, appendix: repeat factor sampling.
    """
    images = Counter(label for labels in labels_of_images for label in labels)
    wanted = COMMON_SHARE * len(labels_of_images)
    repeats = {label: min(max(1.0, math.sqrt(wanted / had)), MOST_REPEATS) for label, had in images.items()}
    rarity = [max((repeats[label] for label in labels), default=1.0) for labels in labels_of_images]
    return np.asarray(np.asarray(rarity) * np.where(fresh, FRESH_FACTOR, 1.0), dtype=np.float64)


def round_order(weights: NDArray[np.float64], seed: int, number: int) -> NDArray[np.int64]:
    """Return which images a round shows: as many as there are, each about as often as it weighs.

    How often an image comes differs from its fair share by less than one, and equal weights give each once.

    Args:
        weights: (N,), positive.
        seed: with the number of the round, decides all.
        number: of the round.
    """
    rng = np.random.default_rng([seed, 0, number])
    order = rng.permutation(len(weights))
    shares = weights[order] * (len(weights) / weights.sum())
    # Systematic sampling: one random offset for all; 1e-9 keeps sums that should be whole from falling short
    bounds = np.floor(np.cumsum(shares) + rng.uniform(0.25, 0.75) + 1e-9).astype(np.int64)
    counts = np.diff(bounds, prepend=0)
    shown = np.repeat(order, counts)[: len(weights)]
    return np.asarray(rng.permutation(shown), dtype=np.int64)
