"""What differs between two snapshots: images, and objects added, changed, relabelled, deleted, by whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage
from maskloop.curation.snapshots.snapshot_folder import Snapshot
from maskloop.masks import segment_iou

__all__ = ["Change", "ChangeKind", "SnapshotDiff", "compare_snapshots"]

ChangeKind: TypeAlias = Literal["added", "changed", "relabelled", "deleted"]
LEAST_IOU = 0.5  # of an object before and after; with less, one was deleted and another one added
MAX_PAIRS = 4_000_000  # of one image; with more, none is taken for another one that was changed


@dataclass(frozen=True, kw_only=True)
class Change:
    """One object that differs."""

    item: str
    kind: ChangeKind
    before: str | None  # its label
    after: str | None
    position_before: int | None  # in its image
    position_after: int | None
    annotator: int | None  # who saved the annotation as it is after; for one that is gone, before
    version_id: int | None  # of that annotation
    iou: float | None  # of both masks, where there are both


@dataclass(frozen=True, kw_only=True)
class SnapshotDiff:
    """What it takes to get from one snapshot to another."""

    images_added: tuple[str, ...]  # items
    images_removed: tuple[str, ...]
    images_replaced: tuple[str, ...]  # the same item with another image file
    images_moved: tuple[str, ...]  # into another split
    changes: tuple[Change, ...]
    categories_added: tuple[str, ...]
    categories_removed: tuple[str, ...]
    unchanged: int  # objects

    def counts(self) -> dict[str, int]:
        """Return kind -> changed objects."""
        found = Counter(change.kind for change in self.changes)
        return {kind: found[kind] for kind in ("added", "changed", "relabelled", "deleted")}

    def by_annotator(self) -> dict[int | None, dict[str, int]]:
        """Return user number -> kind -> changed objects."""
        found: dict[int | None, dict[str, int]] = {}
        for change in self.changes:
            kinds = found.setdefault(change.annotator, {})
            kinds[change.kind] = kinds.get(change.kind, 0) + 1
        return dict(sorted(found.items(), key=lambda pair: (pair[0] is None, pair[0] or 0)))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        values = {name: value for name, value in vars(self).items() if name != "changes"}
        return {
            **values,
            "counts": self.counts(),
            "by_annotator": {str(user): kinds for user, kinds in self.by_annotator().items()},
            "changes": [vars(change) for change in self.changes],
        }


def compare_snapshots(before: Snapshot, after: Snapshot) -> SnapshotDiff:
    """Return what differs; both are read image by image.

    Args:
        before: the older one.
        after: the newer one.

    Raises:
        StoreError: a file is damaged.
    """
    images: dict[str, list[str]] = {"added": [], "removed": [], "replaced": [], "moved": []}
    changes: list[Change] = []
    unchanged = 0
    for old, new in _pairs(before, after):
        if old is None or new is None:
            one = new or old
            assert one is not None
            images["added" if old is None else "removed"].append(one.image.item)
            changes += [
                _change(one.image, old=row if new is None else None, new=row if old is None else None)
                for row in one.objects
            ]
            continue
        if old.image.image_key != new.image.image_key:
            images["replaced"].append(new.image.item)
        if old.image.split != new.image.split:
            images["moved"].append(new.image.item)
        found = _compare_objects(old, new)
        changes += found
        unchanged += len(new.objects) - sum(change.kind != "deleted" for change in found)
    names = [[one.name for one in snapshot.manifest.categories] for snapshot in (before, after)]
    return SnapshotDiff(
        images_added=tuple(images["added"]),
        images_removed=tuple(images["removed"]),
        images_replaced=tuple(images["replaced"]),
        images_moved=tuple(images["moved"]),
        changes=tuple(changes),
        categories_added=tuple(name for name in names[1] if name not in names[0]),
        categories_removed=tuple(name for name in names[0] if name not in names[1]),
        unchanged=unchanged,
    )


def _pairs(before: Snapshot, after: Snapshot) -> Iterator[tuple[SnapshotImage | None, SnapshotImage | None]]:
    """Yield the images of both by item, None where one of them does not have it."""
    olds, news = before.images(), after.images()
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.image.item < new.image.item):
            yield old, None
            old = next(olds, None)
        elif old is None or new.image.item < old.image.item:
            yield None, new
            new = next(news, None)
        else:
            yield old, new
            old, new = next(olds, None), next(news, None)


def _compare_objects(old: SnapshotImage, new: SnapshotImage) -> list[Change]:
    same_size = old.image.size_hw == new.image.size_hw
    left_old, left_new = (
        _without_equal(old.objects, new.objects) if same_size else (list(old.objects), list(new.objects))
    )
    partners = _match(left_old, left_new, old.image.size_hw) if same_size else {}
    changes = []
    for index, row in enumerate(left_old):
        if index not in partners:
            changes.append(_change(new.image, old=row, new=None))
            continue
        other, iou = partners[index]
        changes.append(_change(new.image, old=row, new=left_new[other], iou=iou))
    taken = {other for other, _ in partners.values()}
    changes += [
        _change(new.image, old=None, new=row) for index, row in enumerate(left_new) if index not in taken
    ]
    return changes


def _without_equal(
    olds: Sequence[ObjectRow], news: Sequence[ObjectRow]
) -> tuple[list[ObjectRow], list[ObjectRow]]:
    """Return the objects that are not in both with the same mask and label."""
    counts = Counter(_identity(row) for row in olds) & Counter(_identity(row) for row in news)
    left = []
    for rows in (olds, news):
        still, kept = counts.copy(), []
        for row in rows:
            if still[_identity(row)] > 0:
                still[_identity(row)] -= 1
            else:
                kept.append(row)
        left.append(kept)
    return left[0], left[1]


def _identity(row: ObjectRow) -> tuple[str, str, str]:
    return row.rle, row.label, row.kind


def _match(
    olds: Sequence[ObjectRow], news: Sequence[ObjectRow], size_hw: tuple[int, int]
) -> dict[int, tuple[int, float]]:
    """Return index before -> (index after, IoU) of the pairs with the most IoU in all, one to one."""
    if not olds or not news or len(olds) * len(news) > MAX_PAIRS:
        return {}
    segments = [[row.segment(size_hw) for row in rows] for rows in (olds, news)]
    iou_on = np.zeros((len(olds), len(news)))
    boxes = [np.array([one.box_yxyx for one in of_side]) for of_side in segments]
    touching = (
        (boxes[0][:, None, :2] < boxes[1][None, :, 2:]) & (boxes[1][None, :, :2] < boxes[0][:, None, 2:])
    ).all(axis=-1)
    for first, second in np.argwhere(touching):
        iou_on[first, second] = segment_iou(segments[0][first], segments[1][second])
    rows, columns = linear_sum_assignment(-iou_on)
    return {
        int(row): (int(column), float(iou_on[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if iou_on[row, column] > LEAST_IOU
    }


def _change(
    image: ImageRow, *, old: ObjectRow | None, new: ObjectRow | None, iou: float | None = None
) -> Change:
    if old is None:
        kind: ChangeKind = "added"
    elif new is None:
        kind = "deleted"
    else:
        kind = "relabelled" if (old.label, old.kind) != (new.label, new.kind) else "changed"
    return Change(
        item=image.item,
        kind=kind,
        before=None if old is None else old.label,
        after=None if new is None else new.label,
        position_before=None if old is None else old.position,
        position_after=None if new is None else new.position,
        annotator=image.annotator,
        version_id=image.version_id,
        iou=None if iou is None else round(iou, 4),
    )
