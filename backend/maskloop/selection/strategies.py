"""What may decide which image comes next: strategies by name, and one's own."""

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
    "prefer",
    "random",
    "register_strategy",
    "uncertainty",
]

Strategy: TypeAlias = Callable[[Pool, np.random.Generator], Preference]

STRATEGIES: dict[str, Strategy] = {}

RIGHT_ANGLE = 2.0**0.5  # between embeddings of unit length: nothing in common
LEAST_NEWNESS = 0.05  # of an image just like another: among such the model's doubt still counts
MOST_TAKEN = 256  # more than are labelled before there is another version


def register_strategy(name: str, strategy: Strategy) -> Strategy:
    """Give a strategy a name that the setting `strategy` may say, and return it.

    Raises:
        ConfigurationError: the name is taken by another, or has a colon or nothing in it.
    """
    if not name or ":" in name:
        raise ConfigurationError(
            f"strategy {name!r}", expected="a name without a colon", got=repr(name), remedy="rename it"
        )
    if STRATEGIES.setdefault(name, strategy) is not strategy:
        raise ConfigurationError(
            f"strategy {name!r}", expected="a new name", got="one that is taken", remedy="rename it"
        )
    return strategy


def find_strategy(name: str) -> Strategy:
    """Return the strategy of this name, or the function that `module:function` means.

    Raises:
        ConfigurationError: there is no such name, module or function, or it cannot be called.
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
    """Ask a strategy and check what it says.

    Raises:
        ConfigurationError: it fails, or says something else than a score 0..1, and a cluster or none, for
            each image.
    """
    place = f"strategy {getattr(strategy, '__module__', '')}:{getattr(strategy, '__qualname__', strategy)}"
    remedy = "correct the function, or choose another with MASKLOOP_STRATEGY"
    try:
        said = strategy(pool, rng)
    except Exception as exc:
        got = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(place, expected="a Preference", got=got, remedy=remedy) from exc
    if not isinstance(said, Preference):
        raise ConfigurationError(place, expected="a Preference", got=type(said).__name__, remedy=remedy)
    count = len(pool.task_ids)
    score_n = np.asarray(said.score_n)
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
    _check_clusters(said, count, place, remedy)
    return said


def uncertainty(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer what the model is least sure of, whatever it looks like."""
    return Preference(score_n=pool.confidence_n)


def diversity(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer what is farthest from all that has labels or comes before it.

    Source:
        k-centre greedy: Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
        Approach", ICLR 2018, algorithm 1.
    """
    return Preference(score_n=1.0 - _worth(pool, np.ones(len(pool.task_ids))))


def hybrid(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer what the model is unsure of and that is far from all that has labels or comes before it.

    An image is worth its doubt times its distance, so that of many alike ones that are hard, one comes soon.

    Source:
        The distance as in `diversity`; weighted by the model's doubt as in Zhdanov, "Diverse mini-batch
        Active Learning", 2019, section 3, which weights k-means by it.
    """
    return Preference(score_n=1.0 - _worth(pool, 1.0 - pool.confidence_n))


def clustered(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer the same as `hybrid`, but in turns: the cluster with the fewest solved tasks first."""
    return Preference(score_n=hybrid(pool, rng).score_n, cluster_n=pool.clustering.cluster_n)


def random(pool: Pool, rng: np.random.Generator) -> Preference:
    """Prefer nothing: every order is as likely."""
    return Preference(score_n=rng.random(len(pool.task_ids)))


def _worth(pool: Pool, weight_n: Floats) -> Floats:
    """Return weight times newness, 0..1, when images are taken greedily, the worthiest first.

    Newness is the distance to the nearest image that has labels or was taken before. To take one can only
    lower what the others are worth, so the worth of those taken descends, and is at least that of the rest.
    """
    distance_n, _ = nearest_labelled(pool.embedding_nd, pool.labelled_md)
    worth_n = weight_n * _newness(distance_n)
    taken_n = np.full(len(worth_n), -1.0)
    for _ in range(min(MOST_TAKEN, len(worth_n))):
        best = int(worth_n.argmax())
        taken_n[best] = worth_n[best]
        square_n = np.maximum(2.0 - 2.0 * (pool.embedding_nd @ pool.embedding_nd[best]), 0.0)
        worth_n = np.minimum(worth_n, weight_n * _newness(np.sqrt(square_n)))
        worth_n[best] = -1.0
    return np.where(taken_n >= 0.0, taken_n, worth_n).clip(0.0, 1.0)


def _newness(distance_n: NDArray[np.floating]) -> Floats:
    near_n = np.minimum(distance_n.astype(np.float64) / RIGHT_ANGLE, 1.0)
    return LEAST_NEWNESS + (1.0 - LEAST_NEWNESS) * near_n


def _check_clusters(said: Preference, count: int, place: str, remedy: str) -> None:
    if said.cluster_n is None:
        return
    cluster_n = np.asarray(said.cluster_n)
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
    ("random", random),
    ("uncertainty", uncertainty),
):
    register_strategy(_name, _strategy)
