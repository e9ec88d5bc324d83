"""Around an annotation's regions: what became of the predicted ones, and how exact they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from maskloop.types import EditCounts
from maskloop_studio.formats.result_items import GEOMETRY_TYPES

__all__ = ["count_edits", "is_approximate"]


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


def is_approximate(result: Sequence[Any]) -> bool:
    """Return whether some of an annotation is only roughly where its object is.

    That is a rectangle, and an ellipse that was predicted and left as it was: both stand for a mask that
    nobody drew. An ellipse that a person drew or changed is taken at its word.

    Args:
        result: the annotation's regions.
    """
    for region in result:
        kind = str(region.get("type", "")) if isinstance(region, Mapping) else ""
        if kind.startswith("rectangle"):
            return True
        if kind.startswith("ellipse") and region.get("origin") == "prediction":
            return True
    return False
