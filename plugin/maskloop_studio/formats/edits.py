"""What an annotator did to the predicted regions, and how exact an annotation's regions are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from maskloop.types import EditCounts
from maskloop_studio.formats.controls import TaskImage
from maskloop_studio.formats.result_items import GEOMETRY_TYPES, kind_of_region

__all__ = ["count_edits", "is_approximate", "is_box"]


def count_edits(
    result: Sequence[Any], predicted_ids: Collection[str], *, image: TaskImage | None = None
) -> EditCounts:
    """Return how many regions the annotator kept, changed, added and removed; each region counts by itself.

    Args:
        result: the annotation's regions; `origin` names what the annotator did to each.
        predicted_ids: the ids of the regions of the prediction from which the annotation was made; with an
            image, only those that were predicted on it.
        image: count only the regions of this image; None for all.
    """
    kept = changed = added = 0
    seen: set[str] = set()
    for region in result:
        if not isinstance(region, Mapping) or not isinstance(region.get("type"), str):
            continue
        if region["type"] not in GEOMETRY_TYPES or not _is_on(region, image):
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


def is_approximate(result: Sequence[Any], *, image: TaskImage | None = None) -> bool:
    """Return whether some of an annotation is only roughly where its object is: see `is_box`.

    Args:
        result: the annotation's regions.
        image: look only at the regions of this image; None for all.
    """
    return any(isinstance(region, Mapping) and _is_on(region, image) and is_box(region) for region in result)


def is_box(region: Mapping[str, Any]) -> bool:
    """Return whether a region only says that its object is somewhere inside.

    That is a rectangle, turned ones too, and an ellipse that was predicted and left as it was: both stand for
    a mask that no person drew. An ellipse that a person drew or changed is taken as exact.
    """
    kind = kind_of_region(region)
    return kind == "rectangle" or (kind == "ellipse" and region.get("origin") == "prediction")


def _is_on(region: Mapping[str, Any], image: TaskImage | None) -> bool:
    """Return whether a region names this image and page; without a `to_name` it counts as this image's."""
    if image is None:
        return True
    page = region.get("item_index")
    return region.get("to_name", image.to_name) == image.to_name and (page or 0) == (image.item_index or 0)
