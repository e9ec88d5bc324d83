"""What annotators said, every version of it, as Label Studio told it; masks lie in `corrections.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import AnnotationRow, LabelConfigRow, VersionRow

__all__ = ["AnnotationBook", "AnnotationState", "AnnotationVersion", "KnownAnnotation", "SaidAnnotation"]

AnnotationState: TypeAlias = Literal["submitted", "skipped"]
STREAM = 1000  # rows in memory at once
IDS_AT_ONCE = 500  # bound values of one statement
MOST_RACES = 5  # lost to other workers in a row


@dataclass(frozen=True, kw_only=True)
class SaidAnnotation:
    """An annotation as Label Studio told it just now."""

    annotation_id: int
    project_id: int
    task_id: int
    updated_at: datetime  # when the annotator last saved it (aware)
    state: AnnotationState
    content: Mapping[str, Any]  # Label Studio's answer, with the regions as the annotator left them
    label_config: str  # that it was made under
    split: str  # train or holdout
    asked_at: datetime  # when Label Studio was asked (aware): decides between this and a deletion


@dataclass(frozen=True, kw_only=True)
class KnownAnnotation:
    """What is known of an annotation that is not deleted."""

    task_id: int
    updated_at: datetime
    state: AnnotationState


@dataclass(frozen=True, kw_only=True)
class AnnotationVersion:
    """One version of an annotation."""

    version_id: int
    annotation_id: int
    project_id: int
    task_id: int
    updated_at: datetime
    state: AnnotationState
    content: dict[str, Any]
    label_config: str
    taken_at: datetime


class AnnotationBook:
    """Annotations and their histories; a deleted one is hidden, not forgotten."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def take(self, said: SaidAnnotation) -> int | None:
        """Keep what an annotator said, unless a newer version is kept already.

        Returns:
            The number of the version that stands now where it is this one, new or known; None where a newer
            one or a deletion stands.
        """
        for _ in range(MOST_RACES):
            try:
                return self._take(said)
            except IntegrityError:  # another worker kept it in the same moment
                continue
        return self._take(said)

    def _take(self, said: SaidAnnotation) -> int | None:
        text = json.dumps(said.content, separators=(",", ":"), sort_keys=True)
        digest = _digest(text)
        with self._sessions.write() as session:
            row = session.get(AnnotationRow, said.annotation_id, with_for_update=True)
            if row is not None:
                if row.deleted_at is not None and row.deleted_at >= said.asked_at:
                    return None
                if row.updated_at > said.updated_at:
                    return None
            version_id = _known_version(session, said, digest) or _add_version(session, said, text, digest)
            if row is None:
                # Never over a row that came since it was looked for: that one may be newer.
                row = AnnotationRow(annotation_id=said.annotation_id)
                session.add(row)
            row.project_id = said.project_id
            row.task_id = said.task_id
            row.split = said.split
            row.version_id = version_id
            row.updated_at = said.updated_at
            row.state = said.state
            row.deleted_at = None
            return version_id

    def delete(
        self,
        project_id: int,
        *,
        annotation_ids: Sequence[int] = (),
        task_ids: Sequence[int] = (),
        asked_at: datetime | None = None,
    ) -> int:
        """Mark annotations as deleted, by their own numbers or their tasks'; return how many there were.

        Args:
            project_id: only of this project.
            annotation_ids: annotations.
            task_ids: tasks whose annotations all go.
            asked_at: when Label Studio said so; now by default.
        """
        gone = 0
        named = ((AnnotationRow.annotation_id, annotation_ids), (AnnotationRow.task_id, task_ids))
        with self._sessions.write() as session:
            for column, numbers in named:
                for start in range(0, len(numbers), IDS_AT_ONCE):
                    result = session.execute(
                        update(AnnotationRow)
                        .where(
                            AnnotationRow.project_id == project_id,
                            column.in_(numbers[start : start + IDS_AT_ONCE]),
                            AnnotationRow.state != "deleted",
                        )
                        .values(state="deleted", deleted_at=asked_at or now())
                    )
                    gone += int(getattr(result, "rowcount", 0))
        return gone

    def delete_project(self, project_id: int) -> int:
        """Mark all annotations of a project as deleted; return how many there were."""
        with self._sessions.write() as session:
            result = session.execute(
                update(AnnotationRow)
                .where(AnnotationRow.project_id == project_id, AnnotationRow.state != "deleted")
                .values(state="deleted", deleted_at=now())
            )
            return int(getattr(result, "rowcount", 0))

    def known(self, project_id: int) -> dict[int, KnownAnnotation]:
        """Return a project's annotations by number; deleted ones are left out."""
        query = select(
            AnnotationRow.annotation_id, AnnotationRow.task_id, AnnotationRow.updated_at, AnnotationRow.state
        ).where(AnnotationRow.project_id == project_id, AnnotationRow.state != "deleted")
        with self._sessions.read() as session:
            return {
                number: KnownAnnotation(task_id=task_id, updated_at=updated_at, state=_state(state))
                for number, task_id, updated_at, state in session.execute(
                    query, execution_options={"yield_per": STREAM}
                )
            }

    def labelled_tasks(self, project_id: int, *, newest: int | None = None) -> tuple[int, ...]:
        """Return the tasks with a submitted annotation, the one that was changed last first."""
        last = func.max(AnnotationRow.version_id)
        query = (
            select(AnnotationRow.task_id)
            .where(AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
            .group_by(AnnotationRow.task_id)
            .order_by(last.desc())
        )
        with self._sessions.read() as session:
            return tuple(session.scalars(query.limit(newest)))

    def of_task(self, project_id: int, task_id: int) -> tuple[int, ...]:
        """Return the numbers of a task's annotations; deleted ones are left out."""
        query = select(AnnotationRow.annotation_id).where(
            AnnotationRow.project_id == project_id,
            AnnotationRow.task_id == task_id,
            AnnotationRow.state != "deleted",
        )
        with self._sessions.read() as session:
            return tuple(session.scalars(query.order_by(AnnotationRow.annotation_id)))

    def version(self, version_id: int) -> AnnotationVersion | None:
        """Return one version, or None."""
        return next(iter(self._versions(VersionRow.version_id == version_id)), None)

    def history(self, annotation_id: int) -> tuple[AnnotationVersion, ...]:
        """Return all versions of an annotation, oldest first."""
        return tuple(self._versions(VersionRow.annotation_id == annotation_id))

    def _versions(self, condition: Any) -> Iterator[AnnotationVersion]:
        query = (
            select(VersionRow, LabelConfigRow.text)
            .outerjoin(LabelConfigRow, LabelConfigRow.digest == VersionRow.label_config)
            .where(condition)
            .order_by(VersionRow.version_id)
        )
        with self._sessions.read() as session:
            for row, config in session.execute(query):
                yield AnnotationVersion(
                    version_id=row.version_id,
                    annotation_id=row.annotation_id,
                    project_id=row.project_id,
                    task_id=row.task_id,
                    updated_at=row.updated_at,
                    state=_state(row.state),
                    content=json.loads(row.said),
                    label_config=config or "",
                    taken_at=row.taken_at,
                )


def _known_version(session: Session, said: SaidAnnotation, digest: str) -> int | None:
    return session.scalar(
        select(VersionRow.version_id).where(
            VersionRow.annotation_id == said.annotation_id,
            VersionRow.updated_at == said.updated_at,
            VersionRow.digest == digest,
        )
    )


def _add_version(session: Session, said: SaidAnnotation, text: str, digest: str) -> int:
    config = _digest(said.label_config)
    if session.get(LabelConfigRow, config) is None:
        session.add(LabelConfigRow(digest=config, text=said.label_config))
    lead_time = said.content.get("lead_time")
    row = VersionRow(
        annotation_id=said.annotation_id,
        project_id=said.project_id,
        task_id=said.task_id,
        updated_at=said.updated_at,
        state=said.state,
        said=text,
        digest=digest,
        label_config=config,
        lead_time_s=float(lead_time) if isinstance(lead_time, (int, float)) else None,
        ground_truth=bool(said.content.get("ground_truth")),
        taken_at=now(),
    )
    session.add(row)
    session.flush()
    return row.version_id


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _state(text: str) -> AnnotationState:
    return "skipped" if text == "skipped" else "submitted"
