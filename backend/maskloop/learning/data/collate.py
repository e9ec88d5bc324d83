"""Training items -> the keyword arguments of a segmentation model's forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.learning.data.index_map import (
    IGNORED,
    TrainingItem,
    visible_boxes,
    visible_deleted,
    visible_objects,
    visible_soft,
)
from maskloop.segmentation.preprocess import Preprocessing, images_to_batch
from maskloop.segmentation.task_text import TaskText
from maskloop.types import SegmentationTask

__all__ = ["BOXES_KEY", "DELETED_KEY", "IGNORED_KEY", "OTHER_TASK_KEY", "SOFT_KEY", "Collator"]

BOXES_KEY = "boxes"
DELETED_KEY = "deleted"
IGNORED_KEY = "any_ignored"
OTHER_TASK_KEY = "of_other_task"
SOFT_KEY = "soft"
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Collator:
    """Makes one batch of items of one canvas size."""

    preprocessing: (
        Preprocessing  # the checkpoint's; only its normalisation and padding, since items are resized already
    )
    labels: tuple[str, ...]  # class names in the order of their ids
    task: SegmentationTask  # of items that name none
    task_text: TaskText | None = None  # OneFormer's tokenizer; None for other families

    def __call__(self, items: Sequence[TrainingItem]) -> dict[str, Any]:
        """Return pixel_values float32 (B, 3, H, W), pixel_mask, mask_labels and class_labels.

        mask_labels are an index map int16 (B, H, W), padded with background like pixel_values;
        `object_planes` makes the planes of it that the families' own losses take. class_labels are int64 (N,)
        for each image, and N may be 0. OneFormer gets task_inputs and text_inputs as well.
        Not for the model are IGNORED_KEY, whether the map has IGNORED pixels, which saves a transfer from the
        device, and, there only where an image has any, BOXES_KEY, the `Boxes` of each image, DELETED_KEY, the
        `DeletedRegions` of the batch, SOFT_KEY, the `SoftLabels` of a batch in which several annotators drew
        an image, and OTHER_TASK_KEY, bool (B,), whose targets are those of another task than the batch's.
        """
        without_resize = replace(self.preprocessing, shortest_edge=None, longest_edge=None, box_hw=None)
        batch = images_to_batch([item.image_hwc for item in items], without_resize, _CPU)
        maps, class_ids = zip(*(visible_objects(item) for item in items), strict=True)
        index_bhw = torch.stack([_padded(index_hw, batch.pixel_values_bchw) for index_hw in maps])
        inputs: dict[str, Any] = {
            "pixel_values": batch.pixel_values_bchw,
            "pixel_mask": batch.pixel_mask_bhw,
            "mask_labels": index_bhw,
            "class_labels": list(class_ids),
            IGNORED_KEY: bool((index_bhw == IGNORED).any()),
        }
        size_hw = (int(index_bhw.shape[1]), int(index_bhw.shape[2]))
        boxes = [visible_boxes(item, size_hw) for item in items]
        if any(map(len, boxes)):
            inputs[BOXES_KEY] = boxes
        if any(item.task is not None for item in items):
            inputs[OTHER_TASK_KEY] = torch.tensor([item.task not in (None, self.task) for item in items])
        if any(item.deleted for item in items):
            inputs[DELETED_KEY] = visible_deleted(items, size_hw)
        if any(item.shares_hw is not None for item in items):
            inputs[SOFT_KEY] = visible_soft(items, size_hw, len(self.labels))
        if self.task_text is not None:
            inputs |= self._texts(self.task_text, [item.task or self.task for item in items], class_ids)
        return inputs

    def _texts(
        self, text: TaskText, tasks: Sequence[SegmentationTask], class_ids: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        names = [[self.labels[index] for index in ids.tolist()] for ids in class_ids]
        words = [text.task_inputs(task, 1, _CPU) for task in tasks]
        shown = [
            text.text_inputs([of_image], task, _CPU) for of_image, task in zip(names, tasks, strict=True)
        ]
        return {"task_inputs": torch.cat(words), "text_inputs": torch.cat(shown)}


def _padded(index_hw: Tensor, pixel_values_bchw: Tensor) -> Tensor:
    """Return an index map with background at the right and bottom, at the size of the padded images."""
    height, width = pixel_values_bchw.shape[-2:]
    return functional.pad(index_hw, (0, width - index_hw.shape[1], 0, height - index_hw.shape[0]))
