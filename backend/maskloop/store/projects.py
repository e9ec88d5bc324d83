"""The Label Studio projects that maskloop works for."""

from __future__ import annotations

import contextlib
import secrets
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import ProjectRow, SecretRow

__all__ = ["ProjectBook"]

WEBHOOK_SECRET = "webhook"  # noqa: S105 - its name, not the secret


class ProjectBook:
    """Connected projects."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, project_id: int, label_config: str) -> None:
        """Remember a connected project, or its newer label config."""
        with self._sessions.write() as session:
            row = session.get(ProjectRow, project_id)
            if row is None:
                session.add(ProjectRow(project_id=project_id, label_config=label_config, connected_at=now()))
            else:
                row.label_config = label_config

    def remove(self, project_id: int) -> None:
        """Forget that a project is connected; what its annotators said stays."""
        with self._sessions.write() as session:
            session.execute(delete(ProjectRow).where(ProjectRow.project_id == project_id))

    def set_options(self, project_id: int, options: dict[str, object]) -> None:
        """Remember how a project wants to be predicted; nothing happens where it is not connected."""
        with self._sessions.write() as session:
            row = session.get(ProjectRow, project_id)
            if row is not None and row.options != options:
                row.options = options

    def options(self, project_id: int) -> dict[str, object]:
        """Return how a project wants to be predicted; empty where nothing was said."""
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
        """Note up to which of Label Studio's times a project is reconciled."""
        with self._sessions.write() as session:
            session.execute(
                update(ProjectRow).where(ProjectRow.project_id == project_id).values(watermark=at)
            )

    def listed_at(self, project_id: int) -> datetime | None:
        """Return when all of a project was last compared with Label Studio, None where it never was."""
        with self._sessions.read() as session:
            row = session.get(ProjectRow, project_id)
            return row.listed_at if row is not None else None

    def note_listed(self, project_id: int) -> None:
        """Note that all of a project was compared with Label Studio just now."""
        with self._sessions.write() as session:
            session.execute(
                update(ProjectRow).where(ProjectRow.project_id == project_id).values(listed_at=now())
            )

    def webhook_secret(self) -> str:
        """Return the secret that webhooks carry; made at the first call, the same for all processes."""
        with self._sessions.read() as session:
            row = session.get(SecretRow, WEBHOOK_SECRET)
        if row is None:
            # Two processes may try at once: the first one's secret stands.
            with contextlib.suppress(IntegrityError), self._sessions.write() as session:
                session.add(SecretRow(name=WEBHOOK_SECRET, value=secrets.token_urlsafe(32)))
            with self._sessions.read() as session:
                row = session.get_one(SecretRow, WEBHOOK_SECRET)
        return row.value
