"""Annotations and all their versions, as Label Studio gave them; their masks are in `corrections.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import AnnotationRow, LabelConfigRow, SetAsideRow, VersionRow

__all__ = [
    "AnnotationRepository",
    "AnnotationSnapshot",
    "AnnotationState",
    "AnnotationVersion",
    "KnownAnnotation",
    "SaveStatus",
    "SavedAnnotation",
    "SetAside",
    "text_digest",
]

AnnotationState: TypeAlias = Literal["submitted", "skipped"]
STREAM = 1000  # rows in memory at once
IDS_AT_ONCE = 500  # bound values of one statement
MAX_RACES = 5  # lost to other workers in a row


@dataclass(frozen=True, kw_only=True)
class AnnotationSnapshot:
    """An annotation as Label Studio's API gave it at one moment."""

    annotation_id: int
    project_id: int
    task_id: int
    updated_at: datetime  # when the annotator last saved it (aware)
    state: AnnotationState
    content: Mapping[str, Any]  # Label Studio's answer, with the regions as the annotator left them
    label_config: str  # the project's at that moment
    split: str  # side of a new annotation, until its images are known; a known one keeps its own
    read_at: datetime  # when it was read from Label Studio (aware): decides between this and a deletion


@dataclass(frozen=True, kw_only=True)
class KnownAnnotation:
    """An annotation that is not deleted, without its content."""

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
    content: dict[str, Any]  # Label Studio's answer
    label_config: str  # that it was made under; empty where an older maskloop did not store it
    taken_at: datetime


class SaveStatus(StrEnum):
    """What `save` did."""

    STORED = "stored"  # as a new version, or again after a deletion
    UNCHANGED = "unchanged"  # this version stood already
    STALE = "stale"  # nothing: a newer version or a later deletion stands


@dataclass(frozen=True, kw_only=True)
class SavedAnnotation:
    """The result of saving an annotation."""

    status: SaveStatus
    version: AnnotationVersion | None  # the one that stands; None where the snapshot is stale

    @property
    def version_id(self) -> int | None:
        """The number of the version that stands; None where the snapshot is stale."""
        return None if self.version is None else self.version.version_id


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """An annotation whose newest version could not be read."""

    annotation_id: int
    task_id: int
    reason: str  # place, expected, got, remedy
    version_id: int
    reader_version: int  # of the code that tried to read it
    label_config: str  # digest of the project's label config at that time


class AnnotationRepository:
    """Annotations and their histories; a deleted annotation is hidden, its versions stay."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, snapshot: AnnotationSnapshot) -> SavedAnnotation:
        """Store an annotation, unless a newer version or a later deletion stands."""
        for _ in range(MAX_RACES):
            try:
                return self._save(snapshot)
            except IntegrityError:  # another worker stored it at the same moment
                continue
        return self._save(snapshot)

    def _save(self, snapshot: AnnotationSnapshot) -> SavedAnnotation:
        text = json.dumps(snapshot.content, separators=(",", ":"), sort_keys=True)
        digest = text_digest(text)
        with self._sessions.write() as session:
            row = session.get(AnnotationRow, snapshot.annotation_id, with_for_update=True)
            if row is not None:
                deleted_later = row.deleted_at is not None and row.deleted_at >= snapshot.read_at
                if deleted_later or row.updated_at > snapshot.updated_at:
                    return SavedAnnotation(status=SaveStatus.STALE, version=None)
            version = _find_version(session, snapshot, digest)
            if version is None:
                version = _add_version(session, snapshot, text, digest)
            stands = row is not None and row.version_id == version.version_id and row.state == snapshot.state
            if row is None:
                # Never over a row that was added since it was looked for: that one may be newer.
                row = AnnotationRow(annotation_id=snapshot.annotation_id, split=snapshot.split)
                session.add(row)
            row.project_id = snapshot.project_id
            row.task_id = snapshot.task_id
            row.version_id = version.version_id
            row.updated_at = snapshot.updated_at
            row.state = snapshot.state
            row.deleted_at = None
            config = session.get(LabelConfigRow, version.label_config)
            return SavedAnnotation(
                status=SaveStatus.UNCHANGED if stands else SaveStatus.STORED,
                version=_version(
                    version, config.text if config is not None else "", content=dict(snapshot.content)
                ),
            )

    def set_split(self, annotation_id: int, split: str) -> None:
        """Store the side of an annotation's images."""
        with self._sessions.write() as session:
            session.execute(
                update(AnnotationRow)
                .where(AnnotationRow.annotation_id == annotation_id, AnnotationRow.split != split)
                .values(split=split)
            )

    def delete(
        self,
        project_id: int,
        *,
        annotation_ids: Sequence[int] = (),
        task_ids: Sequence[int] = (),
        read_at: datetime | None = None,
    ) -> int:
        """Mark annotations as deleted, by their own numbers or their tasks'; return how many there were.

        Args:
            project_id: only of this project.
            annotation_ids: annotations.
            task_ids: tasks whose annotations all go.
            read_at: when Label Studio was found to have them no more; now by default.
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
                        .values(state="deleted", deleted_at=read_at or now())
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

    def label_configs(self, digests: Sequence[str]) -> dict[str, str]:
        """Return SHA-256 -> text of the label configs that annotations were made under."""
        found: dict[str, str] = {}
        for start in range(0, len(digests), IDS_AT_ONCE):
            some = digests[start : start + IDS_AT_ONCE]
            query = select(LabelConfigRow.digest, LabelConfigRow.text).where(LabelConfigRow.digest.in_(some))
            with self._sessions.read() as session:
                found.update((digest, text) for digest, text in session.execute(query))
        return found

    def set_aside(self, project_id: int, *, limit: int = 1000) -> tuple[SetAside, ...]:
        """Return a project's annotations whose newest version could not be read, by annotation number."""
        query = (
            select(AnnotationRow.annotation_id, AnnotationRow.task_id, SetAsideRow)
            .join(SetAsideRow, SetAsideRow.version_id == AnnotationRow.version_id)
            .where(AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
            .order_by(AnnotationRow.annotation_id)
            .limit(limit)
        )
        with self._sessions.read() as session:
            return tuple(
                SetAside(
                    annotation_id=annotation_id,
                    task_id=task_id,
                    reason=row.reason,
                    version_id=row.version_id,
                    reader_version=row.reader_version,
                    label_config=row.label_config,
                )
                for annotation_id, task_id, row in session.execute(query)
            )

    def count_set_aside(self, project_id: int) -> int:
        """Return how many of a project's annotations could not be read."""
        query = (
            select(func.count())
            .select_from(AnnotationRow)
            .join(SetAsideRow, SetAsideRow.version_id == AnnotationRow.version_id)
            .where(AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
        )
        with self._sessions.read() as session:
            return session.scalar(query) or 0

    def _versions(self, condition: Any) -> Iterator[AnnotationVersion]:
        query = (
            select(VersionRow, LabelConfigRow.text)
            .outerjoin(LabelConfigRow, LabelConfigRow.digest == VersionRow.label_config)
            .where(condition)
            .order_by(VersionRow.version_id)
        )
        with self._sessions.read() as session:
            for row, config in session.execute(query):
                yield _version(row, config or "", content=json.loads(row.content))


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _find_version(session: Session, snapshot: AnnotationSnapshot, digest: str) -> VersionRow | None:
    return session.scalar(
        select(VersionRow).where(
            VersionRow.annotation_id == snapshot.annotation_id,
            VersionRow.updated_at == snapshot.updated_at,
            VersionRow.digest == digest,
        )
    )


def _add_version(session: Session, snapshot: AnnotationSnapshot, text: str, digest: str) -> VersionRow:
    config = text_digest(snapshot.label_config)
    if session.get(LabelConfigRow, config) is None:
        session.add(LabelConfigRow(digest=config, text=snapshot.label_config))
    lead_time = snapshot.content.get("lead_time")
    row = VersionRow(
        annotation_id=snapshot.annotation_id,
        project_id=snapshot.project_id,
        task_id=snapshot.task_id,
        updated_at=snapshot.updated_at,
        state=snapshot.state,
        content=text,
        digest=digest,
        label_config=config,
        lead_time_s=float(lead_time) if isinstance(lead_time, (int, float)) else None,
        annotator=_annotator_of(snapshot.content),
        ground_truth=bool(snapshot.content.get("ground_truth")),
        taken_at=now(),
    )
    session.add(row)
    session.flush()
    return row


def _annotator_of(content: Mapping[str, Any]) -> int | None:
    """Return the number of the user who made an annotation; newer versions of the API give an object."""
    user = content.get("completed_by")
    number = user.get("id") if isinstance(user, Mapping) else user
    is_number = isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**63
    return number if is_number else None


def _version(row: VersionRow, label_config: str, *, content: dict[str, Any]) -> AnnotationVersion:
    return AnnotationVersion(
        version_id=row.version_id,
        annotation_id=row.annotation_id,
        project_id=row.project_id,
        task_id=row.task_id,
        updated_at=row.updated_at,
        state=_state(row.state),
        content=content,
        label_config=label_config,
        taken_at=row.taken_at,
    )


def _state(text: str) -> AnnotationState:
    return "skipped" if text == "skipped" else "submitted"
