"""The unlabelled images that a training gets: none where they cannot help, or did not in cross-validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop_studio.projects.pool_images import PoolRequest, pool_images

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from maskloop.learning.pool_verdict import PoolSubject, PoolVerdict
    from maskloop.store.trainings import Training
    from maskloop.types import Correction, ModelVersion, SegmentationTask
    from maskloop_studio.services import Services

__all__ = ["GatheredPool", "gather_pool", "newest_verdict"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class GatheredPool:
    """Images that nobody has annotated, for one training."""

    images: tuple[Path, ...] = ()
    why_none: str | None = None  # None also where none were asked for
    verdict: PoolVerdict | None = None  # of an earlier training; None: none holds, or none was asked for


def gather_pool(
    request: PoolRequest,
    services: Services,
    *,
    champion: ModelVersion,
    classes: Sequence[str],
    task: SegmentationTask,
    train: Sequence[Correction],
    but: int,
) -> GatheredPool:
    """Return the images of a training; none where the champion could not label them or they do not help.

    Args:
        request: which images.
        services: settings, trainings, Label Studio, images.
        champion: would label them.
        classes: of the next version.
        task: of the project.
        train: the corrections that it learns from.
        but: number of the training itself, whose outcome says nothing of its own pool.

    Raises:
        MaskloopError: as `pool_images` does.
    """
    from maskloop.learning.pool_verdict import PoolSubject
    from maskloop.learning.unlabelled_pool import base_name, pool_obstacle

    settings = services.settings
    if not request.wanted:
        why_none = "MASKLOOP_TRAIN_POOL is 0" if settings.train_pool_check else None
        return _told(GatheredPool(why_none=why_none), request)
    why_not = pool_obstacle(champion, task=task, classes=classes)
    if why_not is not None:
        return _told(GatheredPool(why_none=why_not), request)
    verdict = None
    if settings.train_pool_check:
        subject = PoolSubject.of(
            train, base=base_name(champion), classes=classes, task=task, wanted=request.wanted
        )
        trainings = services.store.trainings.of(request.project_id)
        verdict = newest_verdict([one for one in trainings if one.training_id != but], subject)
        if verdict is not None and not verdict.use:
            return _told(GatheredPool(why_none=verdict.in_words(), verdict=verdict), request)
    images = pool_images(request, services)
    why_none = None if images else "no image of an unlabelled task may be learnt from or can be read"
    return GatheredPool(images=images, why_none=why_none, verdict=verdict)


def newest_verdict(trainings: Iterable[Training], subject: PoolSubject) -> PoolVerdict | None:
    """Return the newest verdict in the outcomes of trainings that holds for a subject; None for none.

    Args:
        trainings: of one project, oldest first.
        subject: of the next training.
    """
    from maskloop.learning.pool_verdict import PoolVerdict

    for training in reversed(list(trainings)):
        verdict = PoolVerdict.from_json((training.outcome or {}).get("pool_check"))
        if verdict is not None and verdict.holds_for(subject):
            return verdict
    return None


def _told(found: GatheredPool, request: PoolRequest) -> GatheredPool:
    if found.why_none is not None:
        log_action(logger, "pool_not_used", project_id=request.project_id, reason=found.why_none)
    return found
