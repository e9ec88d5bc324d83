"""Counts for people who look at all projects at once: few queries, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session

from maskloop.store.job_types import JobKind, JobStatus
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import (
    AnnotationRow,
    JobRow,
    MasksRow,
    ProjectRow,
    ScoredRow,
    SetAsideRow,
    TrainingRow,
)
from maskloop.store.trainings import COUNTED

__all__ = ["DayCount", "HoldoutState", "NextTask", "OverviewRepository", "ProjectCounts"]

SPLITS = ("train", "holdout")


@dataclass(frozen=True, kw_only=True)
class ProjectCounts:
    """How a connected project stands."""

    project_id: int
    label_config: str  # XML, as it was last read
    connected_at: datetime
    missing_since: datetime | None  # Label Studio answers 404 since then
    train: int  # submitted annotations to learn from
    holdout: int  # submitted annotations to judge by
    skipped: int
    new_corrections: int  # to learn from, that no training has seen
    set_aside: int  # annotations that could not be read
    boxes: int  # regions of submitted annotations that were given as boxes
    waiting: int  # jobs
    running: int
    dead: int  # jobs that failed too often


@dataclass(frozen=True, kw_only=True)
class HoldoutState:
    """The annotations that models are judged by."""

    annotations: int
    oldest: datetime | None  # when the one that was changed least lately was saved
    newest: datetime | None
    judged: int  # trainings that were judged by the holdout since the project began


@dataclass(frozen=True, kw_only=True)
class DayCount:
    """Annotations that were last saved on one day (UTC)."""

    day: date
    annotations: int


@dataclass(frozen=True, kw_only=True)
class NextTask:
    """An unlabelled task, and why it comes when it comes."""

    task_id: int
    score: float  # its place: the lowest comes first
    confidence: float  # 0..1, of the model
    signals: Mapping[str, float | None]  # doubts, each 0..1
    cluster: int | None  # the group of alike images it is in
    at_random: bool  # drawn by chance


class OverviewRepository:
    """Reads only; each method makes a fixed number of queries."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def projects(self, project_ids: Sequence[int]) -> tuple[ProjectCounts, ...]:
        """Return how the connected ones of some projects stand, in the order of their numbers."""
        wanted = list(project_ids)
        with self._sessions.read() as session:
            rows = session.scalars(
                select(ProjectRow).where(ProjectRow.project_id.in_(wanted)).order_by(ProjectRow.project_id)
            ).all()
            annotations = _counts(
                session,
                select(AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split, func.count())
                .where(AnnotationRow.project_id.in_(wanted))
                .group_by(AnnotationRow.project_id, AnnotationRow.state, AnnotationRow.split),
            )
            jobs = _counts(
                session,
                select(JobRow.project_id, JobRow.status, literal(""), func.count())
                .where(
                    JobRow.project_id.in_(wanted),
                    JobRow.status.in_((JobStatus.WAITING, JobStatus.RUNNING, JobStatus.DEAD)),
                )
                .group_by(JobRow.project_id, JobRow.status),
            )
            set_aside = _counts(session, _set_aside_query(wanted))
            boxes = _counts(session, _boxes_query(wanted))
            fresh = _counts(session, _new_query(wanted))
        return tuple(
            ProjectCounts(
                project_id=row.project_id,
                label_config=row.label_config,
                connected_at=row.connected_at,
                missing_since=row.missing_since,
                train=annotations.get((row.project_id, "submitted", "train"), 0),
                holdout=annotations.get((row.project_id, "submitted", "holdout"), 0),
                skipped=sum(annotations.get((row.project_id, "skipped", split), 0) for split in SPLITS),
                new_corrections=fresh.get((row.project_id, "", ""), 0),
                set_aside=set_aside.get((row.project_id, "", ""), 0),
                boxes=boxes.get((row.project_id, "", ""), 0),
                waiting=jobs.get((row.project_id, JobStatus.WAITING.value, ""), 0),
                running=jobs.get((row.project_id, JobStatus.RUNNING.value, ""), 0),
                dead=jobs.get((row.project_id, JobStatus.DEAD.value, ""), 0),
            )
            for row in rows
        )

    def holdout(self, project_id: int) -> HoldoutState:
        """Return how large and how fresh a project's holdout is."""
        query = select(
            func.count(), func.min(AnnotationRow.updated_at), func.max(AnnotationRow.updated_at)
        ).where(
            AnnotationRow.project_id == project_id,
            AnnotationRow.state == "submitted",
            AnnotationRow.split == "holdout",
        )
        judged = select(func.count()).where(
            JobRow.project_id == project_id, JobRow.kind == JobKind.TRAINING, JobRow.status == JobStatus.DONE
        )
        with self._sessions.read() as session:
            annotations, oldest, newest = session.execute(query).one()
            return HoldoutState(
                annotations=annotations, oldest=oldest, newest=newest, judged=session.scalar(judged) or 0
            )

    def labels_by_day(self, project_id: int, *, days: int = 90) -> tuple[DayCount, ...]:
        """Return how many submitted annotations were last saved on each of the last days, oldest first.

        Days without one are left out.
        """
        since = now() - timedelta(days=days)
        with self._sessions.read() as session:
            day = self._day(session)
            query = (
                select(day, func.count())
                .where(
                    AnnotationRow.project_id == project_id,
                    AnnotationRow.state == "submitted",
                    AnnotationRow.updated_at >= since,
                )
                .group_by(day)
                .order_by(day)
            )
            return tuple(
                DayCount(day=date.fromisoformat(str(at)), annotations=count)
                for at, count in session.execute(query)
            )

    def next_tasks(self, project_id: int, model_version: str, *, limit: int = 10) -> tuple[NextTask, ...]:
        """Return the unlabelled tasks that come first in the order of a version, first one first."""
        # Not correlated: SQLite, without statistics, would read all annotations again for every task.
        annotated = select(AnnotationRow.task_id).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"
        )
        query = (
            select(
                ScoredRow.task_id,
                ScoredRow.score,
                ScoredRow.confidence,
                ScoredRow.signals,
                ScoredRow.cluster,
                ScoredRow.at_random,
            )
            .where(
                ScoredRow.project_id == project_id,
                ScoredRow.model_version == model_version,
                ScoredRow.labelled.is_(False),
                ScoredRow.score.is_not(None),
                ScoredRow.task_id.not_in(annotated),
            )
            .order_by(ScoredRow.score, ScoredRow.task_id)
            .limit(limit)
        )
        with self._sessions.read() as session:
            return tuple(
                NextTask(
                    task_id=row.task_id,
                    score=float(row.score),
                    confidence=float(row.confidence or 0.0),
                    signals=dict(row.signals or {}),
                    cluster=row.cluster,
                    at_random=row.at_random,
                )
                for row in session.execute(query)
            )

    def image_keys(self, project_id: int) -> dict[int, str]:
        """Return task -> SHA-256 of its first image, of the tasks with submitted annotations."""
        query = (
            select(AnnotationRow.task_id, MasksRow.image_key)
            .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
            .where(AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
            .order_by(AnnotationRow.annotation_id, MasksRow.view, MasksRow.image_index)
        )
        keys: dict[int, str] = {}
        with self._sessions.read() as session:
            for task_id, key in session.execute(query):
                keys.setdefault(task_id, key)
        return keys

    def sides_of_tasks(self, project_id: int) -> dict[int, str]:
        """Return task -> split (train, holdout or neither) of the tasks with submitted annotations."""
        query = select(AnnotationRow.task_id, AnnotationRow.split).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"
        )
        with self._sessions.read() as session:
            return {task_id: split for task_id, split in session.execute(query)}

    def drawn_twice(self, project_id: int, *, limit: int) -> tuple[int, ...]:
        """Return the versions of the annotations of tasks that have several, of the newest such tasks."""
        submitted = (AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
        tasks = (
            select(AnnotationRow.task_id)
            .where(*submitted)
            .group_by(AnnotationRow.task_id)
            .having(func.count() > 1)
            .order_by(func.max(AnnotationRow.version_id).desc())
            .limit(limit)
        )
        query = select(AnnotationRow.version_id).where(*submitted, AnnotationRow.task_id.in_(tasks))
        with self._sessions.read() as session:
            return tuple(session.scalars(query.order_by(AnnotationRow.annotation_id)))

    def corrections_stamp(self, project_id: int) -> tuple[int, int]:
        """Return a pair that changes whenever the project's submitted annotations do: count, newest version.

        Masks that are derived again without a new version leave it as it is.
        """
        query = select(func.count(), func.coalesce(func.max(AnnotationRow.version_id), 0)).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"
        )
        with self._sessions.read() as session:
            count, newest = session.execute(query).one()
            return int(count), int(newest)

    @staticmethod
    def _day(session: Session) -> ColumnElement[Any]:
        column: ColumnElement[Any] = AnnotationRow.__table__.c.updated_at
        if session.get_bind().dialect.name == "postgresql":
            column = func.timezone("UTC", column)
        return func.date(column)


def _counts(session: Session, query: Any) -> dict[tuple[int, str, str], int]:
    return {(number, first, second): count for number, first, second, count in session.execute(query)}


def _set_aside_query(project_ids: Sequence[int]) -> Any:
    return (
        select(AnnotationRow.project_id, literal(""), literal(""), func.count())
        .join(SetAsideRow, SetAsideRow.version_id == AnnotationRow.version_id)
        .where(AnnotationRow.project_id.in_(project_ids), AnnotationRow.state == "submitted")
        .group_by(AnnotationRow.project_id)
    )


def _boxes_query(project_ids: Sequence[int]) -> Any:
    return (
        select(AnnotationRow.project_id, literal(""), literal(""), func.sum(MasksRow.boxes))
        .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
        .where(
            AnnotationRow.project_id.in_(project_ids),
            AnnotationRow.state == "submitted",
            MasksRow.boxes > 0,
        )
        .group_by(AnnotationRow.project_id)
    )


def _new_query(project_ids: Sequence[int]) -> Any:
    """Count the corrections that no training has seen: as `count_new_corrections`, for many projects."""
    seen = (
        select(TrainingRow.project_id, func.max(TrainingRow.through_version).label("through"))
        .join(JobRow, JobRow.job_id == TrainingRow.training_id)
        .where(TrainingRow.project_id.in_(project_ids), JobRow.status.in_(COUNTED))
        .group_by(TrainingRow.project_id)
        .subquery()
    )
    return (
        select(AnnotationRow.project_id, literal(""), literal(""), func.count())
        .outerjoin(seen, seen.c.project_id == AnnotationRow.project_id)
        .where(
            AnnotationRow.project_id.in_(project_ids),
            AnnotationRow.state == "submitted",
            AnnotationRow.split == "train",
            AnnotationRow.version_id > func.coalesce(seen.c.through, 0),
            select(MasksRow.version_id).where(MasksRow.version_id == AnnotationRow.version_id).exists(),
        )
        .group_by(AnnotationRow.project_id)
    )
