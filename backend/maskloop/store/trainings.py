"""Trainings of projects, from the wish to the verdict: a job each, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from maskloop.store.jobs import Job, JobBook, JobKind, JobStatus
from maskloop.store.sessions import Sessions
from maskloop.store.tables import JobRow, TrainingRow

__all__ = ["Training", "TrainingBook"]

STATUSES = {
    JobStatus.WAITING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.DONE: "finished",
}
# Also one that failed: the next correction alone will not mend it.
COUNTED = (JobStatus.RUNNING, JobStatus.WAITING, JobStatus.DONE, JobStatus.DEAD)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training stands."""

    training_id: int  # its job's number
    project_id: int
    reason: str
    status: str  # queued, running, finished or failed
    step: int
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: dict[str, object] | None
    error: str | None


class TrainingBook:
    """Trainings; of each project at most one waits and at most one runs."""

    def __init__(self, sessions: Sessions, jobs: JobBook) -> None:
        self._sessions = sessions
        self._jobs = jobs

    def begin(self, training_id: int, project_id: int, *, through_version: int) -> None:
        """Note that a training is made from the versions up to one; a repeated one keeps its first note."""
        with self._sessions.write() as session:
            if session.get(TrainingRow, training_id) is None:
                session.add(
                    TrainingRow(
                        training_id=training_id, project_id=project_id, through_version=through_version
                    )
                )

    def get(self, training_id: int) -> Training | None:
        """Return a training, or None."""
        job = self._jobs.get(training_id)
        return _training(job) if job is not None and job.kind is JobKind.TRAINING else None

    def of(self, project_id: int | None = None, *, limit: int = 1000) -> tuple[Training, ...]:
        """Return the newest trainings, oldest first."""
        found = self._jobs.find(kind=JobKind.TRAINING, project_id=project_id, limit=limit)
        return tuple(_training(job) for job in found)

    def trained_through(self, project_id: int) -> int:
        """Return the newest version that a training has seen, one that was given up by hand left out."""
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.max(TrainingRow.through_version))
                    .join(JobRow, JobRow.job_id == TrainingRow.training_id)
                    .where(TrainingRow.project_id == project_id, JobRow.status.in_(COUNTED))
                )
                or 0
            )


def _training(job: Job) -> Training:
    status = STATUSES.get(job.status, "failed")
    cancelled = "it was cancelled" if job.status in (JobStatus.CANCELLED, JobStatus.DROPPED) else None
    return Training(
        training_id=job.job_id,
        project_id=job.project_id,
        reason=job.action,
        status=status,
        step=job.done,
        steps=job.total,
        started_at=job.started_at,
        finished_at=job.finished_at,
        outcome=job.outcome,
        error=cancelled or job.error,
    )
