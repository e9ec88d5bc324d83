"""Trainings of projects: each is a job, and a note of the versions that it learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from maskloop.store.jobs import Job, JobKind, JobRepository, JobStatus
from maskloop.store.sessions import Sessions
from maskloop.store.tables import JobRow, TrainingRow

__all__ = ["Training", "TrainingRepository"]

STATUSES = {
    JobStatus.WAITING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.DONE: "finished",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.DROPPED: "dropped",
    JobStatus.DEAD: "failed",
}
# Also one that failed: one more correction would not make it succeed.
COUNTED = (JobStatus.RUNNING, JobStatus.WAITING, JobStatus.DONE, JobStatus.DEAD)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training stands."""

    training_id: int  # its job's number
    project_id: int
    reason: str
    status: str  # queued, running, finished, failed, cancelled or dropped
    step: int
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: dict[str, object] | None
    error: str | None


class TrainingRepository:
    """Trainings; of each project at most one waits and at most one runs."""

    def __init__(self, sessions: Sessions, jobs: JobRepository) -> None:
        self._sessions = sessions
        self._jobs = jobs

    def begin(self, training_id: int, project_id: int, *, through_version: int) -> None:
        """Store up to which version a training learns; when it is repeated, the first note stays."""
        with self._sessions.write() as session:
            if session.get(TrainingRow, training_id) is None:
                session.add(
                    TrainingRow(
                        training_id=training_id, project_id=project_id, through_version=through_version
                    )
                )

    def newest_seen(self, training_id: int) -> int | None:
        """Return the newest version that one training learns from; None where it has not begun."""
        with self._sessions.read() as session:
            row = session.get(TrainingRow, training_id)
            return None if row is None else row.through_version

    def get(self, training_id: int) -> Training | None:
        """Return a training, or None."""
        job = self._jobs.get(training_id)
        return _training(job) if job is not None and job.kind is JobKind.TRAINING else None

    def of(self, project_id: int | None = None, *, limit: int = 1000) -> tuple[Training, ...]:
        """Return the newest trainings, oldest first."""
        found = self._jobs.find(kind=JobKind.TRAINING, project_id=project_id, limit=limit)
        return tuple(_training(job) for job in found)

    def trained_through(self, project_id: int, *, but: int | None = None) -> int:
        """Return the newest version that a training has seen, without cancelled and dropped trainings.

        Args:
            project_id: Label Studio's number.
            but: a training that is left out; None for none.
        """
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.max(TrainingRow.through_version))
                    .join(JobRow, JobRow.job_id == TrainingRow.training_id)
                    .where(
                        TrainingRow.project_id == project_id,
                        TrainingRow.training_id != (-1 if but is None else but),
                        JobRow.status.in_(COUNTED),
                    )
                )
                or 0
            )


def _training(job: Job) -> Training:
    return Training(
        training_id=job.job_id,
        project_id=job.project_id,
        reason=job.action,
        status=STATUSES[job.status],
        step=job.done,
        steps=job.total,
        started_at=job.started_at,
        finished_at=job.finished_at,
        outcome=job.outcome,
        error=job.error,
    )
