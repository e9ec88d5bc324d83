"""What is to be found on an image, and what of it nobody is judged by."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import BoolMask, Segment

__all__ = ["GroundTruth", "merge_stuff"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """One image's objects, and the places where a prediction is neither right nor wrong."""

    segments: tuple[Segment, ...]  # later ones lie on top
    crowds: tuple[Segment, ...] = ()  # objects of a class that nobody told apart; segments lie on top
    ignored_hw: BoolMask | None = None  # bool (H, W): anything may be here; segments and crowds lie on top


def merge_stuff(
    segments: Iterable[Segment], size_hw: tuple[int, int], stuff: Collection[str]
) -> tuple[Segment, ...]:
    """Return the segments with all those of one stuff class made one, with the best score among them."""
    given = tuple(segments)
    merged = [segment for segment in given if segment.label not in stuff]
    for label in sorted({segment.label for segment in given} & set(stuff)):
        parts = [segment for segment in given if segment.label == label]
        mask_hw = np.logical_or.reduce([paste_segment(part, size_hw) for part in parts])
        whole = mask_to_segment(mask_hw, label=label, score=max(part.score for part in parts))
        if whole is not None:
            merged.append(whole)
    return tuple(merged)
