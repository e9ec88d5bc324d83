"""What annotators did to predictions: a few numbers for each annotation, all of them or what is new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import select

from maskloop.store.sessions import Sessions
from maskloop.store.tables import AnnotationRow, MasksRow, VersionRow
from maskloop.types import EditCounts

__all__ = ["EDIT_FIELDS", "EditRow", "EditRowRepository", "edits_of"]

# The order of `EditRow.counts`: the fields of `types.EditCounts`.
EDIT_FIELDS = ("kept", "changed", "added", "removed", "nudged", "redrawn", "relabelled", "split", "merged")
ROWS_AT_ONCE = 5000
VERSION = 2  # place of the annotation's version in a row
SPLITS = ("train", "holdout", "neither")


def edits_of(counts: Iterable[int]) -> EditCounts:
    """Return counts in the order of EDIT_FIELDS by name."""
    return EditCounts(**dict(zip(EDIT_FIELDS, counts, strict=True)))


class EditRow(NamedTuple):
    """One annotation that began with a prediction; plain numbers, since there may be 100,000 of them."""

    annotation_id: int
    task_id: int
    version_id: int  # of the annotation
    model_version: str  # whose prediction it was
    annotator: int | None
    lead_time_s: float | None
    has_kinds: bool  # the kinds of change are known
    counts: tuple[int, ...]  # as EDIT_FIELDS

    @property
    def edits(self) -> EditCounts:
        """The counts by name."""
        return edits_of(self.counts)


class EditRowRepository:
    """Reads only."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def read(
        self, project_id: int, *, after_version: int = 0, model_version: str | None = None
    ) -> Iterator[EditRow]:
        """Yield a project's submitted annotations with edits.

        Args:
            project_id: Label Studio's number.
            after_version: only annotations that are newer than this version of an annotation.
            model_version: only of this version's predictions.
        """
        query = (
            select(
                AnnotationRow.annotation_id,
                AnnotationRow.task_id,
                AnnotationRow.version_id,
                MasksRow.model_version,
                VersionRow.annotator,
                VersionRow.lead_time_s,
                MasksRow.label_edits,
                MasksRow.kept,
                MasksRow.changed,
                MasksRow.added,
                MasksRow.removed,
            )
            .join(VersionRow, VersionRow.version_id == AnnotationRow.version_id)
            .join(MasksRow, MasksRow.version_id == AnnotationRow.version_id)
            .where(
                AnnotationRow.project_id == project_id,
                AnnotationRow.state == "submitted",
                MasksRow.model_version.is_not(None),
            )
        )
        if model_version is not None:
            query = query.where(MasksRow.model_version == model_version)
        for split in SPLITS:  # each is a walk along the index of project, state, split and version
            last = after_version
            while True:
                page = (
                    query.where(AnnotationRow.split == split, AnnotationRow.version_id > last)
                    .order_by(AnnotationRow.version_id, MasksRow.view, MasksRow.image_index)
                    .limit(ROWS_AT_ONCE)
                )
                with self._sessions.read() as session:
                    rows: list[Any] = list(session.execute(page).all())
                whole = len(rows) < ROWS_AT_ONCE
                if not whole:  # the last annotation may have more images than fitted in
                    rows = _without_last(rows)
                for _, images in groupby(rows, key=itemgetter(VERSION)):
                    yield _edit_row(list(images))
                if whole or not rows:
                    break
                last = rows[-1][VERSION]

    def gone(self, project_id: int) -> frozenset[int]:
        """Return the annotations that do not count any more: deleted, or skipped."""
        query = select(AnnotationRow.annotation_id).where(
            AnnotationRow.project_id == project_id, AnnotationRow.state.in_(("deleted", "skipped"))
        )
        with self._sessions.read() as session:
            return frozenset(session.scalars(query))


def _without_last(rows: list[Any]) -> list[Any]:
    """Return the rows without those of the last annotation; all where there is no other."""
    last = rows[-1][VERSION]
    return [row for row in rows if row[VERSION] != last] or rows


def _edit_row(images: list[Any]) -> EditRow:
    number, task_id, version, _, annotator, lead_time_s, *_ = images[0]
    totals = dict.fromkeys(EDIT_FIELDS, 0)
    has_kinds = False
    for _, _, _, _, _, _, label_edits, *by_origin in images:
        if label_edits is None:
            for name, count in zip(EDIT_FIELDS, by_origin, strict=False):
                totals[name] += count
            continue
        has_kinds = has_kinds or bool(label_edits)
        for edits in label_edits.values():
            _add(totals, edits)
    return EditRow(
        annotation_id=number,
        task_id=task_id,
        version_id=version,
        model_version=min(row[VERSION + 1] for row in images),
        annotator=annotator,
        lead_time_s=lead_time_s,
        has_kinds=has_kinds,
        counts=tuple(totals.values()),
    )


def _add(totals: dict[str, int], edits: Mapping[str, int]) -> None:
    for name, count in edits.items():
        if name in totals:  # a kind that only a newer maskloop knows is a part of `changed` all the same
            totals[name] += count
