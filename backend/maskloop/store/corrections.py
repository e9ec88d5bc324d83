"""What annotators said as masks: one row for a version of an annotation, derived from it and its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError

from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.store.sessions import Sessions
from maskloop.store.tables import AnnotationRow, MasksRow, VersionRow
from maskloop.types import Correction, EditCounts, Segment

__all__ = ["CorrectionBook", "DerivedMasks", "EditedTask"]

STREAM = 64  # rows in memory at once: masks are large
VERSIONS_AT_ONCE = 500
SPLITS = ("train", "holdout")


@dataclass(frozen=True, kw_only=True, eq=False)
class DerivedMasks:
    """What a version comes to."""

    image_key: str  # SHA-256 of the image file, the key of the image cache
    image_uri: str  # where it can be had again
    size_hw: tuple[int, int]  # of the upright image
    segments: tuple[Segment, ...]
    edits: EditCounts
    approximate: bool  # some of it was given as boxes
    model_version: str | None  # whose prediction was corrected


@dataclass(frozen=True, kw_only=True)
class EditedTask:
    """What an annotator did to a prediction, without the masks."""

    task_id: int
    model_version: str  # whose prediction it was
    edits: EditCounts
    lead_time_s: float | None


class CorrectionBook:
    """Submitted annotations with their masks."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, version_id: int, masks: DerivedMasks) -> None:
        """Keep what a version comes to; deriving it again replaces it."""
        row = {
            "image_key": masks.image_key,
            "image_uri": masks.image_uri,
            "height": masks.size_hw[0],
            "width": masks.size_hw[1],
            "segments": segments_to_text(masks.segments),
            "kept": masks.edits.kept,
            "changed": masks.edits.changed,
            "added": masks.edits.added,
            "removed": masks.edits.removed,
            "approximate": masks.approximate,
            "model_version": masks.model_version,
        }
        try:
            self._merge(version_id, row)
        except IntegrityError:  # another worker derived it in the same moment
            self._merge(version_id, row)

    def has(self, version_id: int) -> bool:
        """Return whether a version's masks are there."""
        with self._sessions.read() as session:
            return session.get(MasksRow, version_id) is not None

    def stream(self, project_id: int, *, split: str | None = None) -> Iterator[Correction]:
        """Yield a project's corrections, of one split or of both, by annotation number, few at a time."""
        query = _joined().where(AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted")
        if split is not None:
            query = query.where(AnnotationRow.split == split)
        last = -1
        while True:
            page = query.where(AnnotationRow.annotation_id > last).order_by(AnnotationRow.annotation_id)
            with self._sessions.read() as session:
                rows = session.execute(page.limit(STREAM)).all()
            # No transaction is open while the caller works: it may take hours.
            for row in rows:
                yield _correction(*row)
            if len(rows) < STREAM:
                return
            last = rows[-1][0].annotation_id

    def of(self, project_id: int, *, split: str | None = None) -> tuple[Correction, ...]:
        """Return a project's corrections, of one split or of both, by annotation number."""
        return tuple(self.stream(project_id, split=split))

    def edited(self, project_id: int) -> tuple[EditedTask, ...]:
        """Return what was done to predictions, by annotation number; without those from nothing."""
        query = (
            select(
                AnnotationRow.task_id,
                MasksRow.model_version,
                MasksRow.kept,
                MasksRow.changed,
                MasksRow.added,
                MasksRow.removed,
                VersionRow.lead_time_s,
            )
            .join(VersionRow, VersionRow.version_id == AnnotationRow.version_id)
            .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
            .where(
                AnnotationRow.project_id == project_id,
                AnnotationRow.state == "submitted",
                MasksRow.model_version.is_not(None),
            )
        )
        with self._sessions.read() as session:
            rows = session.execute(query.order_by(AnnotationRow.annotation_id)).all()
        return tuple(
            EditedTask(
                task_id=task_id,
                model_version=model_version or "",
                edits=EditCounts(kept=kept, changed=changed, added=added, removed=removed),
                lead_time_s=lead_time_s,
            )
            for task_id, model_version, kept, changed, added, removed, lead_time_s in rows
        )

    def at(self, version_ids: Sequence[int]) -> tuple[Correction, ...]:
        """Return these versions' corrections, by version number: what a snapshot was made of, years later."""
        found: list[Correction] = []
        for start in range(0, len(version_ids), VERSIONS_AT_ONCE):
            some = version_ids[start : start + VERSIONS_AT_ONCE]
            query = select(VersionRow, MasksRow).join(MasksRow, MasksRow.version_id == VersionRow.version_id)
            with self._sessions.read() as session:
                rows = session.execute(query.where(VersionRow.version_id.in_(some))).all()
            found += [_correction(*row) for row in rows]
        return tuple(sorted(found, key=lambda correction: correction.version_id))

    def count(self, project_id: int, *, split: str, after_version: int = 0) -> int:
        """Return how many corrections of a split are newer than a version."""
        with self._sessions.read() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(AnnotationRow)
                    .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
                    .where(
                        AnnotationRow.project_id == project_id,
                        AnnotationRow.state == "submitted",
                        AnnotationRow.split == split,
                        AnnotationRow.version_id > after_version,
                    )
                )
                or 0
            )

    def underived(self, project_id: int) -> tuple[int, ...]:
        """Return the versions that stand but whose masks are not there, by annotation number."""
        with self._sessions.read() as session:
            return tuple(
                session.scalars(
                    select(AnnotationRow.version_id)
                    .outerjoin(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
                    .where(
                        AnnotationRow.project_id == project_id,
                        AnnotationRow.state == "submitted",
                        MasksRow.version_id.is_(None),
                    )
                    .order_by(AnnotationRow.annotation_id)
                )
            )

    def last_version(self, project_id: int) -> int:
        """Return the number of the newest version that a correction stands on, 0 where there is none."""
        query = select(AnnotationRow.version_id).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"
        )
        with self._sessions.read() as session:
            # One look into the index for each split, instead of reading the whole project.
            newest = [
                session.scalar(
                    query.where(AnnotationRow.split == split)
                    .order_by(AnnotationRow.version_id.desc())
                    .limit(1)
                )
                for split in SPLITS
            ]
        return max((number for number in newest if number is not None), default=0)

    def _merge(self, version_id: int, row: dict[str, object]) -> None:
        with self._sessions.write() as session:
            session.merge(MasksRow(version_id=version_id, **row))


def _joined() -> Select[VersionRow, MasksRow]:
    return (
        select(VersionRow, MasksRow)
        .select_from(AnnotationRow)
        .join(VersionRow, VersionRow.version_id == AnnotationRow.version_id)
        .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
    )


def _correction(version: VersionRow, masks: MasksRow) -> Correction:
    return Correction(
        project_id=version.project_id,
        task_id=version.task_id,
        annotation_id=version.annotation_id,
        version_id=version.version_id,
        updated_at=version.updated_at,
        image_key=masks.image_key,
        image_uri=masks.image_uri,
        size_hw=(masks.height, masks.width),
        segments=segments_from_text(masks.segments, place=f"annotation version {version.version_id}"),
        edits=EditCounts(kept=masks.kept, changed=masks.changed, added=masks.added, removed=masks.removed),
        lead_time_s=version.lead_time_s,
        model_version=masks.model_version,
        ground_truth=version.ground_truth,
        approximate=masks.approximate,
    )
