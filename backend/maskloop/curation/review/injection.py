"""Errors of each kind put into annotations, so that a ranking can be calibrated and measured.

The shapes of the errors are exchangeable: the benchmark draws them in another way than the calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from maskloop.curation.review.shape_edits import (
    bridge,
    careless_outline,
    cut,
    gap_between,
    moved,
    shifted_copy,
)
from maskloop.curation.review.suspicion import SuspicionKind
from maskloop.masks import paste_segment, segment_iou
from maskloop.types import Segment

__all__ = ["Corrupted", "ErrorShapes", "InjectedError", "inject"]

NEAR = 0.6  # of the smaller one's edge: the widest gap between two objects that are drawn as one
FREE_SHARE = 0.15  # of a made-up region's area that may lie on real ones


@dataclass(frozen=True, kw_only=True, eq=False)
class InjectedError:
    """One error: where it is now."""

    kind: SuspicionKind
    regions: tuple[int, ...]  # positions among the corrupted regions; none for an overlooked object
    removed: Segment | None = None  # the overlooked object


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrupted:
    """One image's regions with errors."""

    regions: tuple[Segment, ...]
    errors: tuple[InjectedError, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorShapes:
    """How the errors are drawn; each returns None where it cannot be."""

    outline: Callable[[Segment, tuple[int, int], np.random.Generator], Segment | None] = careless_outline
    angle: Callable[[Segment, np.random.Generator], float] = field(
        default=lambda _segment, rng: float(rng.uniform(0, np.pi))
    )
    copy: Callable[[Segment, tuple[int, int], np.random.Generator], Segment | None] = shifted_copy
    spurious: Callable[
        [Segment, tuple[int, int], np.random.Generator, Callable[[Segment], bool]], Segment | None
    ] = moved


CALIBRATION = ErrorShapes()


def inject(
    regions: Sequence[Segment],
    size_hw: tuple[int, int],
    chosen: Mapping[int, SuspicionKind],
    *,
    labels: Sequence[str],
    rng: np.random.Generator,
    shapes: ErrorShapes = CALIBRATION,
) -> Corrupted:
    """Return the regions with errors; an error that cannot be drawn is left out.

    Args:
        regions: of one image.
        size_hw: of the image.
        chosen: position of a region -> the error made with it. A spurious region takes its shape from it.
        labels: the classes a region may be given by mistake.
        rng: draws everything.
        shapes: how errors are drawn.

    Returns:
        Clean regions keep their order; regions that an error adds come last.
    """
    kept: dict[int, Segment] = dict(enumerate(regions))
    added: list[tuple[Segment, int, tuple[int, ...]]] = []  # segment, error, partners among the old positions
    errors: list[tuple[SuspicionKind, tuple[int, ...], Segment | None]] = []
    touched: set[int] = set()
    for index, kind in chosen.items():
        if index in touched:
            continue
        region = regions[index]
        match kind:
            case SuspicionKind.OVERLOOKED:
                del kept[index]
                errors.append((kind, (), region))
            case SuspicionKind.SPURIOUS:
                extra = shapes.spurious(region, size_hw, rng, _free(kept.values(), size_hw))
                if extra is not None:
                    added.append((extra, len(errors), ()))
                    errors.append((kind, (), None))
            case SuspicionKind.WRONG_CLASS:
                others = [label for label in labels if label != region.label]
                if others:
                    kept[index] = replace(region, label=others[int(rng.integers(len(others)))])
                    errors.append((kind, (index,), None))
            case SuspicionKind.BORDER:
                drawn = shapes.outline(region, size_hw, rng)
                if drawn is not None:
                    kept[index] = drawn
                    errors.append((kind, (index,), None))
            case SuspicionKind.MERGED:
                partner = _neighbour(index, regions, touched | chosen.keys())
                joined = None if partner is None else bridge(region, regions[partner], size_hw)
                if partner is not None and joined is not None:
                    kept[index] = joined
                    kept.pop(partner, None)
                    touched.add(partner)
                    errors.append((kind, (index,), None))
            case SuspicionKind.SPLIT:
                parts = cut(region, size_hw, shapes.angle(region, rng))
                if parts is not None:
                    kept[index] = parts[0]
                    added.append((parts[1], len(errors), (index,)))
                    errors.append((kind, (index,), None))
            case SuspicionKind.DUPLICATE:
                again = shapes.copy(region, size_hw, rng)
                if again is not None:
                    added.append((again, len(errors), (index,)))
                    errors.append((kind, (index,), None))
        touched.add(index)
    return _numbered(kept, added, errors)


def _numbered(
    kept: Mapping[int, Segment],
    added: Sequence[tuple[Segment, int, tuple[int, ...]]],
    errors: Sequence[tuple[SuspicionKind, tuple[int, ...], Segment | None]],
) -> Corrupted:
    place = {old: new for new, old in enumerate(kept)}
    extra: dict[int, int] = {error: len(place) + number for number, (_, error, _) in enumerate(added)}
    return Corrupted(
        regions=(*kept.values(), *(segment for segment, _, _ in added)),
        errors=tuple(
            InjectedError(
                kind=kind,
                regions=(*(place[old] for old in olds), *([extra[number]] if number in extra else [])),
                removed=removed,
            )
            for number, (kind, olds, removed) in enumerate(errors)
        ),
    )


def _neighbour(index: int, regions: Sequence[Segment], taken: set[int]) -> int | None:
    """Return the nearest region that may be drawn as one with this one, of its own label if there is one."""
    region = regions[index]
    near = []
    for other, candidate in enumerate(regions):
        if other == index or other in taken:
            continue
        gap = gap_between(region, candidate)
        if gap <= NEAR * np.sqrt(min(region.area, candidate.area)) and segment_iou(region, candidate) < 0.5:
            near.append((candidate.label != region.label, gap, other))
    return min(near)[2] if near else None


def _free(regions: Iterable[Segment], size_hw: tuple[int, int]) -> Callable[[Segment], bool]:
    taken_hw = np.zeros(size_hw, np.bool_)
    for region in regions:
        taken_hw |= paste_segment(region, size_hw)

    def is_free(segment: Segment) -> bool:
        top, left, bottom, right = segment.box_yxyx
        shared = np.count_nonzero(taken_hw[top:bottom, left:right] & segment.mask_hw)
        return bool(shared <= FREE_SHARE * segment.area)

    return is_free
