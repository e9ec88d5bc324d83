"""Which predictions were sent to Label Studio, so that none is sent twice."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import PushedRow

__all__ = ["PushRepository"]


class PushRepository:
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

    def begin_many(self, project_id: int, task_ids: Sequence[int], model_version: str) -> None:
        """Note that predictions are about to be sent; what was noted before stays."""
        known = self.among(project_id, task_ids, model_version)
        try:
            with self._sessions.write() as session:
                session.add_all(
                    PushedRow(project_id=project_id, task_id=task_id, model_version=model_version)
                    for task_id in task_ids
                    if task_id not in known
                )
        except IntegrityError:  # another worker stored one of them at the same moment
            for task_id in task_ids:
                self.begin(project_id, task_id, model_version)

    def finish_many(self, project_id: int, model_version: str, arrived: Mapping[int, int]) -> None:
        """Note which predictions have arrived: task -> prediction number."""
        if not arrived:
            return
        statement = (
            update(PushedRow)
            .where(
                PushedRow.project_id == project_id,
                PushedRow.task_id == bindparam("of_task"),
                PushedRow.model_version == model_version,
            )
            .values(prediction_id=bindparam("arrived"))
            .execution_options(synchronize_session=False)
        )
        values = [
            {"of_task": task_id, "arrived": prediction_id} for task_id, prediction_id in arrived.items()
        ]
        with self._sessions.write() as session:
            session.connection().execute(statement, values)

    def among(self, project_id: int, task_ids: Sequence[int], model_version: str) -> dict[int, int | None]:
        """Return what `of` says, of some tasks only; a few hundred at once."""
        query = select(PushedRow.task_id, PushedRow.prediction_id).where(
            PushedRow.project_id == project_id,
            PushedRow.model_version == model_version,
            PushedRow.task_id.in_(task_ids),
        )
        with self._sessions.read() as session:
            return {task_id: prediction_id for task_id, prediction_id in session.execute(query)}

    def page(
        self, project_id: int, model_version: str, *, after_id: int = 0, limit: int = 100
    ) -> dict[int, int | None]:
        """Return what `of` says, page by page, by the tasks' numbers."""
        query = select(PushedRow.task_id, PushedRow.prediction_id).where(
            PushedRow.project_id == project_id,
            PushedRow.model_version == model_version,
            PushedRow.task_id > after_id,
        )
        with self._sessions.read() as session:
            rows = session.execute(query.order_by(PushedRow.task_id).limit(limit))
            return {task_id: prediction_id for task_id, prediction_id in rows}

    def versions(self, project_id: int) -> tuple[str, ...]:
        """Return the tags of the versions that something was pushed of, the one pushed last first."""
        query = (
            select(PushedRow.model_version)
            .where(PushedRow.project_id == project_id)
            .group_by(PushedRow.model_version)
            .order_by(func.max(PushedRow.pushed_id).desc())
        )
        with self._sessions.read() as session:
            return tuple(session.scalars(query))

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

    def forget(self, project_id: int, task_ids: Sequence[int], *, model_version: str | None = None) -> None:
        """Forget what was sent for tasks that are gone, or one version's predictions that are."""
        doomed = delete(PushedRow).where(PushedRow.project_id == project_id, PushedRow.task_id.in_(task_ids))
        if model_version is not None:
            doomed = doomed.where(PushedRow.model_version == model_version)
        with self._sessions.write() as session:
            session.execute(doomed)
