"""The annotation as it would be with the proposals taken: what one click accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from maskloop.curation.review.overlap import shared_pixels
from maskloop.curation.review.suspicion import ReviewImage, Suspicion, SuspicionKind
from maskloop.types import Segment

__all__ = ["corrected_regions"]

INSIDE = 0.6  # of an object in the region that it is a part of
PART_SCORE = 0.15  # of such an object
APART = 0.3  # of the smaller of two such objects, that they may share


def corrected_regions(image: ReviewImage, suspicions: Sequence[Suspicion]) -> tuple[Segment, ...]:
    """Return an image's regions with the proposals of these suspicions in their places.

    Args:
        image: as it was ranked.
        suspicions: of this image, likeliest first; a later one does not undo an earlier one.
    """
    kept: dict[int, tuple[Segment, ...]] = {index: (one,) for index, one in enumerate(image.regions)}
    added: list[Segment] = []
    settled: set[int] = set()
    for one in suspicions:
        if one.region is None:
            if one.proposal is not None:
                added.append(replace(one.proposal, score=1.0))
            continue
        if one.region in settled:
            continue
        region = image.regions[one.region]
        settled |= {one.region, *(one.others if one.kind is not SuspicionKind.BORDER else ())}
        kept[one.region] = _instead(region, one, image)
        if one.kind is SuspicionKind.SPLIT and one.proposal is not None:
            for other in one.others:
                kept[other] = ()
    return (*(segment for index in sorted(kept) for segment in kept[index]), *added)


def _instead(region: Segment, one: Suspicion, image: ReviewImage) -> tuple[Segment, ...]:
    proposal = one.proposal
    match one.kind:
        case SuspicionKind.SPURIOUS | SuspicionKind.DUPLICATE:
            return ()
        case SuspicionKind.MERGED:
            parts = _objects_inside(region, image)
            return parts if len(parts) > 1 else (region,)
        case _ if proposal is None:
            return (region,)
        case SuspicionKind.WRONG_CLASS:
            return (replace(region, label=proposal.label),)
        case _:
            return (replace(proposal, label=region.label, score=1.0),)


def _objects_inside(region: Segment, image: ReviewImage) -> tuple[Segment, ...]:
    """Return separate objects that lie in the region, with its label."""
    objects = [one for one in image.evidence[0].segments if one.score >= PART_SCORE]
    inside_n = shared_pixels(objects, [region])[:, 0].tolist() if objects else []
    chosen: list[Segment] = []
    for one, shared in zip(objects, inside_n, strict=True):
        if shared < INSIDE * one.area:
            continue
        common_m = shared_pixels([one], chosen)[0] if chosen else []
        if all(
            common <= APART * min(one.area, other.area)
            for common, other in zip(common_m, chosen, strict=True)
        ):
            chosen.append(one)
    return tuple(replace(one, label=region.label, score=1.0) for one in chosen)
