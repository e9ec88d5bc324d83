"""A training set and images that nobody has annotated: what the champion is sure of there is learnt too."""

from __future__ import annotations

import dataclasses
import logging

from maskloop.learning.data.pseudo_labels import describe_pool, pseudo_examples, why_no_pool
from maskloop.learning.data.training_set import TrainingSet
from maskloop.learning.evaluation.showing import read_showing
from maskloop.learning.training_job import TrainingJob
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.tracing import span

__all__ = ["with_pool"]

logger = logging.getLogger(__name__)


def with_pool(job: TrainingJob, training_set: TrainingSet, champion: Checkpoint) -> TrainingSet:
    """Return the training set with what the champion is sure of on images that nobody has annotated."""
    if not job.pool:
        return training_set
    shown = read_showing(job.champion.path)
    floors = {} if shown is None else shown.floors
    classes = training_set.plan.classes
    why_not = why_no_pool(job.task, known=champion.labels, classes=classes, floors=floors)
    if why_not is not None:
        log_action(logger, "pool_not_used", training=job.key, images=len(job.pool), reason=why_not)
        return training_set
    with span("pseudo-label", images=len(job.pool)):
        pool = pseudo_examples(
            champion,
            job.pool,
            labels=classes,
            thresholds=job.thresholds,
            floors=floors,
            kept_in=job.work_dir / "pseudo-labels.json",
        )
    use = describe_pool(pool)
    log_action(
        logger,
        "pool_used",
        training=job.key,
        teacher=job.champion.tag,
        candidates=len(job.pool),
        **({} if use is None else dataclasses.asdict(use)),
    )
    return dataclasses.replace(training_set, pool=pool)
