"""From a strategy's preference to the score and cluster that Label Studio orders by, with a random share.

Label Studio serves from the cluster with the fewest solved tasks the one with the lowest score
(`_try_uncertainty_sampling` in its projects/functions/next_task.py).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskloop.selection.pool import Arrangement, Floats, Pool, Preference
from maskloop.selection.strategies import Strategy, prefer

__all__ = ["arrange", "chance", "drawn_at_random", "overall_rank", "serve_order"]

Ints = NDArray[np.int64]

# Purposes of a task's random numbers
DRAWN, TURN, COIN = 1, 2, 3
SCORE_STEP = 1e-9
MASK_64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def drawn_at_random(task_ids: Sequence[int], *, random_share: float, seed: int) -> NDArray[np.bool_]:
    """Return bool (N,): which tasks are random ones; each with this probability, the same in every call."""
    return chance(seed, task_ids, DRAWN) < random_share


def arrange(pool: Pool, strategy: Strategy, *, random_share: float, seed: int) -> Arrangement:
    """Order the pool by a strategy, with a share of random tasks among the chosen ones.

    Every task is either random or chosen; a hash of its number decides, so this never changes. The random
    tasks are a uniform sample of the pool: the strategy has no influence on which they are or when they come.
    They are placed at random positions in the queues of all clusters, independent of their image's cluster.
    So the cluster of a random task in Label Studio is only the queue that it waits in: Label Studio serves
    small clusters as often as large ones, and a sample drawn within each would over-represent the small ones.

    Each position of a queue gets a random task with the share of random tasks among the remaining ones,
    independently of the other positions. So at any time, and however often the pool is arranged again, the
    next task is a random one with the same probability, and a task that was passed over comes later.

    Args:
        pool: the unlabelled images.
        strategy: a function of `maskloop.selection.strategies`, or a user's own.
        random_share: share of random tasks, 0..1.
        seed: determines all random numbers.

    Returns:
        Scores that are all different. A chosen task has the strategy's score, a random task slightly less
        than the chosen task that follows it.

    Raises:
        ConfigurationError: the strategy's result is not valid.
    """
    preference = prefer(strategy, pool, np.random.default_rng(seed))
    ids_n = np.asarray(pool.task_ids, dtype=np.int64)
    at_random_n = drawn_at_random(pool.task_ids, random_share=random_share, seed=seed)
    turn_n = chance(seed, ids_n, TURN)
    cluster_n, rank_n, target_n = _merge(preference, ids_n, at_random_n, turn_n, seed)
    return Arrangement(
        score_n=_strict_scores(target_n, rank_n, turn_n), cluster_n=cluster_n, at_random_n=at_random_n
    )


def serve_order(arrangement: Arrangement, solved_clusters: Mapping[int, int] | None = None) -> Iterator[int]:
    """Yield rows of the pool in the order in which Label Studio serves them to an annotator who solves each.

    Args:
        arrangement: arrangement of the pool.
        solved_clusters: cluster -> number of its tasks that this annotator has solved before.
    """
    solved = Counter(dict(solved_clusters or {}))
    order_n = np.lexsort((arrangement.score_n, arrangement.cluster_n))
    cluster_n, score_n = arrangement.cluster_n[order_n], arrangement.score_n[order_n]
    starts = np.flatnonzero(np.diff(cluster_n, prepend=-1)).tolist()
    ends = [*starts[1:], len(order_n)][: len(starts)]
    heads = [
        (solved[int(cluster_n[start])], float(score_n[start]), start, end)
        for start, end in zip(starts, ends, strict=True)
    ]
    heapq.heapify(heads)
    while heads:
        count, _, at, end = heads[0]
        yield int(order_n[at])
        if at + 1 < end:
            heapq.heapreplace(heads, (count + 1, float(score_n[at + 1]), at + 1, end))
        else:
            heapq.heappop(heads)


def overall_rank(arrangement: Arrangement, solved_clusters: Mapping[int, int] | None = None) -> Ints:
    """Return each task's position, from 0, if one annotator were served all tasks."""
    order_n = np.fromiter(serve_order(arrangement, solved_clusters), dtype=np.int64)
    rank_n = np.empty_like(order_n)
    rank_n[order_n] = np.arange(len(order_n))
    return rank_n


def _merge(
    preference: Preference, ids_n: Ints, at_random_n: NDArray[np.bool_], turn_n: Floats, seed: int
) -> tuple[Ints, Ints, Floats]:
    """Place the random tasks among the chosen ones.

    Returns:
        cluster_n: cluster whose queue the task waits in.
        rank_n: ascending within a queue; neighbouring random tasks share a rank.
        target_n: score; of a random task that of the chosen task that follows it.
    """
    count = len(ids_n)
    cluster_n = np.zeros(count, dtype=np.int64)
    if preference.cluster_n is not None:
        cluster_n[:] = preference.cluster_n
    score_n = np.asarray(preference.score_n, dtype=np.float64)
    drawn_m = np.flatnonzero(at_random_n)[np.argsort(turn_n[at_random_n], kind="stable")]
    chosen_c = np.flatnonzero(~at_random_n)
    chosen_c = chosen_c[np.lexsort((turn_n[chosen_c], score_n[chosen_c], cluster_n[chosen_c]))]
    if not len(chosen_c):
        return np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64), turn_n
    before_m = _positions(cluster_n[chosen_c], ids_n[chosen_c], len(drawn_m), seed)
    rank_n, target_n = np.empty(count, dtype=np.int64), score_n.copy()
    rank_n[chosen_c] = 2 * np.arange(len(chosen_c)) + 1
    dealt = drawn_m[: len(before_m)]
    rank_n[dealt] = 2 * before_m
    target_n[dealt], cluster_n[dealt] = score_n[chosen_c[before_m]], cluster_n[chosen_c[before_m]]
    # The remaining random tasks come last, spread over the queues in proportion to their lengths.
    late = drawn_m[len(before_m) :]
    ends = np.linspace(0, len(chosen_c) - 1, len(late) + 2)[1:-1].round().astype(np.int64)
    rank_n[late], cluster_n[late] = 2 * len(chosen_c), cluster_n[chosen_c[ends]]
    target_n[late] = 1.0
    return cluster_n, rank_n, target_n


def _positions(cluster_c: Ints, ids_c: Ints, drawn: int, seed: int) -> Ints:
    """Return the chosen task, in the order of the queues, that follows each random one, earliest first.

    The number of random tasks before a chosen task has a geometric distribution. Its random number depends on
    the chosen task and on the number of random tasks left, so that it changes once a random task was served.
    """
    if not drawn:
        return np.empty(0, dtype=np.int64)
    heads = drawn / (drawn + len(ids_c))
    u_c = chance(seed, ids_c, COIN, drawn)
    throws_c = np.floor(np.log1p(-u_c) / np.log(heads)).clip(max=drawn).astype(np.int64)
    before_m = np.repeat(np.arange(len(ids_c)), throws_c)
    starts = np.flatnonzero(np.diff(cluster_c, prepend=-1))
    start_c = np.repeat(starts, np.diff(starts, append=len(cluster_c)))
    # The position in the queue: chosen tasks and random tasks ahead of it.
    ahead_m = np.arange(len(before_m)) - (np.cumsum(throws_c) - throws_c)[start_c[before_m]]
    depth_m = before_m - start_c[before_m] + ahead_m
    by_queue_m = chance(seed, cluster_c[before_m], COIN)
    soonest_m: Ints = before_m[np.lexsort((by_queue_m, depth_m))]
    return soonest_m[:drawn]


def _strict_scores(target_n: Floats, rank_n: Ints, turn_n: Floats) -> Floats:
    """Return scores close to the targets, 0..1, all different, ascending with the rank within a cluster."""
    order_n = np.lexsort((turn_n, rank_n, target_n))
    near_n, steps_n = target_n[order_n], np.arange(len(order_n)) * SCORE_STEP
    # From the top down, so that a chosen task keeps its score and the tasks before it get lower ones.
    strict_n = np.minimum.accumulate((near_n - steps_n)[::-1])[::-1] + steps_n
    strict_n = np.maximum(np.where(near_n - strict_n < SCORE_STEP / 2, near_n, strict_n), steps_n)
    score_n = np.empty(len(order_n))
    score_n[order_n] = strict_n
    return score_n


def chance(seed: int, numbers_n: ArrayLike, *purpose: int) -> NDArray[np.float64]:
    """Return one random number 0 <= u < 1 for each number; those of two purposes are independent.

    Source:
        SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014,
        figure 16.
    """
    state_n = np.asarray(numbers_n, dtype=np.int64).astype(np.uint64) * np.uint64(GOLDEN)
    for word in (seed, *purpose):
        state_n = _mix(state_n ^ _mix(np.array([word & MASK_64], dtype=np.uint64)))
    return (state_n >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(state_n: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state_n = state_n + np.uint64(GOLDEN)
    state_n = (state_n ^ (state_n >> np.uint64(30))) * np.uint64(FACTORS[0])
    state_n = (state_n ^ (state_n >> np.uint64(27))) * np.uint64(FACTORS[1])
    return state_n ^ (state_n >> np.uint64(31))
