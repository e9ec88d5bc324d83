"""What monitoring asks of the database: a fixed number of queries, whatever the number of projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from maskloop.store.job_types import JobStatus
from maskloop.store.sessions import Sessions
from maskloop.store.tables import AnnotationRow, JobRow, MasksRow, VersionRow

__all__ = ["LoopCounts", "LoopCountsRepository", "RunningTraining"]

EDITS = ("kept", "changed", "added", "removed")


@dataclass(frozen=True, kw_only=True)
class RunningTraining:
    """How far a training is."""

    project_id: int
    step: int
    steps: int  # 0: not known yet


@dataclass(frozen=True, kw_only=True)
class LoopCounts:
    """The loop at one time."""

    oldest_due_s: Mapping[str, float]  # kind of job -> how long the oldest one that is due waits
    lapsed: Mapping[str, int]  # kind of job -> running jobs whose worker gave no sign of life in time
    jobs: Mapping[tuple[str, str], int]  # kind, status -> jobs
    annotations: Mapping[tuple[int, str, str], int]  # project, state, split -> annotations
    edits: Mapping[tuple[int, str], int]  # project, kind of edit -> regions, of all versions that are kept
    trainings: tuple[RunningTraining, ...]


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
            jobs = session.execute(
                select(JobRow.kind, JobRow.status, func.count()).group_by(JobRow.kind, JobRow.status)
            )
            annotations = session.execute(
                select(
                    AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split, func.count()
                ).group_by(AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split)
            )
            edits = session.execute(
                select(VersionRow.project_id, *(func.sum(getattr(MasksRow, name)) for name in EDITS))
                .join(VersionRow, VersionRow.version_id == MasksRow.version_id)
                .group_by(VersionRow.project_id)
            )
            trainings = session.execute(
                select(JobRow.project_id, JobRow.done, JobRow.total).where(
                    JobRow.status == JobStatus.RUNNING, JobRow.kind == "training"
                )
            )
            return LoopCounts(
                oldest_due_s=oldest,
                lapsed={str(kind): count for kind, count in lapsed},
                jobs={(str(kind), str(status)): count for kind, status, count in jobs},
                annotations={(one, str(state), str(split)): n for one, state, split, n in annotations},
                edits={
                    (project_id, name): int(count or 0)
                    for project_id, *counts in edits
                    for name, count in zip(EDITS, counts, strict=True)
                },
                trainings=tuple(
                    RunningTraining(project_id=project_id, step=done, steps=total)
                    for project_id, done, total in trainings
                ),
            )


def _age_s(since: datetime, at: datetime) -> float:
    return max((at - since).total_seconds(), 0.0)
