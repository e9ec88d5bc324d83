"""Each model version's prediction of each task, its place in the queue, and whether both are pushed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import AnnotationRow, ScoredRow

__all__ = ["Arranged", "EmptyCounts", "PendingTask", "PoolTask", "ScoreRepository", "ScoredTask"]

Json: TypeAlias = dict[str, Any]
ID_BATCH = 500  # task numbers in one question
SAME_SCORE = 1e-4  # a smaller change is not worth a request
POOL_BATCH = 2000  # rows in memory beside what is kept of them


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredTask:
    """A version's prediction of a task."""

    task_id: int
    confidence: float | None = None  # None: it could not be predicted, and `error` says why
    signals: Mapping[str, float | None] | None = None
    embedding_d: NDArray[np.float32] | None = None
    regions: Sequence[Json] | None = None  # None: there is nothing to push
    error: str | None = None
    labelled: bool = False  # it had an annotation: only its embedding counts
    found: int | None = None  # segments on its images; None where it could not be predicted
    drawn: int | None = None  # of these: segments that annotators are shown
    look_k: NDArray[np.float32] | None = None  # of the least sure image
    made_by: str | None = None  # tag of the version that drew the regions; None: the row's own


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolTask:
    """A task as selection reads it: without regions."""

    task_id: int
    confidence: float
    embedding_d: NDArray[np.float16] | None
    labelled: bool
    score: float | None
    cluster: int | None
    found: int | None = None  # segments; None: an older maskloop stored it


@dataclass(frozen=True, kw_only=True, eq=False)
class WatchedTask:
    """A predicted task as drift is watched: in the order in which tasks were predicted."""

    task_id: int
    confidence: float
    embedding_d: NDArray[np.float16]
    look_k: NDArray[np.float32] | None  # sharpness, light, colour; None: an older maskloop stored it
    labelled: bool  # it had an annotation when it was predicted


@dataclass(frozen=True, kw_only=True)
class EmptyCounts:
    """On how many of a version's predicted tasks without labels there is nothing to see."""

    tasks: int
    finds_nothing: int  # of these: the model finds no segment
    draws_nothing: int  # of these: annotators are shown none


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """The place that selection gave a task."""

    task_id: int
    score: float
    cluster: int | None  # the group of alike images it is in
    queue: int  # the cluster that Label Studio shows
    at_random: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class PendingTask:
    """A task whose prediction, score or cluster is still to be pushed."""

    task_id: int
    regions: list[Json] | None  # None: they were pushed before, its score or cluster has changed since
    score: float
    queue: int


class ScoreRepository:
    """Scores by project, model version and task."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def known(self, project_id: int, model_version: str, task_ids: Sequence[int]) -> dict[int, bool]:
        """Return those of some tasks that have a row -> whether that is done with: pushed, or annotated."""
        found: dict[int, bool] = {}
        with self._sessions.read() as session:
            for some in _batches(task_ids):
                query = select(ScoredRow.task_id, ScoredRow.pushed, ScoredRow.labelled).where(
                    *_of(project_id, model_version), ScoredRow.task_id.in_(some)
                )
                found.update((task, pushed or labelled) for task, pushed, labelled in session.execute(query))
        return found

    def add(self, project_id: int, model_version: str, tasks: Sequence[ScoredTask]) -> None:
        """Store a version's predictions; tasks that have a row already are left as they are."""
        try:
            self._add(project_id, model_version, tasks)
        except IntegrityError:  # another worker stored one of them at the same moment
            self._add(project_id, model_version, tasks)

    def _add(self, project_id: int, model_version: str, tasks: Sequence[ScoredTask]) -> None:
        by_id = {task.task_id: task for task in tasks}
        known = self.known(project_id, model_version, list(by_id))
        with self._sessions.write() as session:
            session.add_all(
                _row(project_id, model_version, task)
                for task_id, task in by_id.items()
                if task_id not in known
            )

    def made_by(self, project_id: int, model_version: str, task_id: int) -> str:
        """Return the version that drew a task's stored prediction of a version: on a trial it is another."""
        query = select(ScoredRow.made_by).where(*_of(project_id, model_version), ScoredRow.task_id == task_id)
        with self._sessions.read() as session:
            return session.scalar(query) or model_version

    def newest_id(self, project_id: int, model_version: str) -> int:
        """Return a number that grows whenever a task of a version is predicted; 0 where none is."""
        query = select(func.max(ScoredRow.scored_id)).where(*_of(project_id, model_version))
        with self._sessions.read() as session:
            return int(session.scalar(query) or 0)

    def watched(self, project_id: int, model_version: str, *, newest: int) -> tuple[WatchedTask, ...]:
        """Return the newest tasks that a version predicted, labelled ones first, each kind oldest first."""
        query = select(
            ScoredRow.task_id,
            ScoredRow.confidence,
            ScoredRow.embedding,
            ScoredRow.labelled,
            ScoredRow.look,
        ).where(
            *_of(project_id, model_version),
            ScoredRow.confidence.is_not(None),
            ScoredRow.embedding.is_not(None),
        )
        found: list[Any] = []
        with self._sessions.read() as session:
            for labelled in (True, False):
                some = query.where(ScoredRow.labelled.is_(labelled))
                rows = session.execute(some.order_by(ScoredRow.scored_id.desc()).limit(newest)).all()
                found += rows[::-1]
        return tuple(
            WatchedTask(
                task_id=task_id,
                confidence=float(confidence),
                embedding_d=np.frombuffer(embedding, dtype=np.float16),
                look_k=None if look is None else np.frombuffer(look, dtype=np.float32),
                labelled=labelled,
            )
            for task_id, confidence, embedding, labelled, look in found
        )

    def pool_tasks(self, project_id: int, model_version: str) -> Iterator[PoolTask]:
        """Yield the tasks that a version could predict, by their numbers."""
        columns = (
            ScoredRow.task_id,
            ScoredRow.confidence,
            ScoredRow.embedding,
            ScoredRow.labelled,
            ScoredRow.score,
            ScoredRow.cluster,
            ScoredRow.found,
        )
        last_id = 0
        while True:
            query = select(*columns).where(
                *_of(project_id, model_version),
                ScoredRow.confidence.is_not(None),
                ScoredRow.task_id > last_id,
            )
            with self._sessions.read() as session:
                rows = session.execute(query.order_by(ScoredRow.task_id).limit(POOL_BATCH)).all()
            for task_id, confidence, embedding, labelled, score, cluster, found in rows:
                yield PoolTask(
                    task_id=task_id,
                    confidence=float(confidence or 0.0),
                    embedding_d=None if embedding is None else np.frombuffer(embedding, dtype=np.float16),
                    labelled=labelled,
                    score=score,
                    cluster=cluster,
                    found=found,
                )
            if len(rows) < POOL_BATCH:
                return
            last_id = rows[-1].task_id

    def has_unarranged(self, project_id: int, model_version: str) -> bool:
        """Return whether a task without labels has no place yet."""
        query = select(ScoredRow.scored_id).where(
            *_of(project_id, model_version),
            ScoredRow.confidence.is_not(None),
            ScoredRow.labelled.is_(False),
            ScoredRow.score.is_(None),
        )
        with self._sessions.read() as session:
            return session.scalar(query.limit(1)) is not None

    def arrange(self, project_id: int, model_version: str, tasks: Sequence[Arranged]) -> None:
        """Store the tasks' places; those whose place has changed by much have to be pushed again."""
        statement = (
            update(ScoredRow)
            .where(
                *_of(project_id, model_version),
                ScoredRow.task_id == bindparam("of_task"),
                or_(
                    ScoredRow.score.is_(None),
                    ScoredRow.queue != bindparam("to_queue"),
                    func.abs(ScoredRow.score - bindparam("to_score")) > SAME_SCORE,
                ),
            )
            .values(
                score=bindparam("to_score"),
                cluster=bindparam("to_cluster"),
                queue=bindparam("to_queue"),
                at_random=bindparam("to_random"),
                pushed=False,
            )
            .execution_options(synchronize_session=False)
        )
        for some in _batches(tasks):
            values = [
                {
                    "of_task": task.task_id,
                    "to_score": task.score,
                    "to_cluster": task.cluster,
                    "to_queue": task.queue,
                    "to_random": task.at_random,
                }
                for task in some
            ]
            with self._sessions.write() as session:
                session.connection().execute(statement, values)

    def pending(
        self, project_id: int, model_version: str, *, after_id: int = 0, limit: int = 100
    ) -> tuple[PendingTask, ...]:
        """Return tasks that have to be pushed, by their numbers."""
        query = select(ScoredRow.task_id, ScoredRow.regions, ScoredRow.score, ScoredRow.queue).where(
            *_pending(project_id, model_version), ScoredRow.task_id > after_id
        )
        with self._sessions.read() as session:
            rows = session.execute(query.order_by(ScoredRow.task_id).limit(limit)).all()
        return tuple(
            PendingTask(
                task_id=task_id,
                regions=None if regions is None else json.loads(zlib.decompress(regions)),
                score=float(score or 0.0),
                queue=int(queue or 0),
            )
            for task_id, regions, score, queue in rows
        )

    def mark_pushed(self, project_id: int, model_version: str, task_ids: Sequence[int]) -> None:
        """Mark tasks as pushed."""
        self._set(project_id, model_version, task_ids, pushed=True, regions=None)

    def note_labelled(self, project_id: int, model_version: str, task_ids: Sequence[int]) -> None:
        """Mark tasks as annotated before they were pushed: only their embedding is used."""
        self._set(project_id, model_version, task_ids, labelled=True, pushed=True, regions=None)

    def placed(self, project_id: int, model_version: str, task_ids: Sequence[int]) -> dict[int, float]:
        """Return those of some tasks that were pushed -> the score that they were pushed with."""
        found: dict[int, float] = {}
        with self._sessions.read() as session:
            for some in _batches(task_ids):
                query = select(ScoredRow.task_id, ScoredRow.score).where(
                    *_of(project_id, model_version),
                    ScoredRow.task_id.in_(some),
                    ScoredRow.pushed,
                    ScoredRow.score.is_not(None),
                )
                found.update((task_id, float(score or 0.0)) for task_id, score in session.execute(query))
        return found

    def give_up(self, project_id: int, model_version: str, task_id: int, error: str) -> None:
        """Store why Label Studio refuses a task's prediction."""
        self._set(project_id, model_version, [task_id], error=error[:2000])

    def errors(self, project_id: int, model_version: str) -> dict[int, str]:
        """Return task -> why it has no prediction."""
        query = select(ScoredRow.task_id, ScoredRow.error).where(
            *_of(project_id, model_version), ScoredRow.error.is_not(None)
        )
        with self._sessions.read() as session:
            return {task_id: error or "" for task_id, error in session.execute(query)}

    def counts(self, project_id: int, model_version: str) -> tuple[int, int]:
        """Return how many tasks without labels have a score, and how many of them are pushed."""
        query = select(func.count(), func.count().filter(ScoredRow.pushed)).where(
            *_of(project_id, model_version), ScoredRow.confidence.is_not(None), ~ScoredRow.labelled
        )
        with self._sessions.read() as session:
            scored, pushed = session.execute(query).one()
        return int(scored), int(pushed)

    def empty_counts(self, project_id: int, model_version: str) -> EmptyCounts:
        """Return on how many tasks without labels a version finds and draws nothing."""
        query = select(
            func.count(),
            func.count().filter(ScoredRow.found == 0),
            func.count().filter(ScoredRow.drawn == 0),
        ).where(*_of(project_id, model_version), ScoredRow.found.is_not(None), ~ScoredRow.labelled)
        with self._sessions.read() as session:
            tasks, without_found, without_drawn = session.execute(query).one()
        return EmptyCounts(
            tasks=int(tasks), finds_nothing=int(without_found), draws_nothing=int(without_drawn)
        )

    def versions(self, project_id: int) -> frozenset[str]:
        """Return the tags of the versions that have rows."""
        query = select(ScoredRow.model_version).where(ScoredRow.project_id == project_id).distinct()
        with self._sessions.read() as session:
            return frozenset(session.scalars(query))

    def forget_errors(self, project_id: int, model_version: str) -> None:
        """Delete the rows of tasks that failed, so that they are tried again."""
        self._delete(*_of(project_id, model_version), ScoredRow.error.is_not(None))

    def forget_tasks(
        self, project_id: int, task_ids: Sequence[int], *, model_version: str | None = None
    ) -> None:
        """Delete the rows of tasks, of all versions or of one."""
        of_version = () if model_version is None else (ScoredRow.model_version == model_version,)
        for some in _batches(task_ids):
            self._delete(ScoredRow.project_id == project_id, ScoredRow.task_id.in_(some), *of_version)

    def retire_version(self, project_id: int, model_version: str) -> None:
        """Delete a version's predictions; the places of tasks that were annotated since stay."""
        annotated = exists().where(
            AnnotationRow.project_id == ScoredRow.project_id,
            AnnotationRow.task_id == ScoredRow.task_id,
            AnnotationRow.state == "submitted",
        )
        of_version = _of(project_id, model_version)
        self._delete(*of_version, or_(ScoredRow.labelled, ~ScoredRow.pushed, ~annotated))
        with self._sessions.write() as session:
            session.execute(
                update(ScoredRow)
                .where(*of_version, ScoredRow.embedding.is_not(None))
                .values(embedding=None, signals=None)
            )

    def forget_project(self, project_id: int) -> None:
        """Delete a project's rows."""
        self._delete(ScoredRow.project_id == project_id)

    def _set(self, project_id: int, model_version: str, task_ids: Sequence[int], **values: object) -> None:
        for some in _batches(task_ids):
            with self._sessions.write() as session:
                session.execute(
                    update(ScoredRow)
                    .where(*_of(project_id, model_version), ScoredRow.task_id.in_(some))
                    .values(**values)
                )

    def _delete(self, *conditions: ColumnElement[bool]) -> None:
        with self._sessions.write() as session:
            session.execute(delete(ScoredRow).where(*conditions))


def _of(project_id: int, model_version: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return ScoredRow.project_id == project_id, ScoredRow.model_version == model_version


def _pending(project_id: int, model_version: str) -> tuple[ColumnElement[bool], ...]:
    return (
        *_of(project_id, model_version),
        ScoredRow.pushed.is_(False),
        ScoredRow.labelled.is_(False),
        ScoredRow.error.is_(None),
        ScoredRow.score.is_not(None),
    )


def _row(project_id: int, model_version: str, task: ScoredTask) -> ScoredRow:
    embedding = None if task.embedding_d is None else task.embedding_d.astype(np.float16).tobytes()
    regions = (
        None
        if task.regions is None
        else zlib.compress(json.dumps(list(task.regions), separators=(",", ":")).encode(), 1)
    )
    return ScoredRow(
        project_id=project_id,
        model_version=model_version,
        task_id=task.task_id,
        confidence=task.confidence,
        signals=None if task.signals is None else dict(task.signals),
        embedding=embedding,
        regions=regions,
        error=None if task.error is None else task.error[:2000],
        labelled=task.labelled,
        found=task.found,
        drawn=task.drawn,
        look=None if task.look_k is None else task.look_k.astype(np.float32).tobytes(),
        made_by=task.made_by,
    )


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), ID_BATCH):
        yield values[start : start + ID_BATCH]
