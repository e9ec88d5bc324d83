"""Negative clicks take away from an object; they never choose another one, nor nearly nothing of it."""

from __future__ import annotations

from maskloop.interactive.allowed_part import allowed_part
from maskloop.interactive.prompt import Prompt
from maskloop.masks import mask_to_segment, paste_segment, segment_intersection
from maskloop.types import Segment

__all__ = ["LEAST_INSIDE", "LEAST_KEPT", "is_same_object", "without_negatives"]

LEAST_INSIDE = 0.5  # of an answer, that lies in the object which the clicks on it alone mean
LEAST_KEPT = 0.2  # of that object without what is around the negative clicks, that an answer covers


def is_same_object(found: Segment, first: Segment, cut: Segment | None) -> bool:
    """Return whether an answer to all clicks is still the object of the positive ones.

    Args:
        found: the answer to all clicks.
        first: the answer to the same prompt without its negative clicks.
        cut: that answer `without_negatives`.
    """
    if segment_intersection(found, first) < LEAST_INSIDE * found.area:
        return False
    return cut is None or segment_intersection(found, cut) >= LEAST_KEPT * cut.area


def without_negatives(first: Segment, prompt: Prompt, size_hw: tuple[int, int]) -> Segment | None:
    """Return an object without what is around the negative clicks, see `allowed_part`.

    Args:
        first: the answer to the prompt without its negative clicks.
        prompt: with them.
        size_hw: of the image.

    Returns:
        None where nothing is left.
    """
    mask_hw = allowed_part(paste_segment(first, size_hw), prompt, clicked_only=False)
    return mask_to_segment(mask_hw, label=first.label, score=first.score)
