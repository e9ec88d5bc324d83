"""Index maps: which object, box or ignored area each pixel of a training item belongs to."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskloop.learning.losses.box_projection import Boxes
from maskloop.learning.losses.hard_negatives import DeletedRegions
from maskloop.learning.losses.soft_labels import CERTAIN, SoftLabels
from maskloop.log import log_action
from maskloop.types import RgbImage, Segment, SegmentationTask

__all__ = [
    "FIRST_BOX",
    "FIRST_DELETED",
    "IGNORED",
    "MIN_PIXELS",
    "TrainingItem",
    "box_values",
    "draw_index_map",
    "fitting_objects",
    "group_objects",
    "object_planes",
    "visible_boxes",
    "visible_deleted",
    "visible_objects",
    "visible_soft",
    "without_deleted",
]

logger = logging.getLogger(__name__)
MIN_PIXELS = 10  # of an object in a view; objects with fewer are ignored
IGNORED = -1  # neither an object nor background
FIRST_BOX = -2  # the same, and inside the first box that teaches; -3 is inside the second
FIRST_DELETED = -10_000  # background, and in the first region that was deleted; far below the last box
_STANDS_FROM = 0.5  # of a deleted region: with less of it on background it was on an object


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingItem:
    """One view of one example."""

    image_hwc: RgbImage
    # 0: background, IGNORED, FIRST_BOX - the position in box_ids, FIRST_DELETED - the number of a deleted
    # region, which is background, else 1 + the position in class_ids
    index_hw: NDArray[np.int16]
    class_ids: tuple[int, ...]  # class id of each object
    box_ids: tuple[int, ...] = ()  # class id of each box that teaches
    task: SegmentationTask | None = None  # whose targets these are; None: of the task that is trained
    deleted: int = 0  # number of deleted regions
    # Where several annotators drew the image (both or none): in 255ths, how many of those who drew a pixel's
    # object count the pixel in; and how much each class of each object counts, float32 (N, K) in 0..1
    shares_hw: NDArray[np.uint8] | None = None
    votes_nk: NDArray[np.float32] | None = None

    def votes_of(self, classes: int) -> NDArray[np.float32]:
        """Return float32 (N, K), the votes for the class of each object; where one person drew it is sure."""
        if self.votes_nk is not None:
            return self.votes_nk
        return np.eye(classes, dtype=np.float32)[list(self.class_ids)].reshape(-1, classes)


def box_values(
    boxes: Sequence[Segment], *, stuff_labels: Collection[str], most: int, key: str = ""
) -> tuple[int, ...]:
    """Return what stands in an index map inside each box: FIRST_BOX and less where it teaches, else IGNORED.

    An upright rectangle teaches how far its object reaches. A turned one and an ellipse have no such sides,
    and the object of a stuff class is the union of several areas: these are only ignored.

    Args:
        boxes: regions that were given as boxes.
        stuff_labels: classes without instances.
        most: how many may teach, since each takes a query; of more the smallest do not.
        key: identifies the image in the log.
    """
    upright = [
        number
        for number, box in enumerate(boxes)
        if box.label not in stuff_labels and bool(box.mask_hw.all())
    ]
    chosen = sorted(sorted(upright, key=lambda number: -boxes[number].area)[:most])
    if len(chosen) < len(upright):
        log_action(
            logger,
            "boxes_only_ignored",
            level=logging.WARNING,
            reason="more objects than the model has queries",
            image=key,
            boxes=len(upright),
            kept=len(chosen),
        )
    places = {number: place for place, number in enumerate(chosen)}
    return tuple(FIRST_BOX - places[one] if one in places else IGNORED for one in range(len(boxes)))


def draw_index_map(
    segments: Sequence[Segment],
    size_hw: tuple[int, int],
    *,
    max_objects: int,
    stuff_labels: Collection[str] = (),
    ignored: Sequence[Segment] = (),
    boxes: Sequence[tuple[Segment, int]] = (),
    deleted: Sequence[Segment] = (),
    key: str = "",
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Return int16 (H, W) with 1 + the position in the returned labels, smaller objects over larger ones.

    Where there are more objects than the model has queries, the largest of each class are kept, then the
    largest of all; the area of the others becomes IGNORED.

    Args:
        segments: segments of one image; those of one stuff class become one object.
        size_hw: size of the image.
        max_objects: number of objects that the model can learn from in one image (its queries).
        stuff_labels: classes without instances.
        ignored: areas that become IGNORED where no object lies over them.
        boxes: objects of which only a box is known, and what stands inside each: see `box_values`. They too
            lie over larger objects and under smaller ones.
        deleted: predicted regions that the annotator deleted. They lie below all else, and where less than
            half of one is left its rest is plain background: an object or an ignored area is there.
        key: identifies the image in the log.
    """
    kept, dropped = fitting_objects(segments, max_objects=max_objects, stuff_labels=stuff_labels)
    if dropped:
        log_action(
            logger,
            "objects_dropped",
            level=logging.WARNING,
            reason="more objects than the model has queries",
            image=key,
            objects=len(kept) + len(dropped),
            kept=len(kept),
        )
    index_hw = np.zeros(size_hw, dtype=np.int16)
    for number in sorted(range(len(deleted)), key=lambda number: -deleted[number].area):
        _paint(index_hw, deleted[number], FIRST_DELETED - number)
    for segment in (*ignored, *(part for parts in dropped for part in parts)):
        _paint(index_hw, segment, IGNORED)
    layers = [(value, [box]) for box, value in boxes]  # first: of equal areas a mask lies over a box
    layers += list(enumerate(kept, start=1))
    for value, parts in sorted(layers, key=lambda layer: sum(part.area for part in layer[1]), reverse=True):
        for part in parts:
            _paint(index_hw, part, value)
    for number, segment in enumerate(deleted):
        here_hw = index_hw == FIRST_DELETED - number
        if np.count_nonzero(here_hw) < _STANDS_FROM * segment.area:
            index_hw[here_hw] = 0
    return index_hw, tuple(parts[0].label for parts in kept)


def fitting_objects(
    segments: Sequence[Segment], *, max_objects: int, stuff_labels: Collection[str]
) -> tuple[list[list[Segment]], list[list[Segment]]]:
    """Return the segments of each object that is kept, in the order of an index map, and of each dropped one.

    Args:
        segments: of one image; those of one stuff class are one object.
        max_objects: how many are kept: the largest of each class, then the largest of all.
        stuff_labels: classes without instances.
    """
    objects = sorted(
        group_objects(segments, stuff_labels),
        key=lambda parts: sum(part.area for part in parts),
        reverse=True,
    )
    return _fit_queries(objects, max_objects)


def group_objects(segments: Sequence[Segment], stuff_labels: Collection[str]) -> list[list[Segment]]:
    """Return the segments of each object of one image; those of one stuff class are one object."""
    groups: dict[str, list[Segment]] = {}
    for number, segment in enumerate(segments):
        stuff = segment.label in stuff_labels
        groups.setdefault(f"stuff {segment.label}" if stuff else f"thing {number}", []).append(segment)
    return list(groups.values())


def _fit_queries(objects: list[list[Segment]], most: int) -> tuple[list[list[Segment]], list[list[Segment]]]:
    """Return the objects that are kept and those that are dropped, both largest first."""
    if len(objects) <= most:
        return objects, []
    seen: set[str] = set()
    largest_of_class: list[int] = []
    others: list[int] = []
    for number, parts in enumerate(objects):
        (others if parts[0].label in seen else largest_of_class).append(number)
        seen.add(parts[0].label)
    chosen = set([*largest_of_class, *others][:most])
    kept = [parts for number, parts in enumerate(objects) if number in chosen]
    return kept, [parts for number, parts in enumerate(objects) if number not in chosen]


def _paint(index_hw: NDArray[np.int16], segment: Segment, value: int) -> None:
    top, left, bottom, right = segment.box_yxyx
    target_hw = index_hw[top:bottom, left:right]
    target_hw[segment.mask_hw[: target_hw.shape[0], : target_hw.shape[1]]] = value


def visible_objects(item: TrainingItem) -> tuple[Tensor, Tensor]:
    """Return the index map and class ids of the objects that an item shows.

    Returns:
        int16 (H, W): 0 for background, 1..N for objects, IGNORED for neither, which includes objects of which
        the view shows fewer than 10 pixels; and int64 (N,), the class ids of objects 1..N.
    """
    index_hw = np.maximum(without_deleted(item.index_hw), IGNORED)  # boxes are ignored areas here
    visible = _are_visible(item)
    renumbered = np.full(len(visible) + 2, IGNORED, dtype=np.int16)
    renumbered[1] = 0
    renumbered[2:][visible] = np.arange(1, np.count_nonzero(visible) + 1)
    class_ids = np.asarray(item.class_ids, dtype=np.int64)[visible]
    return torch.from_numpy(renumbered[index_hw + 1]), torch.from_numpy(class_ids)


def _are_visible(item: TrainingItem) -> NDArray[np.bool_]:
    counts = np.bincount(np.maximum(item.index_hw, 0).ravel(), minlength=len(item.class_ids) + 1)[1:]
    return counts >= MIN_PIXELS


def visible_soft(items: Sequence[TrainingItem], batch_hw: tuple[int, int], classes: int) -> SoftLabels:
    """Return the shares and votes of the objects that views show, numbered as by `visible_objects`.

    Args:
        items: the views; what one annotator alone drew is certain.
        batch_hw: size of the batch's images, which is that of the views or larger at the right and bottom.
        classes: number of classes.
    """
    shares_bhw = np.full((len(items), *batch_hw), CERTAIN, dtype=np.uint8)
    votes = [item.votes_of(classes)[_are_visible(item)] for item in items]
    votes_bnk = np.zeros((len(items), max(map(len, votes)), classes), dtype=np.float32)
    for image, (item, votes_nk) in enumerate(zip(items, votes, strict=True)):
        votes_bnk[image, : len(votes_nk)] = votes_nk
        if item.shares_hw is not None:
            height, width = item.shares_hw.shape
            shares_bhw[image, :height, :width] = item.shares_hw
    return SoftLabels(
        shares_bhw=torch.from_numpy(shares_bhw),
        votes_bnk=torch.from_numpy(votes_bnk),
        counts=tuple(map(len, votes)),
    )


def visible_boxes(item: TrainingItem, batch_hw: tuple[int, int]) -> Boxes:
    """Return the boxes that a view shows with at least 10 pixels.

    A box that reaches the view's border may go on beyond it. What smaller objects cover of a box does not
    count, so where they cover a whole side it is too small.

    Args:
        item: the view.
        batch_hw: size of the batch's images, which is that of the view or larger at the right and bottom.
    """
    height, width = item.index_hw.shape
    sides, whole, ids = [], [], []
    for place, class_id in enumerate(item.box_ids):
        inside_hw = item.index_hw == FIRST_BOX - place
        if np.count_nonzero(inside_hw) < MIN_PIXELS:
            continue
        columns, rows = np.flatnonzero(inside_hw.any(0)), np.flatnonzero(inside_hw.any(1))
        left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        sides.append([left / batch_hw[1], top / batch_hw[0], right / batch_hw[1], bottom / batch_hw[0]])
        cut_x, cut_y = left == 0 or right == width, top == 0 or bottom == height
        # What a cut through x leaves still reaches from the cut to the other side, but may be less high.
        whole.append([not cut_y, not cut_x])
        ids.append(class_id)
    return Boxes(
        sides_m4=torch.tensor(sides, dtype=torch.float32).reshape(-1, 4),
        whole_m2=torch.tensor(whole, dtype=torch.bool).reshape(-1, 2),
        ids_m=torch.tensor(ids, dtype=torch.int64),
    )


def without_deleted(index_hw: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return an index map in which deleted regions are plain background."""
    return np.where(index_hw > FIRST_DELETED, index_hw, np.int16(0))


def visible_deleted(items: Sequence[TrainingItem], batch_hw: tuple[int, int]) -> DeletedRegions:
    """Return the deleted regions that views show with at least 10 pixels.

    Args:
        items: the views.
        batch_hw: size of the batch's images, which is that of the views or larger at the right and bottom.
    """
    index_bhw = np.zeros((len(items), *batch_hw), dtype=np.int16)
    counts = []
    for item, index_hw in zip(items, index_bhw, strict=True):
        numbers_hw = np.maximum(FIRST_DELETED + 1 - item.index_hw.astype(np.int32), 0)
        visible = np.bincount(numbers_hw.ravel(), minlength=item.deleted + 1) >= MIN_PIXELS
        visible[0] = False
        renumbered = np.where(visible, np.cumsum(visible), 0)
        index_hw[: numbers_hw.shape[0], : numbers_hw.shape[1]] = renumbered[numbers_hw]
        counts.append(int(np.count_nonzero(visible)))
    return DeletedRegions(index_bhw=torch.from_numpy(index_bhw), counts=tuple(counts))


def object_planes(index_hw: Tensor, objects: int) -> Tensor:
    """Return float32 (N, H, W): one plane per object of an index map, as the families' own losses take."""
    ids_n = torch.arange(1, objects + 1, device=index_hw.device, dtype=index_hw.dtype)
    return (index_hw == ids_n[:, None, None]).float()
