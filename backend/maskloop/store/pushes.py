"""Which predictions were sent to Label Studio, so that none is sent twice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import PushedRow

__all__ = ["PushLog"]


class PushLog:
    """Predictions by task and model version."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def begin(self, project_id: int, task_id: int, model_version: str) -> None:
        """Note that a prediction is about to be sent."""
        with contextlib.suppress(IntegrityError), self._sessions.write() as session:
            session.add(
                PushedRow(
                    project_id=project_id, task_id=task_id, model_version=model_version, prediction_id=None
                )
            )

    def finish(self, project_id: int, task_id: int, model_version: str, prediction_id: int) -> None:
        """Note that a prediction has arrived."""
        with self._sessions.write() as session:
            session.execute(
                update(PushedRow)
                .where(
                    PushedRow.project_id == project_id,
                    PushedRow.task_id == task_id,
                    PushedRow.model_version == model_version,
                )
                .values(prediction_id=prediction_id)
            )

    def of(self, project_id: int, model_version: str) -> dict[int, int | None]:
        """Return task -> prediction number of a version; None where its arrival is not known."""
        with self._sessions.read() as session:
            rows = session.execute(
                select(PushedRow.task_id, PushedRow.prediction_id).where(
                    PushedRow.project_id == project_id, PushedRow.model_version == model_version
                )
            )
            return {task_id: prediction_id for task_id, prediction_id in rows}

    def has_any(self, project_id: int, model_version: str) -> bool:
        """Return whether a prediction of a version has arrived."""
        query = select(PushedRow.pushed_id).where(
            PushedRow.project_id == project_id,
            PushedRow.model_version == model_version,
            PushedRow.prediction_id.is_not(None),
        )
        with self._sessions.read() as session:
            return session.scalar(query.limit(1)) is not None

    def forget(self, project_id: int, task_ids: Sequence[int]) -> None:
        """Forget what was sent for tasks that are gone."""
        with self._sessions.write() as session:
            session.execute(
                delete(PushedRow).where(PushedRow.project_id == project_id, PushedRow.task_id.in_(task_ids))
            )
