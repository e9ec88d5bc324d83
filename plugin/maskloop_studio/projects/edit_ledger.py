"""A project's edits as columns of numbers: made once, then only what is new is read.

`edit_report` has more (the gain of choosing images, labels), reads everything each time and is for a command.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.annotation_cost import (
    EditWeights,
    fit_weights,
    weighted_edits,
    weights_from_settings,
    work_saved,
)
from maskloop.store.edit_rows import EDIT_FIELDS, edits_of
from maskloop.types import EditCounts
from maskloop_studio.projects.edit_report import version_age

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.edit_rows import EditRow, EditRowRepository

__all__ = ["EditLedger", "EditLine", "EditSummary"]

OVERLAP = 1000  # versions that are read again: their masks may have come later than those of newer ones
NOBODY = -1  # in place of an annotator's number that is not known


@dataclass(frozen=True, kw_only=True)
class EditLine:
    """What was done to the predictions of one version, or by one annotator."""

    model_version: str | None  # tag; None: of all versions
    annotator: int | None  # user number in Label Studio; None: of all, or not known
    images: int  # corrected
    edits: EditCounts
    lead_time_s: float | None  # median of an image
    work_saved: float | None  # 1 - cost of correcting / cost of drawing; None where nothing was drawn
    untouched: int  # images whose predicted regions were submitted without any edit
    untouched_s: float | None  # their median lead time


@dataclass(frozen=True, kw_only=True)
class EditSummary:
    """What annotators did to a project's predictions."""

    versions: tuple[EditLine, ...] = ()  # oldest first
    annotators: tuple[EditLine, ...] = ()  # by number
    weights: EditWeights  # seconds of each edit, by which the work saved is counted


@dataclass
class EditLedger:
    """The edits of one project; not safe from several threads at once."""

    project_id: int
    last_version: int = 0
    _place: dict[int, int] = field(default_factory=dict)  # annotation -> its row, the newest
    _version_id: array[int] = field(default_factory=lambda: array("q"))
    _counts: array[int] = field(default_factory=lambda: array("i"))  # rows of EDIT_FIELDS
    _lead_s: array[float] = field(default_factory=lambda: array("d"))  # NaN: not known
    _has_kinds: array[int] = field(default_factory=lambda: array("b"))
    _version: array[int] = field(default_factory=lambda: array("i"))  # index into `_versions`
    _annotator: array[int] = field(default_factory=lambda: array("q"))
    _versions: dict[str, int] = field(default_factory=dict)

    def update(self, rows: EditRowRepository) -> int:
        """Read what is new and forget what was deleted; return how many annotations are new.

        Raises:
            StoreError: the database does not answer.
        """
        read, newest = 0, self.last_version
        for row in rows.read(self.project_id, after_version=max(0, self.last_version - OVERLAP)):
            place = self._place.get(row.annotation_id)
            if place is None or self._version_id[place] != row.version_id:
                self._add(row)
                read += 1
            newest = max(newest, row.version_id)
        self.last_version = newest
        for annotation_id in rows.gone(self.project_id) & self._place.keys():
            del self._place[annotation_id]
        return read

    def summary(self, settings: Settings) -> EditSummary:
        """Return the sums by version and by annotator."""
        rows_n = np.fromiter(self._place.values(), np.int64, len(self._place))
        counts_nk = np.array(self._counts, np.int64).reshape(-1, len(EDIT_FIELDS))[rows_n]
        lead_n = np.array(self._lead_s, np.float64)[rows_n]
        version_n = np.array(self._version, np.int64)[rows_n]
        annotator_n = np.array(self._annotator, np.int64)[rows_n]
        timed_n = np.isfinite(lead_n) & (np.array(self._has_kinds, np.int8)[rows_n] > 0)
        prior = weights_from_settings(settings.edit_seconds)
        weights = fit_weights(_features(counts_nk[timed_n]), lead_n[timed_n], prior=prior)

        def line(chosen_n: NDArray[np.bool_], tag: str | None, user: int | None) -> EditLine:
            return _line(counts_nk[chosen_n], lead_n[chosen_n], weights, tag=tag, user=user)

        present = set(np.unique(version_n).tolist())
        tags = sorted((tag for tag, index in self._versions.items() if index in present), key=version_age)
        return EditSummary(
            versions=tuple(line(version_n == self._versions[tag], tag, None) for tag in tags),
            annotators=tuple(
                line(annotator_n == user, None, None if user == NOBODY else user)
                for user in np.unique(annotator_n).tolist()
            ),
            weights=weights,
        )

    def _add(self, row: EditRow) -> None:
        self._place[row.annotation_id] = len(self._lead_s)
        self._version_id.append(row.version_id)
        self._counts.extend(row.counts)
        self._lead_s.append(np.nan if row.lead_time_s is None else row.lead_time_s)
        self._has_kinds.append(row.has_kinds)
        self._version.append(self._versions.setdefault(row.model_version, len(self._versions)))
        self._annotator.append(NOBODY if row.annotator is None else row.annotator)


def _line(
    counts_nk: NDArray[np.int64],
    lead_n: NDArray[np.float64],
    weights: EditWeights,
    *,
    tag: str | None,
    user: int | None,
) -> EditLine:
    edits = edits_of(counts_nk.sum(axis=0).tolist())
    kept, changed, added, removed = (counts_nk[:, EDIT_FIELDS.index(name)] for name in EDIT_FIELDS[:4])
    untouched_n = (kept > 0) & (changed + added + removed == 0)
    return EditLine(
        model_version=tag,
        annotator=user,
        images=len(lead_n),
        edits=edits,
        lead_time_s=_median(lead_n),
        work_saved=work_saved(edits, weights),
        untouched=int(untouched_n.sum()),
        untouched_s=_median(lead_n[untouched_n]),
    )


def _features(counts_nk: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each weight counts, (N, 5): as `annotation_cost` counts an annotation."""
    column = {name: counts_nk[:, index].astype(np.float64) for index, name in enumerate(EDIT_FIELDS)}
    return np.column_stack(weighted_edits(column.__getitem__))


def _median(values_n: NDArray[np.float64]) -> float | None:
    known = values_n[np.isfinite(values_n)]
    return float(np.median(known)) if len(known) else None
