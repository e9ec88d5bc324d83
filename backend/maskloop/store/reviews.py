"""Suspicions that were shown to reviewers, and what these decided: kept, so that none is asked twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, select, update

from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import SuspicionRow
from maskloop.types import Segment

__all__ = ["REVIEW_TAG", "ReviewRepository", "StoredSuspicion", "Verdict"]

AT_ONCE = 500
REVIEW_TAG = "maskloop-review"  # model version of the proposals in Label Studio


class Verdict(StrEnum):
    """What a reviewer decided."""

    OPEN = "open"  # nothing yet
    RIGHT = "right"  # the annotation is right: never shown again
    WRONG = "wrong"  # it was an error


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSuspicion:
    """One suspicion as it was shown."""

    task_id: int
    annotation_id: int
    version_id: int  # of the annotation, as it was judged
    view: str
    image_index: int
    image_key: str
    kind: str
    score: float
    segment: Segment  # the region, or the object that has none
    missing: bool  # whether `segment` has no region
    features: Mapping[str, float]  # as they were, to learn from
    verdict: Verdict = Verdict.OPEN
    number: int = 0  # given by the database


class ReviewRepository:
    """Suspicions of all projects."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def replace_open(self, project_id: int, suspicions: Sequence[StoredSuspicion]) -> tuple[int, ...]:
        """Store new suspicions in place of those nobody decided about, and return their numbers."""
        with self._sessions.write() as session:
            session.execute(
                delete(SuspicionRow).where(
                    SuspicionRow.project_id == project_id, SuspicionRow.verdict == Verdict.OPEN
                )
            )
            rows = [_row(project_id, one) for one in suspicions]
            session.add_all(rows)
            session.flush()
            return tuple(row.suspicion_id for row in rows)

    def of(self, project_id: int, *verdicts: Verdict) -> tuple[StoredSuspicion, ...]:
        """Return a project's suspicions with these verdicts, by number."""
        query = select(SuspicionRow).where(
            SuspicionRow.project_id == project_id, SuspicionRow.verdict.in_(list(verdicts))
        )
        with self._sessions.read() as session:
            return tuple(_stored(row) for row in session.scalars(query.order_by(SuspicionRow.suspicion_id)))

    def counts(self, project_id: int) -> dict[Verdict, int]:
        """Return how many of a project's suspicions have each verdict."""
        query = select(SuspicionRow.verdict, func.count()).where(SuspicionRow.project_id == project_id)
        with self._sessions.read() as session:
            found = {row[0]: row[1] for row in session.execute(query.group_by(SuspicionRow.verdict))}
        return {verdict: found.get(verdict.value, 0) for verdict in Verdict}

    def page(
        self, project_id: int, verdict: Verdict, *, limit: int, offset: int = 0, kind: str | None = None
    ) -> tuple[StoredSuspicion, ...]:
        """Return some of a project's suspicions with a verdict, the likeliest errors first."""
        query = select(SuspicionRow).where(
            SuspicionRow.project_id == project_id, SuspicionRow.verdict == verdict.value
        )
        if kind is not None:
            query = query.where(SuspicionRow.kind == kind)
        query = query.order_by(SuspicionRow.score.desc(), SuspicionRow.suspicion_id)
        with self._sessions.read() as session:
            return tuple(_stored(row) for row in session.scalars(query.limit(limit).offset(offset)))

    def get(self, project_id: int, number: int) -> StoredSuspicion | None:
        """Return one suspicion of a project."""
        query = select(SuspicionRow).where(
            SuspicionRow.project_id == project_id, SuspicionRow.suspicion_id == number
        )
        with self._sessions.read() as session:
            row = session.scalar(query)
            return None if row is None else _stored(row)

    def decide(self, project_id: int, numbers: Sequence[int], verdict: Verdict) -> tuple[int, ...]:
        """Store a verdict and return the numbers that there are."""
        found: list[int] = []
        with self._sessions.write() as session:
            for start in range(0, len(numbers), AT_ONCE):
                changed = session.execute(
                    update(SuspicionRow)
                    .where(
                        SuspicionRow.project_id == project_id,
                        SuspicionRow.suspicion_id.in_(list(numbers[start : start + AT_ONCE])),
                    )
                    .values(verdict=str(verdict), decided_at=now())
                    .returning(SuspicionRow.suspicion_id)
                )
                found += changed.scalars()
        return tuple(sorted(found))


def _row(project_id: int, one: StoredSuspicion) -> SuspicionRow:
    return SuspicionRow(
        project_id=project_id,
        task_id=one.task_id,
        annotation_id=one.annotation_id,
        version_id=one.version_id,
        view=one.view,
        image_index=one.image_index,
        image_key=one.image_key,
        kind=one.kind,
        score=one.score,
        segment=segments_to_text((one.segment,)),
        missing=one.missing,
        features=dict(one.features),
        verdict=str(one.verdict),
        shown_at=now(),
    )


def _stored(row: SuspicionRow) -> StoredSuspicion:
    (segment,) = segments_from_text(row.segment, place=f"suspicion {row.suspicion_id}")
    return StoredSuspicion(
        task_id=row.task_id,
        annotation_id=row.annotation_id,
        version_id=row.version_id,
        view=row.view,
        image_index=row.image_index,
        image_key=row.image_key,
        kind=row.kind,
        score=row.score,
        segment=segment,
        missing=row.missing,
        features=row.features,
        verdict=Verdict(row.verdict),
        number=row.suspicion_id,
    )
