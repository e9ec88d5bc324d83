"""Around an annotation's regions: what became of the predicted ones, and whose annotation counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from maskloop.types import AnnotationRule, EditCounts
from maskloop_studio.regions_in import GEOMETRY_TYPES

__all__ = ["choose_annotations", "count_edits"]

LONG_AGO = datetime.min.replace(tzinfo=UTC)


def choose_annotations(
    annotations: Sequence[Mapping[str, Any]], *, rule: AnnotationRule = AnnotationRule.NEWEST
) -> Mapping[str, Any] | None:
    """Return which of several annotators' annotations of one task counts, or None where none does.

    Cancelled (skipped) ones never count; empty ones do: they say that nothing is there.

    Args:
        annotations: of one task, as Label Studio's API returns them.
        rule: the newest by `updated_at`, the first by number, or the newest of those that are marked as
            ground truth where there is one. Among equals the higher number counts.
    """
    said = [a for a in annotations if not a.get("was_cancelled") and isinstance(a.get("id"), int)]
    if rule is AnnotationRule.FIRST:
        return min(said, key=lambda annotation: int(annotation["id"]), default=None)
    if rule is AnnotationRule.GROUND_TRUTH:
        said = [annotation for annotation in said if annotation.get("ground_truth")] or said
    return max(said, key=lambda annotation: (_saved_at(annotation), annotation["id"]), default=None)


def count_edits(result: Sequence[Any], predicted_ids: Collection[str]) -> EditCounts:
    """Return what became of the predicted regions; every drawn region counts by itself.

    Args:
        result: the annotation's regions; `origin` says what the annotator did to each.
        predicted_ids: the ids of the regions of the prediction it started from.
    """
    kept = changed = added = 0
    seen: set[str] = set()
    for region in result:
        if not isinstance(region, Mapping) or not isinstance(region.get("type"), str):
            continue
        if region["type"] not in GEOMETRY_TYPES:
            continue
        seen.add(str(region.get("id")))
        match region.get("origin"):
            case "prediction":
                kept += 1
            case "prediction-changed":
                changed += 1
            case _:
                added += 1
    return EditCounts(kept=kept, changed=changed, added=added, removed=len(set(predicted_ids) - seen))


def _saved_at(annotation: Mapping[str, Any]) -> datetime:
    saved = annotation.get("updated_at") or annotation.get("created_at")
    if isinstance(saved, str):
        try:
            saved = datetime.fromisoformat(saved)
        except ValueError:
            return LONG_AGO
    if not isinstance(saved, datetime):
        return LONG_AGO
    return saved if saved.tzinfo else saved.replace(tzinfo=UTC)
