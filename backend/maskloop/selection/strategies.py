"""Selection strategies by name, and strategies that a user registers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import ConfigurationError
from maskloop.selection.clusters import nearest_labelled
from maskloop.selection.pool import Floats, Pool, Preference

__all__ = [
    "STRATEGIES",
    "Strategy",
    "clustered",
    "diversity",
    "find_strategy",
    "hybrid",
    "most_objects",
    "prefer",
    "random",
    "register_strategy",
    "uncertainty",
]

Strategy: TypeAlias = Callable[[Pool, np.random.Generator], Preference]

STRATEGIES: dict[str, Strategy] = {}

RIGHT_ANGLE = 2.0**0.5  # distance of orthogonal embeddings of unit length
MIN_NOVELTY = 0.05  # of an image equal to another, so that uncertainty still orders such images
MAX_TAKEN = 256  # more images than are labelled between two versions


def register_strategy(name: str, strategy: Strategy) -> Strategy:
    """Register a strategy under a name for the setting `strategy`, and return it.

    Raises:
        ConfigurationError: the name is used by another strategy, is empty or has a colon.
    """
    if not name or ":" in name:
        raise ConfigurationError(
            f"strategy {name!r}", expected="a name without a colon", got=repr(name), remedy="rename it"
        )
    if STRATEGIES.setdefault(name, strategy) is not strategy:
        raise ConfigurationError(
            f"strategy {name!r}", expected="a new name", got="a name in use", remedy="rename it"
        )
    return strategy


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a name, or the function of "module:function".

    Raises:
        ConfigurationError: no such name, module or function, or it is not callable.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    module_name, colon, function_name = name.partition(":")
    place, remedy = f"strategy {name!r}", "correct MASKLOOP_STRATEGY"
    if not colon:
        known = ", ".join(sorted(STRATEGIES))
        raise ConfigurationError(
            place, expected=f"one of {known}, or module:function", got=repr(name), remedy=remedy
        )
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except Exception as exc:
        raise ConfigurationError(
            place,
            expected="a function that can be imported",
            got=f"{type(exc).__name__}: {exc}",
            remedy=f"{remedy}, or put the module on PYTHONPATH",
        ) from exc
    if not callable(found):
        raise ConfigurationError(place, expected="a function", got=type(found).__name__, remedy=remedy)
    return found  # type: ignore[no-any-return]


def prefer(strategy: Strategy, pool: Pool, rng: np.random.Generator) -> Preference:
    """Call a strategy and check its result.

    Raises:
        ConfigurationError: it raises, or its result is not a score 0..1, and a cluster or none, for each
            image.
    """
    place = f"strategy {getattr(strategy, '__module__', '')}:{getattr(strategy, '__qualname__', strategy)}"
    remedy = "correct the function, or choose another with MASKLOOP_STRATEGY"
    try:
        preference = strategy(pool, rng)
    except Exception as exc:
        got = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(place, expected="a Preference", got=got, remedy=remedy) from exc
    if not isinstance(preference, Preference):
        raise ConfigurationError(place, expected="a Preference", got=type(preference).__name__, remedy=remedy)
    count = len(pool.task_ids)
    score_n = np.asarray(preference.score_n)
    if score_n.shape != (count,) or not np.issubdtype(score_n.dtype, np.floating):
        raise ConfigurationError(
            place, expected=f"{count} float scores", got=f"{score_n.dtype} {score_n.shape}", remedy=remedy
        )
    bad_n = ~((score_n >= 0.0) & (score_n <= 1.0))
    if bad_n.any():
        first = int(np.flatnonzero(bad_n)[0])
        raise ConfigurationError(
            place,
            expected="scores 0..1",
            got=f"{score_n[first]} for task {pool.task_ids[first]}",
            remedy=remedy,
        )
    _check_clusters(preference, count, place, remedy)
    return preference


def uncertainty(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer images with the lowest confidence."""
    return Preference(score_n=pool.confidence_n)


def diversity(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer images far from the labelled ones and from those that come earlier in the order.

    Source:
        k-centre greedy: Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
        Approach", ICLR 2018, algorithm 1.
    """
    return Preference(score_n=1.0 - _greedy_gain(pool, np.ones(len(pool.task_ids))))


def hybrid(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer images of low confidence, far from labelled images and from those earlier in the order.

    The gain of an image is its uncertainty times its distance, so that of many similar difficult images one
    comes early.

    Source:
        The distance as in `diversity`, weighted by uncertainty as in Zhdanov, "Diverse mini-batch Active
        Learning", 2019, section 3, where it weights k-means.
    """
    return Preference(score_n=1.0 - _greedy_gain(pool, 1.0 - pool.confidence_n))


def clustered(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer the same as `hybrid` within clusters; the cluster with the fewest solved tasks comes first."""
    return Preference(score_n=hybrid(pool, rng).score_n, cluster_n=pool.clustering.cluster_n)


def most_objects(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer images on which the model finds the most objects; among equal ones chance decides.

    A baseline: at equal numbers of images, much of what choosing seems to gain may be more objects alone.
    """
    fewer_n = 1.0 / (1.0 + pool.found_n.astype(np.float64))
    # A step to the next number of objects is larger than what chance adds.
    step_n = fewer_n - 1.0 / (2.0 + pool.found_n.astype(np.float64))
    return Preference(score_n=fewer_n - step_n * rng.random(len(pool.task_ids)))


def random(pool: Pool, rng: np.random.Generator) -> Preference:
    """Return a random order."""
    return Preference(score_n=rng.random(len(pool.task_ids)))


def _greedy_gain(pool: Pool, weight_n: Floats) -> Floats:
    """Return weight times novelty, 0..1, when images are taken greedily, the highest gain first.

    Novelty is the distance to the nearest image that is labelled or was taken before. Taking one can only
    lower the gain of the others, so the gain of the taken images descends, and is at least that of the rest.
    """
    distance_n, _ = nearest_labelled(pool.embedding_nd, pool.labelled_md)
    gain_n = weight_n * _novelty(distance_n)
    taken_n = np.full(len(gain_n), -1.0)
    for _ in range(min(MAX_TAKEN, len(gain_n))):
        best = int(gain_n.argmax())
        taken_n[best] = gain_n[best]
        square_n = np.maximum(2.0 - 2.0 * (pool.embedding_nd @ pool.embedding_nd[best]), 0.0)
        gain_n = np.minimum(gain_n, weight_n * _novelty(np.sqrt(square_n)))
        gain_n[best] = -1.0
    return np.where(taken_n >= 0.0, taken_n, gain_n).clip(0.0, 1.0)


def _novelty(distance_n: NDArray[np.floating]) -> Floats:
    near_n = np.minimum(distance_n.astype(np.float64) / RIGHT_ANGLE, 1.0)
    return MIN_NOVELTY + (1.0 - MIN_NOVELTY) * near_n


def _check_clusters(preference: Preference, count: int, place: str, remedy: str) -> None:
    if preference.cluster_n is None:
        return
    cluster_n = np.asarray(preference.cluster_n)
    if cluster_n.shape != (count,) or not np.issubdtype(cluster_n.dtype, np.integer):
        raise ConfigurationError(
            place,
            expected=f"{count} whole cluster numbers",
            got=f"{cluster_n.dtype} {cluster_n.shape}",
            remedy=remedy,
        )
    if count and cluster_n.min() < 0:
        raise ConfigurationError(
            place, expected="cluster numbers from 0", got=str(cluster_n.min()), remedy=remedy
        )


for _name, _strategy in (
    ("clustered", clustered),
    ("diversity", diversity),
    ("hybrid", hybrid),
    ("most-objects", most_objects),
    ("random", random),
    ("uncertainty", uncertainty),
):
    register_strategy(_name, _strategy)
