"""The parts of a prelabelling, which any worker may take: jobs with a version and the tasks to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, select

from maskloop.store.jobs import Job, JobKind, JobRepository, JobStatus
from maskloop.store.sessions import Sessions
from maskloop.store.tables import JobRow

__all__ = ["ShardRepository"]

OPEN = (JobStatus.WAITING, JobStatus.RUNNING)


class ShardRepository:
    """Shards, by project."""

    def __init__(self, sessions: Sessions, jobs: JobRepository) -> None:
        self._sessions = sessions
        self._jobs = jobs

    def add(self, project_id: int, model_version: str, shards: Iterable[Sequence[int]]) -> tuple[int, ...]:
        """Ask for shards, each some tasks, and return their jobs' numbers."""
        with self._sessions.write() as session:
            at = self._sessions.clock(session)
            rows = [
                JobRow(
                    kind=JobKind.SHARD.value,
                    project_id=project_id,
                    action=model_version,
                    subject_ids=list(task_ids),
                    due_at=at,
                    created_at=at,
                    total=len(task_ids),
                )
                for task_ids in shards
            ]
            session.add_all(rows)
        return tuple(row.job_id for row in rows)

    def open(self, project_id: int) -> tuple[Job, ...]:
        """Return the shards that wait or run, oldest first."""
        return self._jobs.find(statuses=OPEN, kind=JobKind.SHARD, project_id=project_id, limit=100_000)

    def open_count(self, project_id: int) -> int:
        """Return how many wait or run."""
        with self._sessions.read() as session:
            query = select(JobRow.job_id).where(
                JobRow.project_id == project_id, JobRow.kind == JobKind.SHARD, JobRow.status.in_(OPEN)
            )
            return len(session.scalars(query).all())

    def due(self, project_id: int) -> tuple[Job, ...]:
        """Return the shards that no worker holds, oldest first."""
        return self._jobs.due(kind=JobKind.SHARD, project_id=project_id, limit=100)

    def cancel(self, project_id: int, *, but: str | None = None) -> int:
        """End a project's shards, at their next step where they run; return how many.

        Args:
            project_id: Label Studio's number.
            but: the shards of this version stay.
        """
        doomed = [job for job in self.open(project_id) if job.action != but]
        return sum(self._jobs.cancel(job.job_id) is not None for job in doomed)

    def forget_ended(self, project_id: int) -> None:
        """Forget shards that have ended; what they found is kept elsewhere."""
        with self._sessions.write() as session:
            session.execute(
                delete(JobRow).where(
                    JobRow.project_id == project_id,
                    JobRow.kind == JobKind.SHARD,
                    JobRow.status.not_in(OPEN),
                )
            )

    def given_up(self, project_id: int) -> tuple[Job, ...]:
        """Return the shards that failed for good."""
        return self._jobs.find(statuses=[JobStatus.DEAD], kind=JobKind.SHARD, project_id=project_id)
