"""What monitoring asks of the database: a fixed number of queries, whatever the number of projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from maskloop.store.job_types import JobStatus
from maskloop.store.sessions import Sessions
from maskloop.store.tables import AnnotationRow, JobRow

__all__ = ["LoopCounts", "LoopCountsRepository", "RunningTraining"]

RELEASES = frozenset(("promoted", "waiting", "shadow", "refused", "failed"))


@dataclass(frozen=True, kw_only=True)
class RunningTraining:
    """How far a training is."""

    project_id: int
    step: int
    steps: int  # 0: not known yet
    details: Mapping[str, float]  # loss, images_per_s, memory_mb, eta_s; without those not known yet


@dataclass(frozen=True, kw_only=True)
class LoopCounts:
    """The loop at one time."""

    oldest_due_s: Mapping[str, float]  # kind of job -> how long the oldest one that is due waits
    lapsed: Mapping[str, int]  # kind of job -> running jobs whose worker gave no sign of life in time
    overdue_s: Mapping[
        str, float
    ]  # kind of running job -> since when its oldest lease is over; < 0: it holds
    jobs: Mapping[tuple[str, str], int]  # kind, status -> jobs
    annotations: Mapping[tuple[int, str, str], int]  # project, state, split -> annotations
    trainings: tuple[RunningTraining, ...]
    releases: Mapping[tuple[int, str], int]  # project, release (or failed) -> trainings that ended


class LoopCountsRepository:
    """Reads only."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def read(self) -> LoopCounts:
        """Count.

        Raises:
            StoreError: the database does not answer.
        """
        with self._sessions.read() as session:
            at = self._sessions.clock(session)
            by_kind = select(JobRow.kind, func.min(JobRow.due_at)).group_by(JobRow.kind)
            due = session.execute(by_kind.where(JobRow.status == JobStatus.WAITING, JobRow.due_at <= at))
            oldest = {str(kind): _age_s(since, at) for kind, since in due}
            lapsed = session.execute(
                select(JobRow.kind, func.count())
                .where(JobRow.status == JobStatus.RUNNING, JobRow.lease_until < at)
                .group_by(JobRow.kind)
            )
            leases = session.execute(
                select(JobRow.kind, func.min(JobRow.lease_until))
                .where(JobRow.status == JobStatus.RUNNING, JobRow.lease_until.is_not(None))
                .group_by(JobRow.kind)
            )
            overdue = {str(kind): (at - until).total_seconds() for kind, until in leases if until is not None}
            jobs = session.execute(
                select(JobRow.kind, JobRow.status, func.count()).group_by(JobRow.kind, JobRow.status)
            )
            annotations = session.execute(
                select(
                    AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split, func.count()
                ).group_by(AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split)
            )
            trainings = session.execute(
                select(JobRow.project_id, JobRow.done, JobRow.total, JobRow.details).where(
                    JobRow.status == JobStatus.RUNNING, JobRow.kind == "training"
                )
            )
            ended = (  # a subquery: PostgreSQL takes an expression with a parameter twice for two
                select(
                    JobRow.project_id, JobRow.status, JobRow.outcome["release"].as_string().label("release")
                )
                .where(JobRow.kind == "training", JobRow.status.in_((JobStatus.DONE, JobStatus.DEAD)))
                .subquery()
            )
            outcomes = session.execute(
                select(ended.c.project_id, ended.c.status, ended.c.release, func.count()).group_by(
                    ended.c.project_id, ended.c.status, ended.c.release
                )
            )
            releases: dict[tuple[int, str], int] = {}
            for project_id, status, kind, count in outcomes:
                release = "failed" if status == JobStatus.DEAD else str(kind or "none")
                key = (project_id, release if release in RELEASES else "none")
                releases[key] = releases.get(key, 0) + count
            return LoopCounts(
                oldest_due_s=oldest,
                lapsed={str(kind): count for kind, count in lapsed},
                overdue_s=overdue,
                jobs={(str(kind), str(status)): count for kind, status, count in jobs},
                annotations={(one, str(state), str(split)): n for one, state, split, n in annotations},
                trainings=tuple(
                    RunningTraining(project_id=project_id, step=done, steps=total, details=_numbers(details))
                    for project_id, done, total, details in trainings
                ),
                releases=releases,
            )


def _numbers(details: object) -> dict[str, float]:
    """Return the numbers among stored details."""
    if not isinstance(details, Mapping):
        return {}
    return {str(name): float(one) for name, one in details.items() if isinstance(one, int | float)}


def _age_s(since: datetime, at: datetime) -> float:
    return max((at - since).total_seconds(), 0.0)
