"""Cross-validation of unlabelled images: in each fold a training without them and one with them, both judged.

`pool_verdict` has the rule; `unlabelled_pool` says what is trained and who labels the unlabelled images.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskloop.files import made_once
from maskloop.learning.cross_validation import count_groups, group_of, split_folds
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.evaluation.comparison import compare
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.learning.pool_verdict import FoldScores
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.similarity import ImageHash, hash_distances, perceptual_hash

__all__ = ["PoolFold", "fold_scores", "make_folds", "without_copies"]

logger = logging.getLogger(__name__)
CONFIDENCE = 0.9  # of an interval that nobody reads


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolFold:
    """One fold: what judges both ways to train, and what both learn from."""

    judged: tuple[TrainingExample, ...]
    rest: tuple[TrainingExample, ...]  # without any copy of an image that judges
    folder: Path  # of its trainings; deleted when it has been judged

    def leaves_out(self, example: TrainingExample) -> bool:
        """Return whether an example is one of those that judge, or a copy of one."""
        return group_of(example) in {group_of(one) for one in self.judged}


Train = Callable[[PoolFold, Sequence[TrainingExample], Path], Checkpoint]  # fold, pool, own folder
Label = Callable[[PoolFold, Checkpoint], Sequence[TrainingExample]]  # fold, its model without the pool
Evaluate = Callable[[Sequence[Checkpoint], Sequence[TrainingExample]], Sequence[Evaluation]]


def make_folds(
    examples: Sequence[TrainingExample], judging: Collection[str], folder: Path
) -> tuple[PoolFold, ...]:
    """Return the folds whose images have an object; copies of an image are on one side of each.

    Args:
        examples: annotated images outside the holdout.
        judging: keys of those that may judge; the others are in every training, but for copies.
        folder: of all folds.
    """
    parts = split_folds([one for one in examples if one.key in judging and one.judges])
    folds = [PoolFold(judged=part, rest=(), folder=folder / str(number)) for number, part in enumerate(parts)]
    rests = [tuple(one for one in examples if not fold.leaves_out(one)) for fold in folds]
    return tuple(
        dataclasses.replace(fold, rest=rest)
        for fold, rest in zip(folds, rests, strict=True)
        if rest and any(one.segments for one in fold.judged)
    )


def fold_scores(
    folds: Sequence[PoolFold], *, train: Train, label: Label, evaluate: Evaluate, near_distance: float
) -> tuple[FoldScores, ...]:
    """Return the scores of the folds.

    Killed and called again with the same folds, it keeps the figures of those that are done, and the training
    that ran goes on.

    Args:
        folds: of `make_folds`.
        train: fine-tunes the common start on the fold's other images and a pool; in the folder that it gets
            it finds its last state again.
        label: returns pseudo-labels of the unlabelled images, by a model that has not learnt from the images
            that judge.
        evaluate: returns an evaluation of each model on the same images.
        near_distance: unlabelled images this near to one that judges, 0..1, are left out of its fold, as they
            are for the holdout.

    Raises:
        StoreError: kept figures are damaged.
    """
    found = []
    for number, fold in enumerate(folds):
        scores = made_once(
            fold.folder.with_suffix(".json"),
            functools.partial(
                _judge, fold, train=train, label=label, evaluate=evaluate, near_distance=near_distance
            ),
            lambda values: FoldScores(**values),
            expected="the figures of a fold as maskloop writes them",
        )
        shutil.rmtree(fold.folder, ignore_errors=True)
        log_action(
            logger, "pool_fold_judged", fold=number + 1, folds=len(folds), **dataclasses.asdict(scores)
        )
        found.append(scores)
    return tuple(found)


def without_copies(
    pool: Sequence[TrainingExample], judged: Sequence[TrainingExample], *, near_distance: float
) -> tuple[TrainingExample, ...]:
    """Return the unlabelled images that are nearly the same as none of those that judge."""
    hashes_nb = np.stack([_hash(one) for one in judged])
    return tuple(
        one for one in pool if not bool((hash_distances(_hash(one), hashes_nb) <= near_distance).any())
    )


def _judge(
    fold: PoolFold, *, train: Train, label: Label, evaluate: Evaluate, near_distance: float
) -> dict[str, object]:
    """Return the scores of one fold as plain values."""
    started = time.monotonic()
    without = train(fold, (), fold.folder / "without")
    pool = without_copies(label(fold, without), fold.judged, near_distance=near_distance)
    with_pool = train(fold, pool, fold.folder / "with") if pool else without
    before, after = evaluate((without, with_pool), fold.judged)
    comparison = compare(
        before, after, confidence=CONFIDENCE, margin=0.0, class_drop=1.0, resamples=1, seed=0
    )
    scores = FoldScores(
        images=count_groups(fold.judged),
        without=comparison.before,
        with_pool=comparison.after,
        pool_images=len(pool),
        seconds=round(time.monotonic() - started, 1),
    )
    return dataclasses.asdict(scores)


def _hash(example: TrainingExample) -> ImageHash:
    return perceptual_hash(load_example_image(example))
