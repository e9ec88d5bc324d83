"""OneFormer's tasks: which of them a project's annotations allow, and what an item teaches in each.

A OneFormer is told its task by a text. Trained on one task alone, nothing keeps what it knew of the others.
So each view is given a task by lot, with the texts and the targets of that task: semantic has one mask a
class, instance things only, panoptic both. All are made of the index map of the project's own task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.data.index_map import IGNORED, TrainingItem, without_deleted
from maskloop.types import SegmentationTask

__all__ = ["TaskSampling", "allowed_tasks"]

_STREAM = 4  # of random numbers; those of order, view, copy-paste and clicks come before


def allowed_tasks(own: SegmentationTask, *, has_things: bool) -> tuple[SegmentationTask, ...]:
    """Return the tasks that annotations of a project can teach, its own first.

    - Regions of an instance project are objects: each is one of panoptic, and those of a class together are
      its semantic mask. What a class of stuff has is one object in all three.
    - A panoptic project says all of it. Without a class of things its instance targets would be empty: they
      would only teach that nothing is there.
    - Regions of a semantic project are areas, and one may hold several objects or a part of one. So they say
      nothing of things; where all classes are stuff, panoptic has the same masks.

    Args:
        own: the project's.
        has_things: whether a class has instances.

    Source:
        OneFormer (Jain et al., CVPR 2023), section 3.1: task drawn uniformly for each image, targets of
        instance and semantic derived from the panoptic annotation.
    """
    if own is SegmentationTask.INSTANCE:
        return (own, SegmentationTask.PANOPTIC, SegmentationTask.SEMANTIC)
    if own is SegmentationTask.PANOPTIC:
        return (own, SegmentationTask.SEMANTIC, *([SegmentationTask.INSTANCE] if has_things else []))
    return (own,) if has_things else (own, SegmentationTask.PANOPTIC)


@dataclass(frozen=True, kw_only=True)
class TaskSampling:
    """Gives each item of a training one of the allowed tasks, each with the same probability."""

    tasks: tuple[SegmentationTask, ...]  # the first is that of the items' index maps
    stuff_ids: frozenset[int]  # classes without instances

    @classmethod
    def of_project(
        cls, own: SegmentationTask, *, labels: Sequence[str], stuff_labels: Collection[str]
    ) -> Self:
        """Return the sampling for a project.

        Args:
            own: the project's task.
            labels: class names in the order of their ids.
            stuff_labels: those without instances, whatever the task.
        """
        stuff_ids = frozenset(index for index, label in enumerate(labels) if label in stuff_labels)
        tasks = allowed_tasks(own, has_things=len(stuff_ids) < len(labels))
        return cls(tasks=tasks, stuff_ids=stuff_ids)

    def __call__(self, item: TrainingItem, *, seed: int, index: int) -> TrainingItem:
        """Return the item with the task drawn for it; seed and index determine which."""
        return self.with_task(item, self.draw(seed, index))

    def draw(self, seed: int, index: int) -> SegmentationTask:
        """Return the task of the item at a position of the training, the same after a restart."""
        return self.tasks[int(np.random.default_rng([seed, _STREAM, index]).integers(len(self.tasks)))]

    def with_task(self, item: TrainingItem, task: SegmentationTask) -> TrainingItem:
        """Return the item with the targets of a task; the own task's are those that it has.

        Ignored areas are ignored in each task. So are boxes in semantic, since how much of its box an object
        fills is not known, and deleted regions are plain background there. Stuff is background in instance.
        Where several annotators drew the image, a pixel has in semantic the share of them who gave it the
        class of its object.
        """
        if task is self.tasks[0]:
            return item
        if task is SegmentationTask.PANOPTIC:  # things are objects and stuff is merged already
            return replace(item, task=task)
        if task is SegmentationTask.INSTANCE:
            kept = [class_id not in self.stuff_ids for class_id in item.class_ids]
            objects = np.where(kept, np.cumsum(kept), 0)
            class_ids = tuple(one for one, keep in zip(item.class_ids, kept, strict=True) if keep)
            index_hw = _renumbered(item.index_hw, objects)
            votes_nk = None if item.votes_nk is None else item.votes_nk[kept]
            return replace(item, task=task, index_hw=index_hw, class_ids=class_ids, votes_nk=votes_nk)
        class_ids = tuple(dict.fromkeys(item.class_ids))
        objects = np.array([class_ids.index(class_id) + 1 for class_id in item.class_ids], dtype=np.int64)
        index_hw = np.maximum(_renumbered(without_deleted(item.index_hw), objects), IGNORED)
        shares_hw, votes_nk = _shares_of_classes(item, class_ids)
        return replace(
            item,
            task=task,
            index_hw=index_hw,
            class_ids=class_ids,
            box_ids=(),
            deleted=0,
            shares_hw=shares_hw,
            votes_nk=votes_nk,
        )


def _shares_of_classes(
    item: TrainingItem, class_ids: Sequence[int]
) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]:
    """Return the share of all annotators who gave each pixel its object's class, and certain classes."""
    if item.shares_hw is None or item.votes_nk is None:
        return None, None
    of_objects = item.votes_nk[np.arange(len(item.class_ids)), list(item.class_ids)]
    votes_hw = np.concatenate([[1.0], of_objects])[np.maximum(item.index_hw, 0)]
    shares_hw = np.rint(votes_hw * item.shares_hw).astype(np.uint8)
    return shares_hw, np.eye(item.votes_nk.shape[1], dtype=np.float32)[list(class_ids)]


def _renumbered(index_hw: NDArray[np.int16], objects_n: NDArray[np.int64]) -> NDArray[np.int16]:
    """Return the index map with object i as objects_n[i - 1]; background, boxes and ignored areas stay."""
    table = np.concatenate([[0], objects_n]).astype(np.int16)
    return np.where(index_hw > 0, table[np.maximum(index_hw, 0)], index_hw)
