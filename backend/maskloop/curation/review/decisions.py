"""What reviewers decided: taken from what they did to the annotation, used to teach and never asked again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from maskloop.curation.review.error_classifier import CLEAN, Lesson
from maskloop.masks import segment_iou
from maskloop.store.reviews import StoredSuspicion, Verdict
from maskloop.types import Correction, Segment

__all__ = ["is_confirmed", "lessons_of", "settle"]

SAME_IOU = 0.98  # of a region that was left as it was: brushes and polygons round a little
FOUND_IOU = 0.5  # of a region that was drawn where one was missing


def settle(
    shown: Iterable[StoredSuspicion], corrections: Mapping[tuple[int, str, int], Correction]
) -> dict[int, Verdict]:
    """Return number -> verdict of suspicions whose annotation was saved again since they were shown.

    A region that is still the same was right; one that was changed, relabelled or deleted was wrong. Where a
    region was said to be missing, one that is there now says that it was.

    Args:
        shown: open suspicions.
        corrections: (task, view, page) -> the newest correction of that image.
    """
    verdicts: dict[int, Verdict] = {}
    for one in shown:
        newest = corrections.get((one.task_id, one.view, one.image_index))
        if newest is None or newest.version_id <= one.version_id:
            continue
        least = FOUND_IOU if one.missing else SAME_IOU
        still = any(
            (one.missing or region.label == one.segment.label) and segment_iou(region, one.segment) >= least
            for region in newest.segments
        )
        verdicts[one.number] = Verdict.WRONG if still == one.missing else Verdict.RIGHT
    return verdicts


def is_confirmed(segment: Segment, missing: bool, image_key: str, right: Iterable[StoredSuspicion]) -> bool:
    """Return whether a reviewer said before that a region, or the lack of one, is right."""
    return any(
        one.image_key == image_key
        and one.missing is missing
        and one.segment.label == segment.label
        and segment_iou(one.segment, segment) >= (FOUND_IOU if missing else SAME_IOU)
        for one in right
    )


def lessons_of(decided: Sequence[StoredSuspicion]) -> tuple[Lesson, ...]:
    """Return the decisions as lessons of the ranking."""
    return tuple(
        Lesson(
            features=one.features,
            kind=one.kind if one.verdict is Verdict.WRONG else CLEAN,
            missing=one.missing,
        )
        for one in decided
    )
