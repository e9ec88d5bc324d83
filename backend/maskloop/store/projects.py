"""The Label Studio projects that maskloop works for."""

from __future__ import annotations

from sqlalchemy import select

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import ProjectRow

__all__ = ["ProjectBook"]


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
