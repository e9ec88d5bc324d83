"""What a webhook says -> what is kept of it; what it asks for is done later, by `intake.py`.

Only numbers are taken from an event: everything else is asked of Label Studio when the event is worked on.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.queue.spec import JobQueue
from maskloop.store.jobs import JobKind, NewEvent
from maskloop_studio.dispatch import job_spec, queue_or_wait, request
from maskloop_studio.errors import UnreadableError
from maskloop_studio.labelstudio.protocol import WebhookEvent

if TYPE_CHECKING:
    from maskloop.store.database import Store

__all__ = [
    "ANNOTATION_ACTIONS",
    "KNOWN_ACTIONS",
    "START_TRAINING",
    "TASK_ACTIONS",
    "EventReceipt",
    "project_of",
    "read_event",
    "receive_event",
]

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


def project_of(event: WebhookEvent) -> int:
    """Return the project of an event.

    Raises:
        UnreadableError: the event is of unknown kind or names no project.
    """
    if event.action not in KNOWN_ACTIONS:
        raise UnreadableError(
            "webhook, action",
            expected="one that Label Studio 1.23 sends",
            got="another",
            remedy="send this webhook's events to another address, or update maskloop",
        )
    if event.project is None:
        raise _without_payload("a project with its id")
    return event.project.id


def read_event(event: WebhookEvent) -> NewEvent | None:
    """Return what is to be kept of an event, None where it asks for nothing.

    Raises:
        UnreadableError: the event is of unknown kind, or does not say what it is about.
    """
    project_id = project_of(event)
    if event.action in IGNORED_ACTIONS:
        return None
    subjects = _subjects(event)
    if not subjects:
        return None
    return NewEvent(
        key=_event_key(event.action, project_id, subjects),
        action=event.action,
        project_id=project_id,
        subject_ids=tuple(dict.fromkeys(number for number, _ in subjects)),
    )


def receive_event(event: WebhookEvent, *, store: Store, queue: JobQueue) -> EventReceipt:
    """Keep an event durably and queue its work: for callers that take one at a time and wait.

    Raises:
        UnreadableError: the event is of unknown kind, or does not say what it is about.
    """
    if event.action == START_TRAINING:
        number = request(
            JobKind.TRAINING, project_of(event), "Start Training button", store=store, queue=queue
        )
        return EventReceipt(status="accepted", training_id=number)
    new = read_event(event)
    if new is None:
        return EventReceipt(status="ignored")
    (job_id,) = store.jobs.add_events([new])
    if job_id is None:
        return EventReceipt(status="known")
    queue_or_wait(queue, job_spec(JobKind.EVENT, job_id))
    return EventReceipt(status="accepted")


def _subjects(event: WebhookEvent) -> list[tuple[int, str]]:
    if event.action in ANNOTATION_ACTIONS:
        named = [event.annotation, event.annotations]
    elif event.action in TASK_ACTIONS:
        named = [event.task, event.tasks]
    else:
        named = [event.project]
    said = [rows for rows in named if rows is not None]
    if not said:
        raise _without_payload("the annotations or tasks it is about")
    rows = [row for rows in said for row in (rows if isinstance(rows, list) else [rows])]
    return sorted((row.id, row.updated_at or "") for row in rows)


def _event_key(action: str, project_id: int, subjects: list[tuple[int, str]]) -> str:
    said: list[object] = [action, project_id, subjects]
    if not all(updated_at for _, updated_at in subjects):
        # Deletions carry no time of their own, and Label Studio may give a number again: the same words are
        # news each time. Told twice, they are asked about twice, which changes nothing.
        said.append(time.time_ns())
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _without_payload(expected: str) -> UnreadableError:
    return UnreadableError(
        "webhook",
        expected=expected,
        got="none",
        remedy="set `send_payload` on the webhook in Label Studio, or run `maskloop connect` again",
    )
