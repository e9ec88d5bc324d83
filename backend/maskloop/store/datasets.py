"""The names and numbers of data sets: which snapshots there are, and a class's number in every export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import CategoryRow, DatasetRow

__all__ = ["DatasetNote", "DatasetRepository"]

MAX_RACES = 5  # lost to other processes in a row


@dataclass(frozen=True, kw_only=True)
class DatasetNote:
    """One making of a snapshot; the same content may be made again, under another name too."""

    digest: str  # SHA-256 of the content
    project_id: int | None  # Label Studio's number; None: made from a folder
    name: str  # empty: none was given
    reason: str  # what made it, such as a command or a training
    images: int
    objects: int
    created_at: datetime  # aware


class DatasetRepository:
    """Snapshots that were made, and the categories of projects."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def category_ids(self, project_id: int, labels: Sequence[str]) -> dict[str, int]:
        """Return label -> category number for all labels that a project ever had; new ones are numbered.

        A number is never given to a second label, and a label keeps its number for good.

        Args:
            project_id: Label Studio's number.
            labels: as the annotators see them, exactly; in the order in which new ones are numbered.
        """
        for _ in range(MAX_RACES):
            try:
                return self._category_ids(project_id, labels)
            except IntegrityError:  # another process numbered one at the same moment
                continue
        return self._category_ids(project_id, labels)

    def _category_ids(self, project_id: int, labels: Sequence[str]) -> dict[str, int]:
        of_project = CategoryRow.project_id == project_id
        with self._sessions.write() as session:
            rows = session.execute(
                select(CategoryRow.label, CategoryRow.category_id)
                .where(of_project)
                .order_by(CategoryRow.category_id)
            )
            known = {label: number for label, number in rows}
            for label in dict.fromkeys(labels):
                if label not in known:
                    known[label] = max(known.values(), default=0) + 1
                    session.add(CategoryRow(project_id=project_id, category_id=known[label], label=label))
        return known

    def note(self, note: DatasetNote) -> None:
        """Store that a snapshot was made; the same one under the same name is stored once."""
        with self._sessions.write() as session:
            found = session.scalar(
                select(DatasetRow.dataset_id).where(
                    DatasetRow.digest == note.digest,
                    DatasetRow.name == note.name,
                    DatasetRow.project_id.is_(None)
                    if note.project_id is None
                    else DatasetRow.project_id == note.project_id,
                )
            )
            if found is None:
                session.add(DatasetRow(**vars(note)))

    def notes(self, *, project_id: int | None = None, limit: int = 1000) -> tuple[DatasetNote, ...]:
        """Return the newest notes, of one project or of all, oldest first."""
        query = select(DatasetRow).order_by(DatasetRow.dataset_id.desc()).limit(limit)
        if project_id is not None:
            query = query.where(DatasetRow.project_id == project_id)
        with self._sessions.read() as session:
            return tuple(_note(row) for row in reversed(session.scalars(query).all()))

    def named(self, name: str) -> DatasetNote | None:
        """Return the newest note with a name, or None."""
        query = select(DatasetRow).where(DatasetRow.name == name).order_by(DatasetRow.dataset_id.desc())
        with self._sessions.read() as session:
            row = session.scalar(query.limit(1))
            return None if row is None else _note(row)


def _note(row: DatasetRow) -> DatasetNote:
    return DatasetNote(
        digest=row.digest,
        project_id=row.project_id,
        name=row.name,
        reason=row.reason,
        images=row.images,
        objects=row.objects,
        created_at=row.created_at,
    )
