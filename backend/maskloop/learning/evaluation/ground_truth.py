"""The ground truth of an image: objects, crowds and ignored areas."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import BoolMask, Segment

__all__ = ["GroundTruth", "merge_stuff"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """One image's objects, and the areas where a prediction is neither correct nor wrong."""

    segments: tuple[Segment, ...]  # later ones lie on top
    crowds: tuple[Segment, ...] = ()  # objects of a class drawn as one; segments lie on top
    ignored_hw: BoolMask | None = None  # bool (H, W): unlabelled; segments and crowds lie on top


def merge_stuff(
    segments: Iterable[Segment], size_hw: tuple[int, int], stuff: Collection[str]
) -> tuple[Segment, ...]:
    """Return the segments with those of each stuff class merged into one, with the best of their scores."""
    given = tuple(segments)
    merged = [segment for segment in given if segment.label not in stuff]
    for label in sorted({segment.label for segment in given} & set(stuff)):
        parts = [segment for segment in given if segment.label == label]
        mask_hw = np.logical_or.reduce([paste_segment(part, size_hw) for part in parts])
        whole = mask_to_segment(mask_hw, label=label, score=max(part.score for part in parts))
        if whole is not None:
            merged.append(whole)
    return tuple(merged)
