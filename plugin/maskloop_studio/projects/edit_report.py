"""What annotators did to a project's predictions: edits, work saved, and the gain of choosing images."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.learning.evaluation.annotation_cost import (
    EditWeights,
    measure_weights,
    weights_from_settings,
    work_saved,
)
from maskloop.selection.gain import SelectionGain, estimate_gain
from maskloop.types import EditCounts, version_number

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository, EditedTask

__all__ = ["AnnotatorReport", "ProjectReport", "VersionReport", "report_project", "version_age"]


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    """What annotators did to one version's predictions."""

    model_version: str  # tag
    images: int  # corrected
    edits: EditCounts  # in all of them
    lead_time_s: float | None  # median of an image
    worth: SelectionGain
    work_saved: float | None  # 1 - cost of correcting / cost of drawing; None where nothing was drawn
    untouched: int  # images whose predicted regions were submitted without any edit
    untouched_s: float | None  # their median lead time
    label_edits: dict[str, EditCounts]  # label -> edits of its regions; without annotations of before 0006

    @property
    def kept_share(self) -> float | None:
        """The share of the predicted regions that was left unchanged; None where none was predicted."""
        predicted = self.edits.kept + self.edits.changed + self.edits.removed
        return self.edits.kept / predicted if predicted else None


@dataclass(frozen=True, kw_only=True)
class AnnotatorReport:
    """What one annotator did to predictions, of all versions."""

    annotator: int | None  # user number in Label Studio; None: not stored by an older maskloop
    images: int
    edits: EditCounts
    lead_time_s: float | None  # median of an image
    work_saved: float | None
    untouched: int  # images whose predicted regions were submitted without any edit
    untouched_s: float | None  # their median lead time
    label_edits: dict[str, EditCounts]


@dataclass(frozen=True, kw_only=True)
class ProjectReport:
    """What annotators did to a project's predictions."""

    project_id: int
    random_share: float  # of the tasks, drawn by chance
    versions: tuple[VersionReport, ...]  # oldest first
    worth: SelectionGain  # over all versions
    annotators: tuple[AnnotatorReport, ...]  # by number
    weights: EditWeights  # seconds of each edit, by which the work saved is counted

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        values = dataclasses.asdict(self)
        for line, version in zip(values["versions"], self.versions, strict=True):
            line["kept_share"] = version.kept_share
        return values | {
            "versions": list(values["versions"]),
            "annotators": list(values["annotators"]),
            "weights": values["weights"] | {"source": self.weights.source},
        }


def report_project(
    project_id: int, *, corrections: CorrectionRepository, settings: Settings
) -> ProjectReport:
    """Count what annotators did to predictions, of chosen images and of images drawn by chance.

    Args:
        project_id: Label Studio's number.
        corrections: the counts of edits.
        settings: which share of the tasks is drawn by chance, and the seed of the draw.

    Raises:
        StoreError: the database does not answer.
    """
    from maskloop.selection.arrangement import drawn_at_random

    edited = corrections.edited(project_id)
    # The same tasks are always the ones drawn by chance, so this need not be stored with their corrections.
    drawn = drawn_at_random(
        [one.task_id for one in edited], random_share=settings.random_share, seed=settings.seed
    )
    by_chance = {one.task_id for one, is_drawn in zip(edited, drawn, strict=True) if is_drawn}
    of_tag: defaultdict[str, list[EditedTask]] = defaultdict(list)
    of_user: defaultdict[int | None, list[EditedTask]] = defaultdict(list)
    for one in edited:
        of_tag[one.model_version].append(one)
        of_user[one.annotator].append(one)
    users = sorted(of_user, key=lambda user: -1 if user is None else user)
    weights = _weights(edited, settings)
    return ProjectReport(
        project_id=project_id,
        random_share=settings.random_share,
        versions=tuple(
            _of_version(tag, of_tag[tag], by_chance, weights) for tag in sorted(of_tag, key=version_age)
        ),
        worth=_worth(edited, by_chance),
        annotators=tuple(
            AnnotatorReport(annotator=user, **_figures(of_user[user], weights)) for user in users
        ),
        weights=weights,
    )


def _of_version(
    tag: str, edited: Sequence[EditedTask], by_chance: set[int], weights: EditWeights
) -> VersionReport:
    return VersionReport(model_version=tag, worth=_worth(edited, by_chance), **_figures(edited, weights))


def _figures(edited: Sequence[EditedTask], weights: EditWeights) -> dict[str, Any]:
    """Return the fields that the reports of a version and of an annotator share."""
    edits = sum((one.edits for one in edited), EditCounts())
    label_edits: dict[str, EditCounts] = {}
    for one in edited:
        for label, counts in one.label_edits.items():
            label_edits[label] = label_edits.get(label, EditCounts()) + counts
    untouched = [one for one in edited if one.edits.is_untouched]
    return {
        "images": len(edited),
        "edits": edits,
        "lead_time_s": _median_time(edited),
        "work_saved": work_saved(edits, weights),
        "untouched": len(untouched),
        "untouched_s": _median_time(untouched),
        "label_edits": dict(sorted(label_edits.items())),
    }


def _median_time(edited: Iterable[EditedTask]) -> float | None:
    times = [one.lead_time_s for one in edited if one.lead_time_s is not None]
    return statistics.median(times) if times else None


def _weights(edited: Iterable[EditedTask], settings: Settings) -> EditWeights:
    """Return the seconds of each edit; annotations whose edits are of unknown kind are left out."""
    timed = [
        (one.edits, one.lead_time_s) for one in edited if one.lead_time_s is not None and one.label_edits
    ]
    return measure_weights(
        [edits for edits, _ in timed],
        [seconds for _, seconds in timed],
        prior=weights_from_settings(settings.edit_seconds),
    )


def _worth(edited: Sequence[EditedTask], by_chance: set[int]) -> SelectionGain:
    return estimate_gain(
        [_corrections(one.edits) for one in edited if one.task_id not in by_chance],
        [_corrections(one.edits) for one in edited if one.task_id in by_chance],
    )


def _corrections(edits: EditCounts) -> float:
    return float(edits.changed + edits.added + edits.removed)


def version_age(tag: str) -> tuple[int, str]:
    """Return what orders tags of versions by their numbers."""
    return version_number(tag), tag
