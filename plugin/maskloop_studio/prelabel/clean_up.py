"""Remove predictions of versions that annotators do not see any more."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from maskloop.learning.registry.base import rollback_line
from maskloop.log import log_action
from maskloop.store.audit import MASKLOOP
from maskloop.store.reviews import REVIEW_TAG
from maskloop_studio.prelabel.push import PushTarget, patiently
from maskloop_studio.projects.audit_trail import record_deletion

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.settings import Settings
    from maskloop.types import ModelVersion
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["clean_up", "kept_versions"]

logger = logging.getLogger(__name__)
PAGE_TASKS = 100


def clean_up(
    target: PushTarget,
    champion: ModelVersion,
    *,
    registry: ModelRegistry,
    settings: Settings,
    check: Callable[[], None],
) -> int:
    """Remove stale predictions that we pushed, and our own rows of them; return how many.

    These stay: what annotators see, what the settings' `keep_predictions` keeps, every prediction of a task
    with an annotation (it may be its parent), and of a task with a draft. Killed anywhere, it goes on.

    Args:
        target: the project.
        champion: what annotators are to see.
        registry: its history decides which version a rollback shows.
        settings: how many versions stay, and how many requests go out at once.
        check: called before each page; what it raises ends this.

    Raises:
        StudioError: Label Studio does not answer.
    """
    project_id, store = target.project_id, target.store
    if target.client.project(project_id).model_version != champion.tag:
        return 0  # annotators may be at work on the version that they see
    pushed = store.pushes.versions(project_id)
    earlier = kept_versions(champion, pushed, registry=registry, keep=settings.keep_predictions)
    kept = {champion.tag, *earlier}
    removed = 0
    for tag in pushed:
        if tag not in kept and tag != REVIEW_TAG:  # a review has a removal of its own
            stale = dataclasses.replace(target, tag=tag)
            removed += _remove_version(stale, connections=settings.push_connections, check=check)
    for tag in store.scores.versions(project_id) - kept:
        store.scores.retire_version(project_id, tag)
    return removed


def kept_versions(
    champion: ModelVersion, pushed: Sequence[str], *, registry: ModelRegistry, keep: int
) -> tuple[str, ...]:
    """Return the earlier versions whose predictions stay: where rollbacks lead, then what was pushed last.

    Args:
        champion: the version that annotators see.
        pushed: tags, the one pushed last first.
        registry: has the history.
        keep: how many versions.
    """
    name = champion.name
    line = rollback_line(registry.history(name), champion.number, registry.versions(name))
    back = [f"{name}-v{number}" for number in reversed(line[:-1])]
    order = dict.fromkeys([*(tag for tag in back if tag in pushed), *pushed])
    return tuple(tag for tag in order if tag != champion.tag)[:keep]


def _remove_version(stale: PushTarget, *, connections: int, check: Callable[[], None]) -> int:
    project_id, tag, pushes, client = stale.project_id, stale.tag, stale.store.pushes, stale.client
    removed = after_id = 0
    try:
        with ThreadPoolExecutor(connections) as pool:
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
                list(pool.map(functools.partial(_remove, tag=tag, client=client), doomed.items()))
                removed += len(doomed)
                # Those of annotated tasks stay in Label Studio for good, and are not looked at again.
                pushes.forget(
                    project_id, [task_id for task_id in page if task_id not in in_hand], model_version=tag
                )
    finally:
        if removed:
            record_deletion(
                project_id,
                f"stored predictions of {tag}",
                reason="stale: annotators see another version, and no rollback leads there",
                facts={"predictions": removed},
                actor=MASKLOOP,
                store=stale.store,
            )
    log_action(logger, "stale_predictions_removed", project_id=project_id, model_version=tag, removed=removed)
    return removed


def _remove(pushed: tuple[int, int | None], *, tag: str, client: StudioClient) -> None:
    task_id, prediction_id = pushed
    numbers = (
        [prediction_id]
        if prediction_id is not None
        else patiently(functools.partial(client.prediction_ids, task_id, tag))
    )
    for number in numbers:
        patiently(functools.partial(client.delete_prediction, number))
