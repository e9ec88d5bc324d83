"""The values of a review: what a model saw on an image it had not learnt from, and what looks wrong."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.appearance import Appearance
from maskloop.types import Segment

__all__ = ["Evidence", "ReviewImage", "Suspicion", "SuspicionKind"]


class SuspicionKind(StrEnum):
    """What may be wrong with a region, or with a place that has none."""

    OVERLOOKED = "overlooked"  # an object without a region
    SPURIOUS = "spurious"  # a region without an object
    WRONG_CLASS = "wrong class"
    BORDER = "poorly drawn border"
    MERGED = "merged"  # one region for several objects
    SPLIT = "split"  # one of several regions of one object
    DUPLICATE = "duplicate"  # an object that has another region already


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What one model saw on one image that it had not learnt from: N objects, sure and unsure ones."""

    labels: tuple[str, ...]  # K classes
    segments: tuple[Segment, ...]  # N, best first; they may overlap
    class_probs_nk: NDArray[np.float32]  # (N, K): of each class; the rest up to 1 is "no object"
    mask_probs_nhw: NDArray[np.float16]  # (N, h, w): of each pixel, at the model's own resolution
    pixel_probs_khw: NDArray[np.float16]  # (K, h, w): expected objects of each class at each pixel
    size_hw: tuple[int, int]  # of the upright image
    appearance: Appearance | None = None  # of the image; None: colours and edges say nothing

    def __post_init__(self) -> None:
        count, classes = len(self.segments), len(self.labels)
        if self.class_probs_nk.shape != (count, classes) or len(self.mask_probs_nhw) != count:
            raise ValueError(
                f"Evidence: expected {count} objects and {classes} classes, got class probabilities "
                f"{self.class_probs_nk.shape} and {len(self.mask_probs_nhw)} masks"
            )
        if len(self.pixel_probs_khw) != classes:
            raise ValueError(
                f"Evidence.pixel_probs_khw: expected {classes} maps, got {len(self.pixel_probs_khw)}"
            )

    @functools.cached_property
    def expected_hw(self) -> NDArray[np.float32]:
        """Expected objects of any class at each pixel, (h, w); every region of the image asks for it."""
        return np.asarray(self.pixel_probs_khw.sum(axis=0, dtype=np.float32))

    def object_probs(self) -> NDArray[np.float32]:
        """Return how far each pixel is an object's, (h, w), 0..1."""
        return np.minimum(self.expected_hw, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewImage:
    """One image under review."""

    key: str  # identifies it
    size_hw: tuple[int, int]
    regions: tuple[Segment, ...]  # as annotated, in the annotation's order
    evidence: tuple[Evidence, ...]  # of each model that had not seen it; at least one
    ignored: tuple[Segment, ...] = ()  # unlabelled areas: nothing is missing there


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspicion:
    """One region, or one missing region, that is probably wrong."""

    image: str  # the image's key
    kind: SuspicionKind  # the likeliest
    score: float  # 0..1: how likely it is an error, as calibrated on errors put into the project's own data
    region: int | None  # position among the image's regions; None: a region is missing
    others: tuple[int, ...] = ()  # regions that belong to it: the other part, the first copy
    proposal: Segment | None = None  # what the model saw there; None where it says that nothing is there
    kinds: dict[SuspicionKind, float] = field(default_factory=dict)  # kind -> 0..1
