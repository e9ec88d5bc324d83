"""Webhook -> event row and job, then event -> correction.

An event is a hint only: what counts is what Label Studio's API says of the annotation when the event is
worked on. So events may come twice, late, out of order or forged, and the newest truth is kept all the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from maskloop.errors import CodecError, LabelConfigError, MaskloopError
from maskloop.learning.snapshot import split_of
from maskloop.log import log_action
from maskloop.queue.jobs import JobQueue
from maskloop.types import Correction
from maskloop_studio.job_specs import event_job, queue_or_wait, renewal_job, request_training
from maskloop_studio.protocol import WebhookEvent

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop.store.events import Event
    from maskloop_studio.services import Services

__all__ = ["EventReceipt", "process_event", "receive_event"]

logger = logging.getLogger(__name__)

ANNOTATION_ACTIONS = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
)
TASK_ACTIONS = frozenset({"TASKS_CREATED", "TASKS_DELETED"})
PROJECT_ACTIONS = frozenset({"PROJECT_CREATED", "PROJECT_UPDATED", "PROJECT_DELETED"})
IGNORED_ACTIONS = frozenset({"LABEL_LINK_CREATED", "LABEL_LINK_UPDATED", "LABEL_LINK_DELETED"})
START_TRAINING = "START_TRAINING"
KNOWN_ACTIONS = ANNOTATION_ACTIONS | TASK_ACTIONS | PROJECT_ACTIONS | IGNORED_ACTIONS | {START_TRAINING}


@dataclass(frozen=True, kw_only=True)
class EventReceipt:
    """What was made of a webhook."""

    status: str  # accepted, known (told before) or ignored
    training_id: int | None = None  # the training it asked for


def receive_event(event: WebhookEvent, *, store: Store, queue: JobQueue) -> EventReceipt:
    """Keep an event durably and queue its work; fast enough for Label Studio's one second.

    Raises:
        CodecError: the event is of unknown kind or names no project.
    """
    if event.action in IGNORED_ACTIONS:
        return EventReceipt(status="ignored")
    project_id = _project_of(event)
    if event.action == START_TRAINING:
        training_id = request_training(project_id, "Start Training button", store=store, queue=queue)
        return EventReceipt(status="accepted", training_id=training_id)
    subjects = _subjects(event)
    event_id = store.events.add(
        key=_event_key(event, project_id),
        action=event.action,
        project_id=project_id,
        subject_ids=[subject for subject, _ in subjects],
    )
    if event_id is None:
        return EventReceipt(status="known")
    queue_or_wait(queue, event_job(event_id))
    return EventReceipt(status="accepted")


def process_event(event: Event, services: Services) -> None:
    """Do what an event asks for, and mark it done; a failure is noted and tried again later."""
    store = services.store
    try:
        _dispatch(event, services)
    except Exception as exc:
        # Whatever it is, the event must stay: it is tried again, and in the end shown as dead.
        status = store.events.fail(event.event_id, str(exc))
        log_action(
            logger,
            "event failed",
            level=logging.ERROR,
            event_id=event.event_id,
            action_name=event.action,
            status=status,
            error=exc,
        )
        if not isinstance(exc, MaskloopError):
            logger.exception("event %d", event.event_id)
        return
    store.events.finish(event.event_id)


def _dispatch(event: Event, services: Services) -> None:
    if event.action in ANNOTATION_ACTIONS:
        # A deletion too is asked back, not believed: a forged one must not take anybody's work away.
        for annotation_id in event.subject_ids:
            take_annotation(annotation_id, event, services)
        _train_when_due(event.project_id, services)
    elif event.action == "TASKS_CREATED":
        services.queue.enqueue(renewal_job(event.project_id))
    elif event.action == "TASKS_DELETED":
        _drop_tasks(event, services)
    elif event.action == "PROJECT_UPDATED":
        project = services.client.project(event.project_id)
        services.store.projects.save(event.project_id, project.label_config)


def _drop_tasks(event: Event, services: Services) -> None:
    client, store, project_id = services.client, services.store, event.project_id
    gone = [task_id for task_id in event.subject_ids if client.task(task_id, project_id=project_id) is None]
    store.corrections.delete(task_ids=gone, project_id=project_id)
    # On SQLite Label Studio gives a deleted task's number to the next one, which has no prediction yet.
    store.pushes.forget(project_id, gone)


def take_annotation(annotation_id: int, event: Event, services: Services) -> None:
    """Bring the database to what Label Studio says of one annotation now."""
    store, client = services.store, services.client
    annotation = client.annotation(annotation_id)
    if annotation is None or annotation.get("was_cancelled"):
        store.corrections.delete(annotation_ids=[annotation_id], project_id=event.project_id)
        log_action(logger, "correction dropped", annotation_id=annotation_id, event_id=event.event_id)
        return
    correction = _read_annotation(annotation, services)
    kept = store.corrections.save(
        correction,
        split=split_of(correction.project_id, correction.task_id, services.settings.holdout_fraction),
        sequence=event.event_id,
        result=json.dumps(annotation["result"], separators=(",", ":")),
    )
    log_action(
        logger,
        "correction stored" if kept else "correction known",
        annotation_id=annotation_id,
        task_id=correction.task_id,
        segments=len(correction.segments),
    )


def _read_annotation(annotation: Mapping[str, Any], services: Services) -> Correction:
    from maskloop.segmentation.image import decode_image
    from maskloop_studio.label_config import parse_label_config
    from maskloop_studio.regions import annotation_to_segments, count_edits, is_approximate

    settings, client = services.settings, services.client
    annotation_id, task_id = int(annotation["id"]), int(annotation["task"])
    place = f"task {task_id}, annotation {annotation_id}"
    # With the project named, Label Studio does not call us for a live prediction of the task.
    task = client.task(task_id, project_id=int(annotation["project"]))
    if task is None:
        raise CodecError(
            place, expected="its task", got="none", remedy="it was deleted meanwhile: nothing to do"
        )
    project = client.project(task.project_id)
    config = parse_label_config(project.label_config)
    uri = task.data.get(config.image_field)
    if not isinstance(uri, str):
        raise LabelConfigError(
            place,
            expected=f"an image address in its field {config.image_field!r}",
            got=type(uri).__name__,
            remedy="check `value` of <Image> against the task's data",
        )
    data = services.fetcher.fetch(uri, task_id=task_id)
    height, width = decode_image(data, max_pixels=settings.max_image_pixels).shape[:2]
    size_hw = (height, width)
    content = annotation_to_segments(annotation["result"], config, size_hw=size_hw, place=place)
    for problem in (*content.problems, *content.notes):
        log_action(logger, "region noted", level=logging.WARNING, task_id=task_id, problem=problem)
    if (content.problems or content.notes) and not content.segments:
        # Kept as it is, it would teach that nothing is to be seen on this image.
        raise CodecError(
            place,
            expected="at least one region that can be read",
            got=(*content.problems, *content.notes)[0],
            remedy="correct the regions in Label Studio and save again",
        )
    prediction_id = annotation.get("parent_prediction")
    prediction = client.prediction(int(prediction_id)) if prediction_id else None
    predicted_ids = {str(region["id"]) for region in (prediction or {}).get("result", []) if "id" in region}
    return Correction(
        project_id=task.project_id,
        task_id=task_id,
        annotation_id=annotation_id,
        updated_at=datetime.fromisoformat(str(annotation["updated_at"])),
        image_key=services.image_cache.put(data),
        size_hw=size_hw,
        segments=content.segments,
        edits=count_edits(annotation["result"], predicted_ids),
        lead_time_s=annotation.get("lead_time"),
        ground_truth=bool(annotation.get("ground_truth")),
        approximate=is_approximate(annotation["result"]),
        model_version=prediction.get("model_version") if prediction else None,
    )


def _train_when_due(project_id: int, services: Services) -> None:
    store, settings = services.store, services.settings
    new = store.corrections.count(
        project_id, split="train", after_sequence=store.trainings.trained_through(project_id)
    )
    if new >= settings.train_after:
        request_training(project_id, f"{new} new corrections", store=store, queue=services.queue)


def _project_of(event: WebhookEvent) -> int:
    if event.action not in KNOWN_ACTIONS:
        raise CodecError(
            "webhook",
            expected="an action that Label Studio sends",
            got=repr(event.action),
            remedy="send this webhook's events to another address, or update maskloop",
        )
    if event.project is None:
        raise CodecError(
            f"webhook {event.action}",
            expected="a project with its id",
            got="none",
            remedy="set `send_payload` on the webhook in Label Studio",
        )
    return event.project.id


def _subjects(event: WebhookEvent) -> list[tuple[int, str | None]]:
    if event.action in ANNOTATION_ACTIONS:
        named = [event.annotation, event.annotations]
    elif event.action in TASK_ACTIONS:
        named = [event.task, event.tasks]
    else:
        named = [event.project]
    rows = [row for rows in named if rows is not None for row in (rows if isinstance(rows, list) else [rows])]
    return [(row.id, row.updated_at) for row in rows]


def _event_key(event: WebhookEvent, project_id: int) -> str:
    said = json.dumps([event.action, project_id, sorted(_subjects(event), key=str)])
    return hashlib.sha256(said.encode()).hexdigest()
