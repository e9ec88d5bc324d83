"""A webhook's body -> the event that is stored; a worker does the work later (`annotations.py`).

Only numbers are used from an event: everything else is read from Label Studio when the event is worked on.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.queue.spec import JobQueue
from maskloop.store.jobs import JobKind, NewEvent
from maskloop.tracing import note_span
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
    "note_webhook",
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
    """What happened to a webhook's event."""

    status: str  # accepted, known (stored before) or ignored
    training_id: int | None = None  # the training that it started


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
    """Return the event to be stored; None where there is nothing to do.

    Raises:
        UnreadableError: the event is of unknown kind, or names no subject.
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
    """Store an event and queue its work: for callers that handle one at a time and wait.

    Raises:
        UnreadableError: the event is of unknown kind, or names no subject.
    """
    started_ns = time.time_ns()
    if event.action == START_TRAINING:
        number = request(
            JobKind.TRAINING, project_of(event), "Start Training button", store=store, queue=queue
        )
        note_webhook(event, (JobKind.TRAINING, number), store.scope, started_ns=started_ns)
        return EventReceipt(status="accepted", training_id=number)
    new = read_event(event)
    if new is None:
        return EventReceipt(status="ignored")
    (job_id,) = store.jobs.add_events([new])
    if job_id is None:
        return EventReceipt(status="known")
    queue_or_wait(queue, job_spec(JobKind.EVENT, job_id))
    note_webhook(event, (JobKind.EVENT, job_id), store.scope, started_ns=started_ns)
    return EventReceipt(status="accepted")


def note_webhook(event: WebhookEvent, job: tuple[JobKind, int], scope: str, *, started_ns: int) -> None:
    """Note a webhook that was taken as a span of the trace of the job that came of it.

    Args:
        event: what happened.
        job: kind and number.
        scope: of the database.
        started_ns: when the webhook came, nanoseconds since 1970.
    """
    kind, number = job
    attributes: dict[str, str | int] = {"action": event.action, "project": project_of(event)}
    note_span("webhook", f"{kind.value}-{number}", scope, started_ns=started_ns, attributes=attributes)


def _subjects(event: WebhookEvent) -> list[tuple[int, str]]:
    if event.action in ANNOTATION_ACTIONS:
        named = [event.annotation, event.annotations]
    elif event.action in TASK_ACTIONS:
        named = [event.task, event.tasks]
    else:
        named = [event.project]
    given = [rows for rows in named if rows is not None]
    if not given:
        raise _without_payload("its annotations or tasks")
    rows = [row for rows in given for row in (rows if isinstance(rows, list) else [rows])]
    return sorted((row.id, row.updated_at or "") for row in rows)


def _event_key(action: str, project_id: int, subjects: list[tuple[int, str]]) -> str:
    parts: list[object] = [action, project_id, subjects]
    if not all(updated_at for _, updated_at in subjects):
        # Deletions carry no time, and Label Studio may give a number again: each one is a new event. One that
        # is sent twice is read from Label Studio twice, which changes nothing.
        parts.append(time.time_ns())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _without_payload(expected: str) -> UnreadableError:
    return UnreadableError(
        "webhook",
        expected=expected,
        got="none",
        remedy="set `send_payload` on the webhook in Label Studio, or run `maskloop connect` again",
    )
