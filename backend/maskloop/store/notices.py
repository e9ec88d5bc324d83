"""The outbox of notices: each stands here until it arrived at MASKLOOP_NOTIFY_URL or is given up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import NoticeRow

__all__ = ["MAX_ATTEMPTS", "Notice", "NoticeRepository"]

MAX_ATTEMPTS = 12  # with the pauses below: about a day and a half
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=6)
CLAIM = timedelta(minutes=2)  # another sender leaves a notice alone for so long
MAX_ERROR = 500  # characters


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message that waits."""

    notice_id: int
    kind: str  # promoted, rolled_back, refused, waiting, shadow, failed, worker_lost, disk_low, drift, trial
    project_id: int | None
    text: str  # for people
    facts: Mapping[str, Any]  # for machines; plain values
    created_at: datetime  # aware
    attempts: int  # that went wrong


class NoticeRepository:
    """Notices, each at least once; senders on several machines share them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def put(
        self, kind: str, text: str, *, key: str, project_id: int | None = None, facts: Mapping[str, Any]
    ) -> bool:
        """Store a notice; return whether it is new: one with the same key is stored once.

        Raises:
            StoreError: the database does not answer.
        """
        try:
            with self._sessions.write() as session:
                at = self._sessions.clock(session)
                session.add(
                    NoticeRow(
                        key=key,
                        kind=kind,
                        project_id=project_id,
                        text=text,
                        facts=json.dumps(dict(facts), default=str),
                        created_at=at,
                        due_at=at,
                    )
                )
        except IntegrityError:
            return False
        return True

    def claim(self) -> Notice | None:
        """Take the notice that is due longest for some minutes; None where none is due."""
        with self._sessions.write() as session:
            at = self._sessions.clock(session)
            row = session.scalars(
                select(NoticeRow)
                .where(NoticeRow.ended_at.is_(None), NoticeRow.due_at <= at)
                .order_by(NoticeRow.due_at, NoticeRow.notice_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if row is None:
                return None
            row.due_at = at + CLAIM
            return Notice(
                notice_id=row.notice_id,
                kind=row.kind,
                project_id=row.project_id,
                text=row.text,
                facts=json.loads(row.facts),
                created_at=row.created_at,
                attempts=row.attempts,
            )

    def sent(self, notice_id: int) -> None:
        """Note that a notice arrived."""
        with self._sessions.write() as session:
            session.execute(
                update(NoticeRow)
                .where(NoticeRow.notice_id == notice_id)
                .values(ended_at=self._sessions.clock(session), error=None)
            )

    def failed(self, notice_id: int, error: str) -> bool:
        """Note that a notice did not arrive; return whether it is given up now."""
        with self._sessions.write() as session:
            row = session.get_one(NoticeRow, notice_id, with_for_update=True)
            at = self._sessions.clock(session)
            row.attempts += 1
            row.error = error[:MAX_ERROR]
            row.due_at = at + min(FIRST_PAUSE * 2 ** (row.attempts - 1), LONGEST_PAUSE)
            if row.attempts >= MAX_ATTEMPTS:
                row.ended_at = at
            return row.ended_at is not None

    def prune(self, before: datetime) -> None:
        """Forget notices that ended before a time."""
        with self._sessions.write() as session:
            session.execute(delete(NoticeRow).where(NoticeRow.ended_at < before))
