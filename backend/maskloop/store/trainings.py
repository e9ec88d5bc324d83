"""Trainings of projects, from the wish to the verdict."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import TrainingRow

__all__ = ["Training", "TrainingBook"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training row says."""

    training_id: int
    project_id: int
    reason: str
    status: str
    step: int
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: dict[str, object] | None
    error: str | None


class TrainingBook:
    """Trainings; of each project at most one waits."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def request(self, project_id: int, reason: str) -> int:
        """Ask for a training; return the number of the one that waits already, or of a new one."""
        row = TrainingRow(project_id=project_id, reason=reason, requested_at=now())
        while True:
            waiting = self._waiting(project_id)
            if waiting is not None:
                return waiting
            with contextlib.suppress(IntegrityError):  # somebody else asked between the two
                with self._sessions.write() as session:
                    session.add(row)
                return row.training_id

    def _waiting(self, project_id: int) -> int | None:
        with self._sessions.read() as session:
            return session.scalar(
                select(TrainingRow.training_id).where(
                    TrainingRow.project_id == project_id, TrainingRow.status == "queued"
                )
            )

    def start(self, training_id: int, *, through_sequence: int) -> None:
        """Mark a training as running on the corrections up to an event."""
        self._set(
            training_id, status="running", started_at=now(), through_sequence=through_sequence, error=None
        )

    def note_progress(self, training_id: int, *, step: int, steps: int) -> None:
        """Note how far a training is."""
        self._set(training_id, step=step, steps=steps)

    def finish(self, training_id: int, outcome: dict[str, object]) -> None:
        """Keep a training's verdict."""
        self._set(training_id, status="finished", finished_at=now(), outcome=outcome)

    def fail(self, training_id: int, error: str) -> None:
        """Keep why a training failed."""
        self._set(training_id, status="failed", finished_at=now(), error=error[:4000])

    def get(self, training_id: int) -> Training | None:
        """Return a training, or None."""
        with self._sessions.read() as session:
            row = session.get(TrainingRow, training_id)
            return None if row is None else _training(row)

    def of(self, project_id: int | None = None, *, status: str | None = None) -> tuple[Training, ...]:
        """Return trainings, oldest first."""
        query = select(TrainingRow).order_by(TrainingRow.training_id)
        if project_id is not None:
            query = query.where(TrainingRow.project_id == project_id)
        if status is not None:
            query = query.where(TrainingRow.status == status)
        with self._sessions.read() as session:
            return tuple(_training(row) for row in session.scalars(query))

    def trained_through(self, project_id: int) -> int:
        """Return the newest event that a running or finished training has seen."""
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.max(TrainingRow.through_sequence)).where(
                        TrainingRow.project_id == project_id, TrainingRow.status.in_(("running", "finished"))
                    )
                )
                or 0
            )

    def _set(self, training_id: int, **values: object) -> None:
        with self._sessions.write() as session:
            session.execute(
                update(TrainingRow).where(TrainingRow.training_id == training_id).values(**values)
            )


def _training(row: TrainingRow) -> Training:
    return Training(
        training_id=row.training_id,
        project_id=row.project_id,
        reason=row.reason,
        status=row.status,
        step=row.step,
        steps=row.steps,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        error=row.error,
    )
