"""Predict a project's unlabelled tasks with its champion and push the predictions to Label Studio."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.learning.registry import CHAMPION
from maskloop.log import log_action
from maskloop_studio.label_config import LabelConfig
from maskloop_studio.promotion import show_stored
from maskloop_studio.serving.options import PredictionPlan, plan_project
from maskloop_studio.serving.predicting import predict_uris
from maskloop_studio.training import ensure_champion

if TYPE_CHECKING:
    from maskloop.types import ModelVersion
    from maskloop_studio.client import StudioTask
    from maskloop_studio.services import Services

__all__ = ["renew_project"]

logger = logging.getLogger(__name__)
SHARD = 16  # tasks in memory at once


def renew_project(
    project_id: int, services: Services, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Push a prediction of the champion for every unlabelled task that has none; return how many.

    Afterwards `project.model_version` names the champion, so that annotators see these predictions and
    Label Studio's uncertainty sampling orders by their scores. Killed anywhere, it goes on where it was.

    Args:
        project_id: Label Studio's number.
        services: what to work with.
        on_progress: told before each push how many tasks are done, and of how many; may raise to end it.

    Raises:
        LabelConfigError: the label config offers nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    started = time.monotonic()
    client = services.client
    champion = ensure_champion(project_id, services)
    config, plan = plan_project(project_id, champion, services)
    known = _settle_pushed(project_id, champion, services)
    tasks = (task for task in client.iter_tasks(project_id, only_unlabelled=True) if task.id not in known)
    unlabelled = client.count_tasks(project_id, only_unlabelled=True)
    done = pushed = 0
    for shard in _shards(tasks):
        if _is_outdated(champion, services):
            break
        check = functools.partial(on_progress, done, max(unlabelled, done))
        check()
        pushed += _push_shard(shard, champion, config, plan, project_id, services, check=check)
        done += len(shard)
    if _is_outdated(champion, services):
        # Rolled back, or promoted, meanwhile: annotators are to see the present champion's.
        return pushed + renew_project(project_id, services, on_progress=on_progress)
    # Without this Label Studio would call live for every task that is opened, and order at random.
    show_stored(project_id, champion, services)
    log_action(
        logger,
        "predictions renewed",
        project_id=project_id,
        model_version=champion.tag,
        pushed=pushed,
        duration_s=time.monotonic() - started,
    )
    return pushed


def _is_outdated(champion: ModelVersion, services: Services) -> bool:
    return services.registry.alias(champion.name, CHAMPION) != champion.number


def _settle_pushed(project_id: int, champion: ModelVersion, services: Services) -> set[int]:
    """Return the tasks that have the champion's prediction, asking about those where a kill left doubt."""
    known = services.store.pushes.of(project_id, champion.tag)
    for task_id, prediction_id in known.items():
        if prediction_id is None:
            arrived = services.client.prediction_ids(task_id, champion.tag)
            if arrived:
                services.store.pushes.finish(project_id, task_id, champion.tag, arrived[0])
                known[task_id] = arrived[0]
    return {task_id for task_id, prediction_id in known.items() if prediction_id is not None}


def _push_shard(
    shard: list[StudioTask],
    champion: ModelVersion,
    config: LabelConfig,
    plan: PredictionPlan,
    project_id: int,
    services: Services,
    *,
    check: Callable[[], None],
) -> int:
    pushed = 0
    predictions = predict_uris(
        [task.data.get(config.image_field) for task in shard],
        task_ids=[task.id for task in shard],
        source=str(champion.path),
        plan=plan,
        services=services,
    )
    for task, prediction in zip(shard, predictions, strict=True):
        if prediction is None or isinstance(prediction, MaskloopError):
            log_action(logger, "task not predicted", level=logging.WARNING, task_id=task.id, error=prediction)
            continue
        check()
        services.store.pushes.begin(project_id, task.id, champion.tag)
        stored = services.client.prediction_ids(task.id, champion.tag)
        if stored:  # somebody opened the task meanwhile, and Label Studio asked for a live prediction
            services.store.pushes.finish(project_id, task.id, champion.tag, stored[0])
            continue
        prediction_id = services.client.create_prediction(
            task.id,
            result=plan.regions(prediction, model_version=champion.tag, task_id=task.id),
            score=prediction.confidence,
            model_version=champion.tag,
        )
        services.store.pushes.finish(project_id, task.id, champion.tag, prediction_id)
        pushed += 1
    return pushed


def _shards(tasks: Iterator[StudioTask]) -> Iterator[list[StudioTask]]:
    while shard := list(itertools.islice(tasks, SHARD)):
        yield shard
