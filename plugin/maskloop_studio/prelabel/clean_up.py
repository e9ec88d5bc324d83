"""Remove predictions of versions that are shown to nobody any more."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from maskloop.learning.registry.base import rollback_line
from maskloop.log import log_action
from maskloop_studio.prelabel.push import patiently

if TYPE_CHECKING:
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["clean_up", "kept_versions"]

logger = logging.getLogger(__name__)
PAGE_TASKS = 100


def clean_up(
    project_id: int, champion: ModelVersion, services: Services, *, check: Callable[[], None]
) -> int:
    """Remove what is stale of the predictions that we pushed, and of our own books; return how many.

    Stays: what annotators are shown, what the settings' `keep_predictions` keeps, every prediction of a task
    with an annotation (it may be its parent), and of a task with a draft. Killed anywhere, it goes on.

    Args:
        project_id: Label Studio's number.
        champion: what annotators are to be shown.
        services: what to work with.
        check: called before each page; what it raises ends this.

    Raises:
        StudioError: Label Studio does not answer.
    """
    shown = services.client.project(project_id).model_version
    if shown != champion.tag:
        return 0  # whatever they see now, they may be at work on it
    pushed = services.store.pushes.versions(project_id)
    kept = {champion.tag, *kept_versions(champion, pushed, services)}
    removed = 0
    for tag in pushed:
        if tag not in kept:
            removed += _remove_version(project_id, tag, services, check=check)
    for tag in services.store.scores.versions(project_id) - kept:
        services.store.scores.retire_version(project_id, tag)
    return removed


def kept_versions(champion: ModelVersion, pushed: Sequence[str], services: Services) -> tuple[str, ...]:
    """Return the earlier versions whose predictions stay: where rollbacks lead, then what was pushed last.

    Args:
        champion: the version that is shown.
        pushed: tags, the one pushed last first.
        services: registry and settings.
    """
    registry, name = services.registry, champion.name
    line = rollback_line(registry.history(name), champion.number, registry.versions(name))
    back = [f"{name}-v{number}" for number in reversed(line[:-1])]
    order = dict.fromkeys([*(tag for tag in back if tag in pushed), *pushed])
    return tuple(tag for tag in order if tag != champion.tag)[: services.settings.keep_predictions]


def _remove_version(project_id: int, tag: str, services: Services, *, check: Callable[[], None]) -> int:
    pushes, client = services.store.pushes, services.client
    removed = after_id = 0
    with ThreadPoolExecutor(services.settings.push_connections) as pool:
        while page := pushes.page(project_id, tag, after_id=after_id, limit=PAGE_TASKS):
            check()
            after_id = max(page)
            stands = patiently(functools.partial(client.task_stands, project_id, sorted(page)))
            in_hand = {task_id for task_id, stand in stands.items() if stand.has_draft}
            doomed = {
                task_id: page[task_id]
                for task_id, stand in stands.items()
                if not stand.annotated and task_id not in in_hand
            }
            list(pool.map(functools.partial(_remove, tag=tag, services=services), doomed.items()))
            removed += len(doomed)
            # Those of annotated tasks stay in Label Studio for good, and are no more looked at.
            pushes.forget(
                project_id, [task_id for task_id in page if task_id not in in_hand], model_version=tag
            )
    log_action(logger, "stale_predictions_removed", project_id=project_id, model_version=tag, removed=removed)
    return removed


def _remove(pushed: tuple[int, int | None], *, tag: str, services: Services) -> None:
    task_id, prediction_id = pushed
    client = services.client
    numbers = (
        [prediction_id]
        if prediction_id is not None
        else patiently(functools.partial(client.prediction_ids, task_id, tag))
    )
    for number in numbers:
        patiently(functools.partial(client.delete_prediction, number))
