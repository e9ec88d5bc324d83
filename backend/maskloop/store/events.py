"""What Label Studio told us, until it is done: the outbox that the queue is filled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import EventRow

__all__ = ["MAX_ATTEMPTS", "Event", "EventLog"]

MAX_ATTEMPTS = 8
FIRST_RETRY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an event row says."""

    event_id: int
    action: str
    project_id: int
    subject_ids: tuple[int, ...]


class EventLog:
    """Events in the order they came."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def add(self, *, key: str, action: str, project_id: int, subject_ids: Sequence[int]) -> int | None:
        """Keep an event durably; return its number, or None where it is known already.

        Args:
            key: equal for the same event told twice.
            action: Label Studio's name of it.
            project_id: Label Studio's number.
            subject_ids: the annotations or tasks it is about.
        """
        row = EventRow(
            key=key,
            action=action,
            project_id=project_id,
            subject_ids=list(subject_ids),
            received_at=now(),
            due_at=now(),
        )
        try:
            with self._sessions.write() as session:
                session.add(row)
        except IntegrityError:
            return None
        return row.event_id

    def get(self, event_id: int) -> Event | None:
        """Return an event that is still to be done, or None."""
        with self._sessions.read() as session:
            row = session.get(EventRow, event_id)
            return None if row is None or row.status != "pending" else _event(row)

    def due(self, *, limit: int = 1000) -> tuple[Event, ...]:
        """Return pending events whose time has come, oldest first."""
        with self._sessions.read() as session:
            rows = session.scalars(
                select(EventRow)
                .where(EventRow.status == "pending", EventRow.due_at <= now())
                .order_by(EventRow.event_id)
                .limit(limit)
            )
            return tuple(_event(row) for row in rows)

    def finish(self, event_id: int) -> None:
        """Mark an event as done."""
        with self._sessions.write() as session:
            session.execute(
                update(EventRow).where(EventRow.event_id == event_id).values(status="done", error=None)
            )

    def fail(self, event_id: int, error: str) -> str:
        """Note a failed attempt; return `pending` where it will be tried again, else `dead`."""
        with self._sessions.write() as session:
            row = session.get_one(EventRow, event_id)
            row.attempts += 1
            row.error = error[:4000]
            row.due_at = now() + timedelta(seconds=FIRST_RETRY_S * 2**row.attempts)
            row.status = "dead" if row.attempts >= MAX_ATTEMPTS else "pending"
            return row.status

    def counts(self) -> dict[str, int]:
        """Return how many events there are of each status."""
        with self._sessions.read() as session:
            rows = session.execute(select(EventRow.status, func.count()).group_by(EventRow.status))
            return {status: count for status, count in rows}


def _event(row: EventRow) -> Event:
    return Event(
        event_id=row.event_id,
        action=row.action,
        project_id=row.project_id,
        subject_ids=tuple(row.subject_ids),
    )
