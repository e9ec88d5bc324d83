"""What annotators said: the newest version of each annotation."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update

from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.store.sessions import Sessions
from maskloop.store.tables import CorrectionRow
from maskloop.types import Correction, EditCounts

__all__ = ["CorrectionBook"]


class CorrectionBook:
    """Corrections by annotation; a deleted one is hidden, not forgotten."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, correction: Correction, *, split: str, sequence: int, result: str) -> bool:
        """Keep a correction unless a newer version of the annotation is kept already.

        Args:
            correction: what the annotator says.
            split: train or holdout.
            sequence: the number of the event that brought it.
            result: the regions as the annotator left them, JSON.

        Returns:
            Whether it was kept.
        """
        height, width = correction.size_hw
        with self._sessions.write() as session:
            row = session.get(CorrectionRow, correction.annotation_id, with_for_update=True)
            if row is not None and row.updated_at >= correction.updated_at and not row.deleted:
                return False
            session.merge(
                CorrectionRow(
                    annotation_id=correction.annotation_id,
                    project_id=correction.project_id,
                    task_id=correction.task_id,
                    split=split,
                    sequence=sequence,
                    updated_at=correction.updated_at,
                    image_key=correction.image_key,
                    height=height,
                    width=width,
                    segments=segments_to_text(correction.segments),
                    result=result,
                    kept=correction.edits.kept,
                    changed=correction.edits.changed,
                    added=correction.edits.added,
                    removed=correction.edits.removed,
                    lead_time_s=correction.lead_time_s,
                    model_version=correction.model_version,
                    ground_truth=correction.ground_truth,
                    approximate=correction.approximate,
                    deleted=False,
                )
            )
        return True

    def delete(
        self, *, annotation_ids: Sequence[int] = (), task_ids: Sequence[int] = (), project_id: int
    ) -> int:
        """Mark the corrections of deleted annotations or tasks as deleted; return how many there were."""
        with self._sessions.write() as session:
            result = session.execute(
                update(CorrectionRow)
                .where(
                    CorrectionRow.project_id == project_id,
                    CorrectionRow.annotation_id.in_(annotation_ids) | CorrectionRow.task_id.in_(task_ids),
                    CorrectionRow.deleted.is_(False),
                )
                .values(deleted=True)
            )
            return int(getattr(result, "rowcount", 0))

    def of(self, project_id: int, *, split: str | None = None) -> tuple[Correction, ...]:
        """Return a project's corrections, of one split or of both, by annotation number."""
        query = select(CorrectionRow).where(
            CorrectionRow.project_id == project_id, CorrectionRow.deleted.is_(False)
        )
        if split is not None:
            query = query.where(CorrectionRow.split == split)
        with self._sessions.read() as session:
            return tuple(
                _correction(row) for row in session.scalars(query.order_by(CorrectionRow.annotation_id))
            )

    def count(self, project_id: int, *, split: str, after_sequence: int = 0) -> int:
        """Return how many corrections of a split came after an event."""
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(CorrectionRow)
                    .where(
                        CorrectionRow.project_id == project_id,
                        CorrectionRow.split == split,
                        CorrectionRow.deleted.is_(False),
                        CorrectionRow.sequence > after_sequence,
                    )
                )
                or 0
            )

    def last_sequence(self, project_id: int) -> int:
        """Return the number of the newest event that brought a correction, 0 where none did."""
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.max(CorrectionRow.sequence)).where(CorrectionRow.project_id == project_id)
                )
                or 0
            )


def _correction(row: CorrectionRow) -> Correction:
    return Correction(
        project_id=row.project_id,
        task_id=row.task_id,
        annotation_id=row.annotation_id,
        updated_at=row.updated_at,
        image_key=row.image_key,
        size_hw=(row.height, row.width),
        segments=segments_from_text(row.segments, place=f"correction {row.annotation_id}"),
        edits=EditCounts(kept=row.kept, changed=row.changed, added=row.added, removed=row.removed),
        lead_time_s=row.lead_time_s,
        model_version=row.model_version,
        ground_truth=row.ground_truth,
        approximate=row.approximate,
    )
