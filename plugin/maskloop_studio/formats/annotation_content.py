"""What one annotation holds for one image: its segments, and what of it could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maskloop.types import Segment

__all__ = ["AnnotationContent", "RegionRefusal"]


@dataclass(frozen=True, kw_only=True)
class RegionRefusal:
    """One item of a `result` that could not be read, or not as it was meant."""

    place: str  # such as "task 42, annotation 7, region r1"
    expected: str
    got: str
    remedy: str
    region_type: str  # the item's `type`, or the type of a thing that is no item
    region_id: str  # the item's `id`, or its position in the `result`
    area_known: bool  # its area became an UNLABELLED segment; otherwise the annotation is set aside

    def __str__(self) -> str:
        return f"{self.place}: expected {self.expected}, got {self.got}; {self.remedy}"


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotationContent:
    """What one annotation holds for one image.

    Only an empty `result` means that nothing is on the image: then `segments`, `refusals` and `set_aside`
    are empty, `regions_here` is 0 and `other_answers` is false.
    """

    segments: tuple[Segment, ...]  # in the order of their first region
    size_hw: tuple[int, int] | None  # of the upright image; None where neither caller nor region gives it
    refusals: tuple[RegionRefusal, ...] = ()  # in the order of the `result`
    notes: tuple[str, ...] = ()  # one sentence for each region that was read, but not exactly as it stands
    set_aside: str | None = None  # why nothing may be learnt from this annotation, nor judged by it
    unknown_labels: Mapping[str, int] = field(default_factory=dict)  # label -> its regions, UNLABELLED
    other_answers: bool = False  # the `result` is not empty, but holds no region of this image
    regions_here: int = 0  # regions that were drawn on this image, readable or not

    @property
    def problems(self) -> tuple[str, ...]:
        """Each refusal as one sentence."""
        return tuple(str(refusal) for refusal in self.refusals)
