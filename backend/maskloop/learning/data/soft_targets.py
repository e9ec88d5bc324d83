"""Several annotators' drawings of one image -> one set of objects, who drew them and who counts a pixel in.

One annotation is believed, as before: its objects are learnt. `losses.soft_labels` has what the votes of the
other annotators change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from maskloop.learning.data.index_map import FIRST_DELETED, draw_index_map, fitting_objects
from maskloop.learning.losses.soft_labels import CERTAIN
from maskloop.masks import LEAST_IOU, segment_intersection, segment_iou
from maskloop.types import UNLABELLED, Segment

__all__ = ["MergedObject", "MergedObjects", "draw_shares", "merge_annotators"]

_MOSTLY = 0.5  # of an object's area, or of the annotators: more than that decides
_EVERY = 2**15 - 1  # objects that an index map can number


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedObject:
    """One object as the annotators drew it."""

    drawn: Mapping[int, tuple[Segment, ...]]  # annotator -> its parts there; the believed one is 0
    asked: int  # annotators who could have drawn it

    @property
    def weight(self) -> float:
        """1 where more than half of the annotators drew it, else the share of them."""
        share = len(self.drawn) / self.asked
        return 1.0 if share > _MOSTLY else share

    @property
    def votes(self) -> dict[str, float]:
        """Label -> how much it counts: that of more than half alone, else each as often as it was given."""
        counts = Counter(parts[0].label for parts in self.drawn.values())
        (most, given), *_ = counts.most_common(1)
        if given > _MOSTLY * len(self.drawn):
            return {most: self.weight}
        return {label: self.weight * count / len(self.drawn) for label, count in counts.items()}

    @property
    def label(self) -> str:
        """The label that most gave it; of several the one that was given first, so the believed one."""
        votes = self.votes
        return max(votes, key=votes.__getitem__)


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedObjects:
    """The objects of one image."""

    segments: tuple[Segment, ...]  # to learn
    ignored: tuple[Segment, ...]  # what too few drew to be learnt, the believed annotator not among them
    annotators: tuple[tuple[Segment, ...], ...]  # what each drew, the believed one first
    objects: tuple[MergedObject, ...]  # of each of `segments`, its object

    def of(self, parts: Sequence[Segment]) -> MergedObject:
        """Return what the annotators say of an object of an index map that was drawn of `segments`."""
        return next(made for one, made in zip(self.segments, self.objects, strict=True) if one is parts[0])


@dataclass(kw_only=True, eq=False)
class _Found:
    """An object while annotators are still compared."""

    drawn: dict[int, tuple[Segment, ...]]
    abstained: int = 0

    @property
    def first(self) -> tuple[Segment, ...]:
        return next(iter(self.drawn.values()))


def merge_annotators(
    believed: Sequence[Segment],
    others: Sequence[Sequence[Segment]],
    *,
    stuff_labels: Collection[str] = (),
    unknown: Sequence[Segment] = (),
) -> MergedObjects:
    """Return the objects of an image that several annotators drew.

    Annotators are compared one after the other with the objects found so far. Things match one to one with
    the highest sum of IoU, each above one half: first those of one label, then the rest whatever their
    label; what is left is a further object. A class of stuff is one object. What the believed annotator has
    not drawn is learnt where more than half of the annotators drew it, else its area is ignored.

    Args:
        believed: objects of the annotation that is believed.
        others: regions of each other annotator. Boxes and areas without a label say nothing of the objects
            that lie in them for the most part: there the annotator is not counted.
        stuff_labels: classes without instances.
        unknown: boxes and ignored areas of the believed annotation; what others drew in them is left out.
    """
    # new instances, since one may have been given twice and objects are told apart by theirs
    drawn = [tuple(replace(one) for one in regions if _is_object(one)) for regions in (believed, *others)]
    found: list[_Found] = [_Found(drawn={0: parts}) for parts in _objects(drawn[0], stuff_labels)]
    own = len(found)
    for annotator, regions in enumerate(others, start=1):
        objects = _objects(drawn[annotator], stuff_labels)
        pairs = _match([one.first for one in found], objects, stuff_labels)
        areas = [one for one in regions if not _is_object(one)]
        for place, one in enumerate(found):
            if place in pairs:
                one.drawn[annotator] = objects[pairs[place]]
            else:
                one.abstained += _lies_in(one.first, areas)
        taken = set(pairs.values())
        found += [
            _Found(
                drawn={annotator: parts},
                abstained=sum(
                    _lies_in(parts, [one for one in earlier if not _is_object(one)])
                    for earlier in others[: annotator - 1]
                ),
            )
            for number, parts in enumerate(objects)
            if number not in taken and not _lies_in(parts, unknown)
        ]
    merged = [MergedObject(drawn=one.drawn, asked=1 + len(others) - one.abstained) for one in found]
    segments: list[Segment] = []
    ignored: list[Segment] = []
    sources: list[MergedObject] = []
    for place, (one, made) in enumerate(zip(found, merged, strict=True)):
        if place >= own and made.weight < 1:
            ignored += [part for parts in made.drawn.values() for part in parts]
            continue
        segments += [replace(part, label=made.label) for part in one.first]
        sources += [made] * len(one.first)
    return MergedObjects(
        segments=tuple(segments), ignored=tuple(ignored), annotators=tuple(drawn), objects=tuple(sources)
    )


def draw_shares(
    index_hw: NDArray[np.int16],
    kept: Sequence[Sequence[Segment]],
    merged: MergedObjects,
    *,
    stuff_labels: Collection[str] = (),
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return an index map with all pixels that an annotator counts in, and how many of them do.

    A pixel belongs to the object that the largest share of its annotators counts it in, among equals to the
    one that it had. As in `draw_index_map`, each annotator's smaller objects lie over the larger ones.
    Ignored areas and boxes stay.

    Args:
        index_hw: index map of `merged.segments`.
        kept: segments of its objects, in their order.
        merged: the image's objects.
        stuff_labels: classes without instances.

    Returns:
        int16 (H, W) and uint8 (H, W): the share in 255ths, 0 where no object is.
    """
    height, width = index_hw.shape
    layers = [_painted(regions, (height, width), stuff_labels) for regions in merged.annotators]
    result_hw, shares_hw = index_hw.copy(), np.zeros(index_hw.shape, dtype=np.uint8)
    windows = []
    for number, parts in enumerate(kept, start=1):
        drawn = merged.of(parts).drawn
        boxes = np.array([part.box_yxyx for of_one in drawn.values() for part in of_one])
        (top, left), (bottom, right) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
        window = (slice(top, bottom), slice(left, right))
        counts_hw = np.zeros(index_hw[window].shape, dtype=np.uint32)
        for annotator, of_one in drawn.items():
            painted_hw, values = layers[annotator]
            counts_hw += painted_hw[window] == values[id(of_one[0])]
        window_shares_hw = ((counts_hw * CERTAIN + len(drawn) // 2) // len(drawn)).astype(np.uint8)
        here_hw = index_hw[window] == number
        shares_hw[window][here_hw] = window_shares_hw[here_hw]
        windows.append((number, window, window_shares_hw))
    for number, window, window_shares_hw in windows:
        index = result_hw[window]
        is_free_hw = (index >= 0) | (index <= FIRST_DELETED)
        better_hw = (window_shares_hw > shares_hw[window]) & is_free_hw
        index[better_hw] = number
        shares_hw[window][better_hw] = window_shares_hw[better_hw]
    return result_hw, shares_hw


def _is_object(region: Segment) -> bool:
    return not region.is_box and region.label != UNLABELLED


def _objects(segments: Sequence[Segment], stuff_labels: Collection[str]) -> list[tuple[Segment, ...]]:
    kept, _ = fitting_objects(segments, max_objects=_EVERY, stuff_labels=stuff_labels)
    return [tuple(parts) for parts in kept]


def _match(
    first: Sequence[Sequence[Segment]], second: Sequence[Sequence[Segment]], stuff_labels: Collection[str]
) -> dict[int, int]:
    """Return place in `first` -> place in `second` of the objects that are the same."""
    stuff_of = {parts[0].label: place for place, parts in enumerate(second) if parts[0].label in stuff_labels}
    pairs = {
        place: stuff_of[parts[0].label] for place, parts in enumerate(first) if parts[0].label in stuff_of
    }
    rows = [place for place, parts in enumerate(first) if parts[0].label not in stuff_labels]
    columns = [place for place, parts in enumerate(second) if parts[0].label not in stuff_labels]
    ious = np.array(
        [[segment_iou(first[row][0], second[column][0]) for column in columns] for row in rows],
        dtype=np.float64,
    ).reshape(len(rows), len(columns))
    ious[ious <= LEAST_IOU] = 0.0
    same = np.array(
        [[first[row][0].label == second[column][0].label for column in columns] for row in rows],
        dtype=np.bool_,
    ).reshape(ious.shape)
    for allowed in (same, np.ones_like(same)):
        wanted = np.where(allowed, ious, 0.0)
        for row, column in zip(*linear_sum_assignment(wanted, maximize=True), strict=True):
            if wanted[row, column] > 0:
                pairs[rows[row]] = columns[column]
                ious[row], ious[:, column] = 0.0, 0.0
    return pairs


def _lies_in(parts: Sequence[Segment], areas: Sequence[Segment]) -> bool:
    """Return whether more than half of an object lies in one of some areas."""
    area = sum(part.area for part in parts)
    return any(sum(segment_intersection(part, one) for part in parts) > _MOSTLY * area for one in areas)


def _painted(
    regions: Sequence[Segment], size_hw: tuple[int, int], stuff_labels: Collection[str]
) -> tuple[NDArray[np.int16], dict[int, int]]:
    """Return an annotator's index map, and the number in it of the object that begins with a segment."""
    painted_hw, _ = draw_index_map(regions, size_hw, max_objects=_EVERY, stuff_labels=stuff_labels)
    objects = _objects(regions, stuff_labels)
    return painted_hw, {id(parts[0]): number for number, parts in enumerate(objects, start=1)}
