"""Rounds of labelling: learn, let a strategy order the rest, take the next as Label Studio serves them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskloop.selection.arrangement import arrange, serve_order
from maskloop.selection.clusters import cluster_pool
from maskloop.selection.familiarity import doubt_empty
from maskloop.selection.pool import Embeddings, Floats, Pool
from maskloop.selection.strategies import find_strategy

__all__ = ["Budget", "Learner", "Learnt", "Point", "PoolScores", "run_cell", "starting_set"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many images are labelled when."""

    start: int  # drawn by chance before the first model
    per_round: int
    rounds: int  # of choosing, after the start
    random_share: float = 0.0  # of the pool, drawn by chance, with any strategy
    clusters: int | None = None  # groups of alike images; None: by the size of the pool

    def __post_init__(self) -> None:
        if min(self.start, self.per_round, self.rounds) < 1 or not 0 <= self.random_share <= 1:
            raise ValueError(f"Budget: expected at least one image and round and a share in 0..1, got {self}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolScores:
    """What a model makes of the whole pool, labelled images included."""

    confidence_n: Floats  # (N,) 0..1
    found_n: NDArray[np.int64]  # (N,) objects that it finds
    embedding_nd: Embeddings  # (N, D) of unit length
    edits_ne: (
        NDArray[np.int64] | None
    )  # (N, 5) that make the truth of it, as in `weighted_edits`; or not known


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """What became of one training."""

    key: str  # names it
    quality: Mapping[str, float]  # on the holdout
    scores: PoolScores | None  # None where the pool was not scored


class Learner(Protocol):
    """Trains, evaluates and scores the pool; `models.ModelLearner` does so with a real model."""

    def learn(self, images: Sequence[int], *, seed: int, previous: Learnt | None, score_pool: bool) -> Learnt:
        """Return the quality of a model that learns from these images of the pool.

        Args:
            images: their places in the pool, in the order they were labelled.
            seed: of the training.
            previous: what was learnt before the newest of them were labelled.
            score_pool: whether the pool is scored.
        """


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a curve."""

    labels: int  # labelled images
    objects: int  # on them
    quality: Mapping[str, float]
    chosen: tuple[int, ...]  # the images that were labelled last
    edits: tuple[int, ...] | None = None  # on all of them: relabel, nudge, redraw, delete, add; or not known


def starting_set(pool: int, start: int, seed: int) -> tuple[int, ...]:
    """Return the images that have labels before anything is chosen: of a seed always the same."""
    return tuple(int(index) for index in np.random.default_rng([seed, 0]).permutation(pool)[:start])


def run_cell(
    learner: Learner,
    objects_n: Sequence[int],
    *,
    strategy: str,
    budget: Budget,
    seed: int,
    on_point: Callable[[Point], None] = lambda _: None,
) -> tuple[Point, ...]:
    """Return the curve of one strategy with one seed, from the starting set on.

    Args:
        learner: holds the images.
        objects_n: how many objects are on each image of the pool.
        strategy: a name of `selection.strategies` or "module:function".
        budget: how many images are labelled when; a pool that runs out ends the rounds.
        seed: of starting set, training, clusters and chance.
        on_point: called with each point.

    Raises:
        ConfigurationError: an unknown strategy.
    """
    find_strategy(strategy)
    labelled = list(starting_set(len(objects_n), budget.start, seed))
    history = _History(len(objects_n))
    chosen: tuple[int, ...] = tuple(labelled)
    # Nothing was predicted for the first images: each object is drawn.
    edits: tuple[int, ...] | None = (0, 0, 0, 0, sum(objects_n[index] for index in labelled))
    learnt: Learnt | None = None
    points: list[Point] = []
    for number in range(budget.rounds + 1):
        last = number == budget.rounds or len(labelled) == len(objects_n)
        learnt = learner.learn(labelled, seed=seed, previous=learnt, score_pool=not last)
        points.append(
            Point(
                labels=len(labelled),
                objects=sum(objects_n[index] for index in labelled),
                quality=learnt.quality,
                chosen=chosen,
                edits=edits,
            )
        )
        on_point(points[-1])
        if last or learnt.scores is None:
            break
        chosen = history.choose(learnt.scores, labelled, strategy=strategy, budget=budget, seed=seed)
        labelled.extend(chosen)
        edits = _more_edits(edits, learnt.scores, chosen)
    return tuple(points)


def _more_edits(
    edits: tuple[int, ...] | None, scores: PoolScores, chosen: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the edits so far and those that turn the model's predictions for these images into the truth."""
    if edits is None or scores.edits_ne is None:
        return None
    added_e = scores.edits_ne[list(chosen)].sum(axis=0)
    return tuple(int(count) for count in added_e + np.asarray(edits))


class _History:
    """What a project remembers of the clusters that images were in."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._newest: dict[int, int] = {}

    def choose(
        self, scores: PoolScores, labelled: Sequence[int], *, strategy: str, budget: Budget, seed: int
    ) -> tuple[int, ...]:
        """Return the images that are labelled next, in the order that they are served."""
        waiting = np.setdiff1d(np.arange(self._images), labelled)
        ids = tuple(int(index) for index in waiting)
        clustering = cluster_pool(
            scores.embedding_nd[waiting],
            task_ids=ids,
            previous=self._newest or None,
            labelled_md=scores.embedding_nd[list(labelled)],
            labelled_ids=labelled,
            clusters=budget.clusters,
            seed=seed,
        )
        self._newest.update(zip(ids, clustering.cluster_n.tolist(), strict=True))
        found_n, embedding_nd = scores.found_n[waiting], scores.embedding_nd[waiting]
        labelled_md = scores.embedding_nd[list(labelled)]
        pool = Pool(
            task_ids=ids,
            confidence_n=doubt_empty(scores.confidence_n[waiting], found_n == 0, embedding_nd, labelled_md),
            found_n=found_n,
            embedding_nd=embedding_nd,
            labelled_md=labelled_md,
            clustering=clustering,
        )
        arrangement = arrange(pool, find_strategy(strategy), random_share=budget.random_share, seed=seed)
        # Each version tells Label Studio other numbers, so it counts what was solved from nothing.
        served = itertools.islice(serve_order(arrangement), budget.per_round)
        return tuple(ids[place] for place in served)
