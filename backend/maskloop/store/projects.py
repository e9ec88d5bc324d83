"""The Label Studio projects that maskloop works for."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.audit import Actor, AuditAction, AuditEntry, add_entry
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import ProjectRow, SecretRow

__all__ = ["Absence", "ProjectRepository"]

WEBHOOK_SECRET = "webhook"  # noqa: S105 - its name, not the secret


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A connected project that Label Studio does not find."""

    since: datetime  # of the first 404 in a row (aware)
    checks: int  # 404s in a row


class ProjectRepository:
    """Connected projects."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, project_id: int, label_config: str) -> None:
        """Store a connected project, or its newer label config; it is not away any more."""
        with self._sessions.write() as session:
            row = session.get(ProjectRow, project_id)
            if row is None:
                session.add(ProjectRow(project_id=project_id, label_config=label_config, connected_at=now()))
            else:
                row.label_config = label_config
                row.missing_since, row.missing_checks = None, 0

    def remove(self, project_id: int) -> None:
        """Delete a project from the connected ones; its annotations stay stored."""
        with self._sessions.write() as session:
            session.execute(delete(ProjectRow).where(ProjectRow.project_id == project_id))

    def label_config(self, project_id: int) -> str | None:
        """Return a project's label config (XML) as it was last read; None where it is not connected."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return None if row is None else row.label_config

    def note_missing(self, project_id: int, *, at: datetime) -> Absence | None:
        """Store that Label Studio does not find a project; None where it is not connected.

        Args:
            project_id: Label Studio's number.
            at: when Label Studio answered (aware).
        """
        with self._sessions.write() as session:
            row = session.get(ProjectRow, project_id, with_for_update=True)
            if row is None:
                return None
            row.missing_since = row.missing_since or at
            row.missing_checks += 1
            return Absence(since=row.missing_since, checks=row.missing_checks)

    def absences(self) -> dict[int, Absence]:
        """Return the connected projects that are away: Label Studio answered 404 at the last check."""
        query = select(ProjectRow.project_id, ProjectRow.missing_since, ProjectRow.missing_checks).where(
            ProjectRow.missing_since.is_not(None)
        )
        with self._sessions.read() as session:
            return {
                project_id: Absence(since=since, checks=checks)
                for project_id, since, checks in session.execute(query)
                if since is not None
            }

    def set_options(self, project_id: int, options: dict[str, object], *, actor: Actor) -> bool:
        """Store a project's options for predictions, and record what changed, in one transaction.

        Args:
            project_id: Label Studio's number; nothing happens where it is not connected.
            options: plain values.
            actor: who changed them, for the audit trail.

        Returns:
            Whether anything changed.
        """
        with self._sessions.write() as session:
            row = session.get(ProjectRow, project_id)
            if row is None or row.options == options:
                return False
            before = dict(row.options)
            names = sorted(name for name in {*before, *options} if before.get(name) != options.get(name))
            row.options = options
            entry = AuditEntry(
                project_id=project_id,
                action=AuditAction.SETTING,
                actor=actor,
                subject="extra_params",
                reason=f"changed: {', '.join(names)}",
                facts={"changed": {name: [before.get(name), options.get(name)] for name in names}},
            )
            return add_entry(session, entry, at=self._sessions.clock(session))

    def options(self, project_id: int) -> dict[str, object]:
        """Return a project's options for predictions; empty where it has none."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return dict(row.options) if row is not None else {}

    def ids(self) -> tuple[int, ...]:
        """Return the connected projects."""
        with self._sessions.read() as session:
            return tuple(session.scalars(select(ProjectRow.project_id).order_by(ProjectRow.project_id)))

    def watermark(self, project_id: int) -> datetime | None:
        """Return up to which of Label Studio's times a project is reconciled, None where it never was."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return row.watermark if row is not None else None

    def set_watermark(self, project_id: int, at: datetime | None) -> None:
        """Store up to which of Label Studio's times a project is reconciled."""
        self._set(project_id, watermark=at)

    def listed_at(self, project_id: int) -> datetime | None:
        """Return when all of a project was last compared with Label Studio, None where it never was."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return row.listed_at if row is not None else None

    def note_listed(self, project_id: int) -> None:
        """Store that all of a project was compared with Label Studio just now."""
        self._set(project_id, listed_at=now())

    def orphans(self, project_id: int) -> tuple[int, int]:
        """Return how many submitted and skipped annotations without a task Label Studio counts."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return (row.orphans_submitted, row.orphans_skipped) if row is not None else (0, 0)

    def add_orphan(self, project_id: int, *, skipped: bool) -> None:
        """Store that Label Studio counts one more annotation without a task."""
        column = ProjectRow.orphans_skipped if skipped else ProjectRow.orphans_submitted
        self._set(project_id, **{column.key: column + 1})

    def set_orphans(self, project_id: int, *, submitted: int, skipped: int) -> None:
        """Store how many annotations without a task Label Studio counts."""
        self._set(project_id, orphans_submitted=submitted, orphans_skipped=skipped)

    def webhook_secret(self) -> str:
        """Return the secret that webhooks carry; made at the first call, the same for all processes."""
        with self._sessions.read() as session:
            row = session.get(SecretRow, WEBHOOK_SECRET)
        if row is None:
            # Two processes may try at once: the first one's secret is used by both.
            with contextlib.suppress(IntegrityError), self._sessions.write() as session:
                session.add(SecretRow(name=WEBHOOK_SECRET, value=secrets.token_urlsafe(32)))
            with self._sessions.read() as session:
                row = session.get_one(SecretRow, WEBHOOK_SECRET)
        return row.value

    def _set(self, project_id: int, **values: object) -> None:
        with self._sessions.write() as session:
            session.execute(update(ProjectRow).where(ProjectRow.project_id == project_id).values(**values))
