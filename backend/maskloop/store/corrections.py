"""Annotations as masks: a row for each image of each version, derived from the version and the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, select
from sqlalchemy.exc import IntegrityError

from maskloop.store.annotations import text_digest
from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import AnnotationRow, MasksRow, SetAsideRow, VersionRow
from maskloop.types import Correction, EditCounts, Segment, SegmentOutcome

__all__ = ["CorrectionRepository", "DerivedMasks", "EditedTask", "OldReading", "TaskCorrections"]

STREAM = 64  # annotations in memory at once: masks are large
VERSIONS_AT_ONCE = 500
SPLITS = ("train", "holdout", "neither")
MAX_REASON = 4000  # characters
EDIT_KINDS = frozenset(one.name for one in fields(EditCounts))


@dataclass(frozen=True, kw_only=True, eq=False)
class DerivedMasks:
    """The masks of one version on one image."""

    image_key: str  # SHA-256 of the image file, the key of the image cache
    image_uri: str  # where it can be had again
    size_hw: tuple[int, int]  # of the upright image
    segments: tuple[Segment, ...]
    edits: EditCounts
    model_version: str | None  # whose prediction was corrected
    label_edits: Mapping[str, EditCounts] | None = None  # their sum is `edits`; None: counted by origin
    outcomes: tuple[SegmentOutcome, ...] | None = None  # of the predicted regions; None: as `label_edits`
    deleted: tuple[Segment, ...] | None = None  # predicted, not in the annotation; None: as `label_edits`
    view: str = ""  # which of the task's images
    image_index: int = 0  # the page of a view with several pages, from 0


@dataclass(frozen=True, kw_only=True)
class OldReading:
    """Masks that an older reader derived, and which version they are of."""

    annotation_id: int
    version_id: int
    masks: DerivedMasks


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskCorrections:
    """The corrections of one task, of all its annotators and images."""

    task_id: int
    split: str  # train or holdout
    corrections: tuple[Correction, ...]  # by annotation number, view and page


@dataclass(frozen=True, kw_only=True)
class EditedTask:
    """How an annotator changed a prediction, without the masks."""

    task_id: int
    model_version: str  # whose prediction it was
    edits: EditCounts
    lead_time_s: float | None
    annotator: int | None = None  # user number; None where an older maskloop stored it
    label_edits: Mapping[str, EditCounts] = field(default_factory=dict)  # empty where counted by origin


class CorrectionRepository:
    """Submitted annotations with their masks."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, version_id: int, *images: DerivedMasks, reader_version: int = 0) -> None:
        """Store the masks of a version, in place of those that were stored for it before.

        Args:
            version_id: the version.
            images: its masks, once for each image.
            reader_version: of the code that read the regions.
        """
        rows = [_row(version_id, image, reader_version) for image in images]
        try:
            self._replace(version_id, rows)
        except IntegrityError:  # another worker stored them at the same moment
            self._replace(version_id, [_row(version_id, image, reader_version) for image in images])

    def set_aside(self, version_id: int, reason: str, *, label_config: str, reader_version: int = 0) -> None:
        """Store that a version could not be read; masks that were stored for it before are deleted.

        Args:
            version_id: the version.
            reason: why, with a remedy.
            label_config: the project's label config (XML) now.
            reader_version: of the code that tried to read it.
        """
        with self._sessions.write() as session:
            session.execute(delete(MasksRow).where(MasksRow.version_id == version_id))
            session.merge(
                SetAsideRow(
                    version_id=version_id,
                    reason=reason.replace("\0", "")[:MAX_REASON],
                    reader_version=reader_version,
                    label_config=text_digest(label_config),
                    set_aside_at=now(),
                )
            )

    def has(self, version_id: int, *, reader_version: int = 0) -> bool:
        """Return whether a version's masks are stored, by a reader of at least this version."""
        query = select(MasksRow.version_id).where(
            MasksRow.version_id == version_id, MasksRow.reader_version >= reader_version
        )
        with self._sessions.read() as session:
            return session.scalar(query.limit(1)) is not None

    def old_readings(self, project_id: int, *, reader_version: int, limit: int) -> tuple[OldReading, ...]:
        """Return masks of newest versions that an older reader derived, at most `limit` of them."""
        query = (
            select(AnnotationRow.annotation_id, MasksRow)
            .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
            .where(*_submitted(project_id), MasksRow.reader_version < reader_version)
            .order_by(AnnotationRow.annotation_id)
            .limit(limit)
        )
        with self._sessions.read() as session:
            return tuple(
                OldReading(annotation_id=number, version_id=row.version_id, masks=_masks(row))
                for number, row in session.execute(query)
            )

    def stream(self, project_id: int, *, split: str | None = None) -> Iterator[Correction]:
        """Yield a project's corrections, of one split or of both, by annotation number, few at a time."""
        query = select(AnnotationRow.annotation_id, AnnotationRow.version_id).where(*_submitted(project_id))
        if split is not None:
            query = query.where(AnnotationRow.split == split)
        last = -1
        while True:
            page = query.where(AnnotationRow.annotation_id > last).order_by(AnnotationRow.annotation_id)
            with self._sessions.read() as session:
                numbers = session.execute(page.limit(STREAM)).all()
                version_ids = [version_id for _, version_id in numbers]
                rows = session.execute(_joined().where(VersionRow.version_id.in_(version_ids))).all()
            # No transaction is open while the caller works: it may take hours.
            yield from sorted((_correction(*row) for row in rows), key=_by_annotation)
            if len(numbers) < STREAM:
                return
            last = numbers[-1][0]

    def of(self, project_id: int, *, split: str | None = None) -> tuple[Correction, ...]:
        """Return a project's corrections, of one split or of both, by annotation number."""
        return tuple(self.stream(project_id, split=split))

    def by_task(self, project_id: int) -> Iterator[TaskCorrections]:
        """Yield a project's corrections task by task, by task number, few at a time."""
        last = -1
        while True:
            tasks = (
                select(AnnotationRow.task_id)
                .where(*_submitted(project_id), AnnotationRow.task_id > last)
                .distinct()
                .order_by(AnnotationRow.task_id)
                .limit(STREAM)
            )
            with self._sessions.read() as session:
                numbers = list(session.scalars(tasks))
                query = (
                    select(AnnotationRow.split, VersionRow, MasksRow)
                    .join(VersionRow, VersionRow.version_id == AnnotationRow.version_id)
                    .join(MasksRow, MasksRow.version_id == VersionRow.version_id)
                    .where(*_submitted(project_id), AnnotationRow.task_id.in_(numbers))
                )
                rows = session.execute(query).all()
            rows = sorted(rows, key=lambda row: (row[1].task_id, row[1].annotation_id, row[2].view))
            for task_id, of_task in groupby(rows, key=lambda row: int(row[1].task_id)):
                listed = list(of_task)
                corrections = sorted((_correction(*row[1:]) for row in listed), key=_by_annotation)
                yield TaskCorrections(task_id=task_id, split=listed[0][0], corrections=tuple(corrections))
            if len(numbers) < STREAM:
                return
            last = numbers[-1]

    def edited(self, project_id: int) -> tuple[EditedTask, ...]:
        """Return how predictions were changed, by annotation number; without annotations from nothing."""
        query = (
            select(
                AnnotationRow.annotation_id,
                AnnotationRow.task_id,
                VersionRow.annotator,
                VersionRow.lead_time_s,
                MasksRow.model_version,
                MasksRow.kept,
                MasksRow.changed,
                MasksRow.added,
                MasksRow.removed,
                MasksRow.label_edits,
            )
            .join(VersionRow, VersionRow.version_id == AnnotationRow.version_id)
            .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
            .where(*_submitted(project_id), MasksRow.model_version.is_not(None))
            .order_by(AnnotationRow.annotation_id, MasksRow.view, MasksRow.image_index)
        )
        with self._sessions.read() as session:
            rows = session.execute(query).all()
        return tuple(
            _edited(tuple(images)) for _, images in groupby(rows, key=lambda row: int(row.annotation_id))
        )

    def outcomes(self, project_id: int, model_version: str, *, newest: int) -> tuple[SegmentOutcome, ...]:
        """Return what became of a version's predicted regions, on the newest annotated images."""
        query = (
            select(MasksRow.region_outcomes)
            .join(AnnotationRow, AnnotationRow.version_id == MasksRow.version_id)
            .where(
                *_submitted(project_id),
                MasksRow.model_version == model_version,
                MasksRow.region_outcomes.is_not(None),
            )
            .order_by(AnnotationRow.version_id.desc())
            .limit(newest)
        )
        with self._sessions.read() as session:
            stored = [row for rows in session.scalars(query) for row in rows or ()]
        return _outcomes_from_json(stored)

    def at(self, version_ids: Sequence[int]) -> tuple[Correction, ...]:
        """Return the corrections of these versions, by version number, old versions too."""
        wanted = list(dict.fromkeys(version_ids))
        found: list[Correction] = []
        for start in range(0, len(wanted), VERSIONS_AT_ONCE):
            some = wanted[start : start + VERSIONS_AT_ONCE]
            with self._sessions.read() as session:
                rows = session.execute(_joined().where(VersionRow.version_id.in_(some))).all()
            found += [_correction(*row) for row in rows]
        return tuple(sorted(found, key=lambda one: (one.version_id, one.view, one.image_index)))

    def count(self, project_id: int, *, split: str | None = None, after_version: int = 0) -> int:
        """Return how many annotations, of one split or of all, have masks and are newer than a version."""
        query = select(func.count()).where(
            *_submitted(project_id),
            *([] if split is None else [AnnotationRow.split == split]),
            AnnotationRow.version_id > after_version,
            exists().where(MasksRow.version_id == AnnotationRow.version_id),
        )
        with self._sessions.read() as session:
            return session.scalar(query) or 0

    def underived(self, project_id: int) -> tuple[int, ...]:
        """Return the newest versions that have no masks and are not set aside, by annotation number."""
        query = select(AnnotationRow.version_id).where(
            *_submitted(project_id),
            ~exists().where(MasksRow.version_id == AnnotationRow.version_id),
            ~exists().where(SetAsideRow.version_id == AnnotationRow.version_id),
        )
        with self._sessions.read() as session:
            return tuple(session.scalars(query.order_by(AnnotationRow.annotation_id)))

    def last_version(self, project_id: int) -> int:
        """Return the newest version of a project's submitted annotations, 0 where there is none."""
        query = select(AnnotationRow.version_id).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"
        )
        with self._sessions.read() as session:
            # One index look-up for each split, instead of reading the whole project.
            newest = [
                session.scalar(
                    query.where(AnnotationRow.split == split)
                    .order_by(AnnotationRow.version_id.desc())
                    .limit(1)
                )
                for split in SPLITS
            ]
        return max((number for number in newest if number is not None), default=0)

    def _replace(self, version_id: int, rows: Sequence[MasksRow]) -> None:
        with self._sessions.write() as session:
            for table in (MasksRow, SetAsideRow):
                session.execute(delete(table).where(table.version_id == version_id))
            session.add_all(rows)


def _submitted(project_id: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return AnnotationRow.project_id == project_id, AnnotationRow.state == "submitted"


def _joined() -> Select[VersionRow, MasksRow]:
    return select(VersionRow, MasksRow).join(MasksRow, MasksRow.version_id == VersionRow.version_id)


def _row(version_id: int, masks: DerivedMasks, reader_version: int) -> MasksRow:
    return MasksRow(
        version_id=version_id,
        view=masks.view,
        image_index=masks.image_index,
        image_key=masks.image_key,
        image_uri=masks.image_uri,
        height=masks.size_hw[0],
        width=masks.size_hw[1],
        segments=segments_to_text(masks.segments),
        kept=masks.edits.kept,
        changed=masks.edits.changed,
        added=masks.edits.added,
        removed=masks.edits.removed,
        label_edits=_edits_to_json(masks.label_edits),
        region_outcomes=(
            None
            if masks.outcomes is None
            else [(one.label, round(one.score, 4), one.outcome) for one in masks.outcomes]
        ),
        boxes=sum(segment.is_box for segment in masks.segments),
        deleted=None if masks.deleted is None else segments_to_text(masks.deleted),
        model_version=masks.model_version,
        reader_version=reader_version,
    )


def _edits_to_json(label_edits: Mapping[str, EditCounts] | None) -> dict[str, dict[str, int]] | None:
    if label_edits is None:
        return None
    return {
        label: {kind: count for kind, count in asdict(edits).items() if count}
        for label, edits in label_edits.items()
    }


def _edits_from_json(stored: Mapping[str, Mapping[str, int]] | None) -> dict[str, EditCounts] | None:
    """Return stored edits; kinds that only a newer maskloop knows are parts of `changed` all the same."""
    if stored is None:
        return None
    return {
        label: EditCounts(**{kind: count for kind, count in edits.items() if kind in EDIT_KINDS})
        for label, edits in stored.items()
    }


def _outcomes_from_json(stored: Sequence[tuple[str, float, str]]) -> tuple[SegmentOutcome, ...]:
    return tuple(
        SegmentOutcome(label=label, score=score, outcome=outcome)  # type: ignore[arg-type]  # as stored
        for label, score, outcome in stored
    )


def _edited(images: Sequence[Any]) -> EditedTask:
    """Return the edits of one annotation from its rows, one for each image."""
    label_edits: dict[str, EditCounts] = {}
    for image in images:
        for label, edits in (_edits_from_json(image.label_edits) or {}).items():
            label_edits[label] = label_edits.get(label, EditCounts()) + edits
    return EditedTask(
        task_id=images[0].task_id,
        model_version=min(str(image.model_version) for image in images),
        edits=sum((_edits_of(image) for image in images), EditCounts()),
        lead_time_s=images[0].lead_time_s,
        annotator=images[0].annotator,
        label_edits=MappingProxyType(label_edits),
    )


def _edits_of(row: Any) -> EditCounts:
    """Return the edits on one image: of all kinds where they are known, else the counts by origin."""
    label_edits = _edits_from_json(row.label_edits)
    if label_edits is not None:
        return sum(label_edits.values(), EditCounts())
    return EditCounts(kept=row.kept, changed=row.changed, added=row.added, removed=row.removed)


def _masks(row: MasksRow) -> DerivedMasks:
    place = f"annotation version {row.version_id}"
    return DerivedMasks(
        image_key=row.image_key,
        image_uri=row.image_uri,
        size_hw=(row.height, row.width),
        segments=segments_from_text(row.segments, place=place),
        edits=_edits_of(row),
        model_version=row.model_version,
        label_edits=_edits_from_json(row.label_edits),
        outcomes=None if row.region_outcomes is None else _outcomes_from_json(row.region_outcomes),
        deleted=None if row.deleted is None else segments_from_text(row.deleted, place=place),
        view=row.view,
        image_index=row.image_index,
    )


def _by_annotation(correction: Correction) -> tuple[int, str, int]:
    return correction.annotation_id, correction.view, correction.image_index


def _correction(version: VersionRow, row: MasksRow) -> Correction:
    masks = _masks(row)
    return Correction(
        project_id=version.project_id,
        task_id=version.task_id,
        annotation_id=version.annotation_id,
        version_id=version.version_id,
        updated_at=version.updated_at,
        view=masks.view,
        image_index=masks.image_index,
        image_key=masks.image_key,
        image_uri=masks.image_uri,
        size_hw=masks.size_hw,
        segments=masks.segments,
        edits=masks.edits,
        lead_time_s=version.lead_time_s,
        model_version=masks.model_version,
        ground_truth=version.ground_truth,
        annotator=version.annotator,
        label_config=version.label_config,
        deleted=masks.deleted or (),
    )
