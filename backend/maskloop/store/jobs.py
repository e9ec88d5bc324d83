"""Jobs: inbox, outbox and dead-letter list in one table.

A worker holds a lease on the job that it works on, and renews it. When the worker dies, the lease expires
and another worker takes the job. So no job is lost with a process or with the queue, and no two workers do
one job at the same time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, and_, delete, exists, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from maskloop.store.job_types import Heartbeat, Job, JobKind, JobStatus, NewEvent
from maskloop.store.sessions import Sessions
from maskloop.store.tables import JobRow

__all__ = [
    "LEASE_S",
    "MAX_ATTEMPTS",
    "MAX_LAPSES",
    "MAX_TRANSIENT_ATTEMPTS",
    "Heartbeat",
    "Job",
    "JobKind",
    "JobRepository",
    "JobStatus",
    "NewEvent",
]

LEASE_S = 20.0  # the job of a killed worker continues after this
MAX_ATTEMPTS = 8  # that failed for a reason of the job's own
MAX_TRANSIENT_ATTEMPTS = 100  # that failed because something did not answer
MAX_LAPSES = 25  # a job that kills its worker each time must end
FIRST_RETRY_S = 2.0
MAX_RETRY_S = 300.0
MOST_QUIETS = 10  # a job may be postponed by this many quiet times in all
MANY = (JobKind.EVENT, JobKind.SHARD)  # of these, several of a project may wait and run
KEY_BATCH = 500  # keys in one query


class JobRepository:
    """All jobs. Times are the database server's where there is one."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    # new jobs

    def add_events(self, events: Sequence[NewEvent]) -> list[int | None]:
        """Store events in one transaction; return their numbers, None for those that are stored already."""
        try:
            return self._add_events(events)
        except IntegrityError:  # another process stored one of them at the same moment
            return self._add_events(events)

    def _add_events(self, events: Sequence[NewEvent]) -> list[int | None]:
        with self._sessions.write() as session:
            known = _known_keys(session, [event.key for event in events])
            at = self._sessions.clock(session)
            rows: list[JobRow | None] = []
            for event in events:
                new = event.key not in known
                known.add(event.key)
                rows.append(_event_row(event, at) if new else None)
            session.add_all([row for row in rows if row is not None])
        return [None if row is None else row.job_id for row in rows]

    def request(self, kind: JobKind, project_id: int, reason: str = "", *, quiet_s: float = 0) -> int:
        """Add a job; return its number, or that of the same job where one waits already.

        Args:
            kind: what it does.
            project_id: for which project.
            reason: why; shown in lists.
            quiet_s: start only when no such request came for this time, or after ten times this time in all.
                A request without it makes a job that waits already start at once.
        """
        while True:
            waiting = self._waiting(kind, project_id)
            if waiting is not None:
                self._postpone(waiting, quiet_s)
                return waiting
            with contextlib.suppress(IntegrityError):  # another process added it in between
                with self._sessions.write() as session:
                    at = self._sessions.clock(session)
                    row = JobRow(
                        kind=kind.value,
                        project_id=project_id,
                        action=reason,
                        subject_ids=[],
                        due_at=at + timedelta(seconds=quiet_s),
                        created_at=at,
                    )
                    session.add(row)
                return row.job_id

    def _postpone(self, job_id: int, quiet_s: float) -> None:
        with self._sessions.write() as session:
            row = session.get(JobRow, job_id, with_for_update=True)
            if row is None or row.status != JobStatus.WAITING or row.attempts:
                return
            at = self._sessions.clock(session)
            latest = row.created_at + timedelta(seconds=MOST_QUIETS * quiet_s)
            if quiet_s == 0:
                row.due_at = min(row.due_at, at)
            elif row.due_at > at:  # else it is due already
                row.due_at = min(at + timedelta(seconds=quiet_s), max(latest, row.due_at))

    # working

    def claim(self, job_id: int, owner: str, *, lease_s: float = LEASE_S) -> Job | None:
        """Take a job that is due, or whose lease has expired.

        Returns:
            The job; None where it has ended, is not due, is held by another worker, or where another job of
            its kind and project runs.
        """
        with contextlib.suppress(IntegrityError), self._sessions.write() as session:
            at = self._sessions.clock(session)
            row = session.get(JobRow, job_id, with_for_update=True)
            if row is None or not _is_claimable(row, at):
                return None
            if row.status == JobStatus.RUNNING:
                row.lapses += 1
                if row.lapses > MAX_LAPSES:
                    row.error = f"its worker ended {row.lapses} times while it ran"
                    _end(row, JobStatus.DEAD, at)
                    return None
            row.status, row.owner = JobStatus.RUNNING.value, owner
            # This may wait for another job of the kind that is just ending, so the time is asked afterwards.
            session.flush()
            at = self._sessions.clock(session)
            row.lease_until = at + timedelta(seconds=lease_s)
            row.started_at = row.started_at or at
            return _job(row)
        return None

    def renew(
        self,
        job_id: int,
        owner: str,
        *,
        done: int = 0,
        total: int = 0,
        details: Mapping[str, float] | None = None,
        lease_s: float = LEASE_S,
    ) -> Heartbeat:
        """Extend a lease, and store how far the job is and, in `details`, how it goes."""
        with self._sessions.write() as session:
            row = self._held(session, job_id, owner)
            if row is None:
                return Heartbeat(held=False, cancel=False)
            row.lease_until = self._sessions.clock(session) + timedelta(seconds=lease_s)
            row.done, row.total = done, total
            if details:
                # JSON of PostgreSQL knows neither infinity nor NaN.
                row.details = {name: value for name, value in details.items() if math.isfinite(value)}
            return Heartbeat(held=True, cancel=row.cancel_requested)

    def narrow(self, job_id: int, owner: str, subject_ids: Sequence[int]) -> None:
        """Reduce an event to the subjects that are still to be done."""
        with self._sessions.write() as session:
            row = self._held(session, job_id, owner)
            if row is not None:
                row.subject_ids = list(subject_ids)

    def finish(self, job_id: int, owner: str, outcome: dict[str, object] | None = None) -> bool:
        """Mark a job as done; False where it is no longer the owner's."""
        with self._sessions.write() as session:
            row = self._held(session, job_id, owner)
            if row is None:
                return False
            row.outcome, row.error = outcome, None
            _end(row, JobStatus.DONE, self._sessions.clock(session))
            return True

    def fail(
        self, job_id: int, owner: str, error: str, *, retry: bool = True, max_attempts: int = MAX_ATTEMPTS
    ) -> JobStatus | None:
        """Store a failed attempt; return the job's new status, None where it is no longer the owner's."""
        try:
            return self._fail(job_id, owner, error, retry=retry, max_attempts=max_attempts)
        except IntegrityError:  # the same job waits already
            return self._fail(job_id, owner, error, retry=retry, max_attempts=max_attempts, superseded=True)

    def _fail(
        self,
        job_id: int,
        owner: str,
        error: str,
        *,
        retry: bool,
        max_attempts: int,
        superseded: bool = False,
    ) -> JobStatus | None:
        with self._sessions.write() as session:
            row = self._held(session, job_id, owner)
            if row is None:
                return None
            at = self._sessions.clock(session)
            row.attempts += 1
            row.error = error.replace("\0", "")[:4000]
            if superseded:
                _end(row, JobStatus.DROPPED, at)
            elif not retry or row.attempts >= max_attempts:
                _end(row, JobStatus.DEAD, at)
            else:
                row.status, row.owner, row.lease_until = JobStatus.WAITING.value, None, None
                delay_s = min(FIRST_RETRY_S * 2 ** min(row.attempts, 10), MAX_RETRY_S)
                row.due_at = at + timedelta(seconds=delay_s)
            return JobStatus(row.status)

    def end_cancelled(self, job_id: int, owner: str) -> None:
        """Mark a job as cancelled."""
        with self._sessions.write() as session:
            row = self._held(session, job_id, owner)
            if row is not None:
                _end(row, JobStatus.CANCELLED, self._sessions.clock(session))

    def due(
        self, *, kind: JobKind | None = None, project_id: int | None = None, limit: int = 1000
    ) -> tuple[Job, ...]:
        """Return jobs that are due and that no worker holds, oldest first."""
        with self._sessions.read() as session:
            at = self._sessions.clock(session)
            other = aliased(JobRow)
            goes_on = exists().where(
                JobRow.kind.not_in(MANY),
                other.kind == JobRow.kind,
                other.project_id == JobRow.project_id,
                other.status == JobStatus.RUNNING,
            )
            query = select(JobRow).where(
                or_(
                    # A job that waits for another one to end is queued when that one ends.
                    and_(JobRow.status == JobStatus.WAITING, JobRow.due_at <= at, ~goes_on),
                    and_(JobRow.status == JobStatus.RUNNING, JobRow.lease_until < at),
                )
            )
            if kind is not None:
                query = query.where(JobRow.kind.in_(kind.stored))
            if project_id is not None:
                query = query.where(JobRow.project_id == project_id)
            return _jobs(session, query.order_by(JobRow.due_at, JobRow.job_id).limit(limit))

    # reading and changing

    def get(self, job_id: int) -> Job | None:
        """Return a job, or None."""
        with self._sessions.read() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else _job(row)

    def find(
        self,
        *,
        statuses: Sequence[JobStatus] = (),
        kind: JobKind | None = None,
        project_id: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> tuple[Job, ...]:
        """Return the newest jobs that fit, oldest first; only those with smaller numbers than `before_id`."""
        query = select(JobRow)
        if before_id is not None:
            query = query.where(JobRow.job_id < before_id)
        if statuses:
            query = query.where(JobRow.status.in_([status.value for status in statuses]))
        if kind is not None:
            query = query.where(JobRow.kind.in_(kind.stored))
        if project_id is not None:
            query = query.where(JobRow.project_id == project_id)
        with self._sessions.read() as session:
            return tuple(reversed(_jobs(session, query.order_by(JobRow.job_id.desc()).limit(limit))))

    def counts(self, project_id: int | None = None) -> dict[str, int]:
        """Return how many jobs there are of each status."""
        query = select(JobRow.status, func.count()).group_by(JobRow.status)
        if project_id is not None:
            query = query.where(JobRow.project_id == project_id)
        with self._sessions.read() as session:
            return {status: count for status, count in session.execute(query)}

    def retry(self, job_id: int) -> int | None:
        """Make a job due now that has ended without success, or that waits for its next attempt.

        Returns:
            Its number, or that of the same job where one waits already; None where the job runs or is done.
        """

        def change(row: JobRow, at: datetime) -> None:
            row.attempts = row.lapses = 0
            row.cancel_requested = False
            row.status, row.due_at = JobStatus.WAITING.value, at
            row.finished_at = row.owner = row.lease_until = None

        asleep = (JobStatus.DEAD, JobStatus.CANCELLED, JobStatus.DROPPED, JobStatus.WAITING)
        try:
            return job_id if self._change(job_id, asleep, change) else None
        except IntegrityError:
            job = self.get(job_id)
            return self._waiting(job.kind, job.project_id) if job is not None else None

    def drop(self, job_id: int) -> bool:
        """Remove a job that is dead or waits from the work to do; False where it is neither."""

        def change(row: JobRow, at: datetime) -> None:
            _end(row, JobStatus.DROPPED, at)

        return self._change(job_id, (JobStatus.DEAD, JobStatus.WAITING), change)

    def cancel(self, job_id: int) -> JobStatus | None:
        """End a job, and with a prelabelling its shards: at once where it waits, else at its next step.

        Returns:
            Its status now; None where it has ended already.
        """

        def end(row: JobRow, at: datetime) -> None:
            _end(row, JobStatus.CANCELLED, at)

        def ask(row: JobRow, _at: datetime) -> None:
            row.cancel_requested = True

        became = None
        if self._change(job_id, (JobStatus.WAITING,), end):
            became = JobStatus.CANCELLED
        elif self._change(job_id, (JobStatus.RUNNING,), ask):
            became = JobStatus.RUNNING
        job = self.get(job_id) if became is not None else None
        if job is not None and job.kind is JobKind.PRELABEL:
            for shard_id in self._shards(job.project_id):
                self.cancel(shard_id)
        return became

    def prune(self, before: datetime) -> int:
        """Delete jobs that ended well before a time; trainings and dead jobs stay."""
        with self._sessions.write() as session:
            result = session.execute(
                delete(JobRow).where(
                    JobRow.status.in_((JobStatus.DONE, JobStatus.CANCELLED, JobStatus.DROPPED)),
                    JobRow.kind != JobKind.TRAINING,
                    JobRow.due_at < before,
                    JobRow.finished_at < before,
                )
            )
            return int(getattr(result, "rowcount", 0))

    def _shards(self, project_id: int) -> tuple[int, ...]:
        with self._sessions.read() as session:
            query = select(JobRow.job_id).where(
                JobRow.project_id == project_id,
                JobRow.kind == JobKind.SHARD,
                JobRow.status.in_((JobStatus.WAITING, JobStatus.RUNNING)),
            )
            return tuple(session.scalars(query))

    def _waiting(self, kind: JobKind, project_id: int) -> int | None:
        with self._sessions.read() as session:
            return session.scalar(
                select(JobRow.job_id).where(
                    JobRow.project_id == project_id,
                    JobRow.kind.in_(kind.stored),
                    JobRow.status == JobStatus.WAITING,
                )
            )

    def _change(
        self, job_id: int, statuses: Sequence[JobStatus], change: Callable[[JobRow, datetime], None]
    ) -> bool:
        with self._sessions.write() as session:
            row = session.get(JobRow, job_id, with_for_update=True)
            if row is None or JobStatus(row.status) not in statuses:
                return False
            change(row, self._sessions.clock(session))
            return True

    @staticmethod
    def _held(session: Session, job_id: int, owner: str) -> JobRow | None:
        row = session.get(JobRow, job_id, with_for_update=True)
        held = row is not None and row.status == JobStatus.RUNNING and row.owner == owner
        return row if held else None


def _known_keys(session: Session, keys: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(keys), KEY_BATCH):
        some = keys[start : start + KEY_BATCH]
        known.update(key for key in session.scalars(select(JobRow.key).where(JobRow.key.in_(some))) if key)
    return known


def _event_row(event: NewEvent, at: datetime) -> JobRow:
    return JobRow(
        kind=JobKind.EVENT.value,
        project_id=event.project_id,
        action=event.action,
        subject_ids=list(event.subject_ids),
        key=event.key,
        due_at=at,
        created_at=at,
    )


def _is_claimable(row: JobRow, at: datetime) -> bool:
    if row.status == JobStatus.WAITING:
        return row.due_at <= at
    return row.status == JobStatus.RUNNING and row.lease_until is not None and row.lease_until < at


def _end(row: JobRow, status: JobStatus, at: datetime) -> None:
    row.status, row.finished_at, row.owner, row.lease_until = status.value, at, None, None


def _jobs(session: Session, query: Select[JobRow]) -> tuple[Job, ...]:
    return tuple(_job(row) for row in session.scalars(query))


def _job(row: JobRow) -> Job:
    return Job(
        job_id=row.job_id,
        kind=JobKind(row.kind),
        project_id=row.project_id,
        action=row.action,
        subject_ids=tuple(row.subject_ids),
        status=JobStatus(row.status),
        attempts=row.attempts,
        error=row.error,
        due_at=row.due_at,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        owner=row.owner,
        done=row.done,
        total=row.total,
        cancel_requested=row.cancel_requested,
        outcome=row.outcome,
        lease_until=row.lease_until,
        details=dict(row.details or {}),
    )
