"""Fragments: predicted segments that are pieces of an object which other segments show too."""

from __future__ import annotations

from collections.abc import Sequence

from maskloop.learning.evaluation.overlaps import find_overlaps
from maskloop.learning.evaluation.region_edits import INSIDE_SHARE
from maskloop.types import Segment

__all__ = ["count_fragments"]

FOUND_IOU = 0.5  # from here on a segment stands for its object, as in AP50 and panoptic quality


def count_fragments(predicted: Sequence[Segment], objects: Sequence[Segment]) -> int:
    """Return how many predicted segments are fragments.

    A segment is a fragment where at least 80 % of it lies inside an object, and

    - another segment of its label has a higher IoU with this object, or
    - another segment of its label lies inside this object too, and it has itself no IoU of .5 with it.

    So of an object in three pieces all three are fragments, unless one of them has an IoU of .5 with it: then
    the other two. A single piece of an object is a bad mask, but no fragment. Of equal segments one counts
    as the better one. Objects of any label count, since a piece may have the wrong one.

    Args:
        predicted: segments of an image; they may overlap.
        objects: what is really on the image.

    Raises:
        ResourceError: too many overlapping segments to compare in a few seconds.
    """
    overlaps = find_overlaps(predicted, objects)
    touching: dict[int, list[int]] = {}
    for i, j in sorted(overlaps.shared):
        touching.setdefault(j, []).append(i)
    fragments: set[int] = set()
    for j, near in touching.items():
        for label in {predicted[i].label for i in near}:
            group = [i for i in near if predicted[i].label == label]
            inside = [i for i in group if overlaps.first_inside(i, j) >= INSIDE_SHARE]
            best = max(group, key=lambda i: overlaps.iou(i, j))
            fragments.update(i for i in inside if i != best)
            if best in inside and len(inside) > 1 and overlaps.iou(best, j) < FOUND_IOU:
                fragments.add(best)
    return len(fragments)
