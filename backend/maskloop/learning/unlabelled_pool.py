"""A training set and images that nobody has annotated: what the champion is sure of there is learnt too."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping

from maskloop.learning.data.pseudo_labels import pseudo_examples, why_no_pool
from maskloop.learning.data.training_set import TrainingSet
from maskloop.learning.evaluation.showing import read_showing
from maskloop.learning.training_job import TrainingJob
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.tracing import span
from maskloop.types import ModelVersion, SegmentationTask

__all__ = ["pool_obstacle", "with_pool"]

logger = logging.getLogger(__name__)


def pool_obstacle(champion: ModelVersion, *, task: SegmentationTask, classes: Collection[str]) -> str | None:
    """Return why a version cannot label images for its successor; None where it can.

    Args:
        champion: the version.
        task: of the project.
        classes: of its successor.
    """
    return why_no_pool(task, known=champion.labels, classes=classes, floors=_floors(champion))


def with_pool(job: TrainingJob, training_set: TrainingSet, champion: Checkpoint) -> TrainingSet:
    """Return the training set with what the champion is sure of on images that nobody has annotated."""
    if not job.pool:
        return training_set
    classes = training_set.plan.classes
    why_not = pool_obstacle(job.champion, task=job.task, classes=classes)
    if why_not is not None:
        log_action(logger, "pool_not_used", training=job.key, images=len(job.pool), reason=why_not)
        return training_set
    with span("pseudo-label", images=len(job.pool)):
        pool = pseudo_examples(
            champion,
            job.pool,
            labels=classes,
            thresholds=job.thresholds,
            floors=_floors(job.champion),
            kept_in=job.work_dir / "pseudo-labels.json",
        )
    enlarged = dataclasses.replace(training_set, pool=pool)
    use = enlarged.pool_use
    log_action(
        logger,
        "pool_used",
        training=job.key,
        teacher=job.champion.tag,
        candidates=len(job.pool),
        **({} if use is None else dataclasses.asdict(use)),
    )
    return enlarged


def _floors(version: ModelVersion) -> Mapping[str, float]:
    shown = read_showing(version.path)
    return {} if shown is None else shown.floors
