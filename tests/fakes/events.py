"""Webhook bodies as Label Studio sends them, and what the job table keeps of one."""

from typing import Any

from maskloop.store.jobs import NewEvent

__all__ = ["UPDATED_AT", "annotation", "new_event", "webhook_event"]

UPDATED_AT = "2026-11-22T05:28:02.703265Z"


def annotation(number: int = 5, **fields: Any) -> dict[str, Any]:
    """Return an annotation as far as an event has to name it."""
    return {"id": number, "updated_at": UPDATED_AT} | fields


def webhook_event(action: str = "ANNOTATION_CREATED", **fields: Any) -> dict[str, Any]:
    """Return the body of a webhook for annotation 5 of project 1.

    Args:
        action: what happened.
        fields: parts of the body in place of these; None leaves one out.
    """
    body = {"action": action, "project": {"id": 1}, "annotation": annotation()} | fields
    return {name: value for name, value in body.items() if value is not None}


def new_event(key: str = "a", **fields: Any) -> NewEvent:
    """Return an event of project 1 as the job table takes it."""
    values = {"action": "ANNOTATION_CREATED", "project_id": 1, "subject_ids": (70,)}
    return NewEvent(key=key, **(values | fields))
