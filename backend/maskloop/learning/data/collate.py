"""Training items -> the keyword arguments of a Mask2Former's or OneFormer's forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from maskloop.learning.data.dataset import IGNORED, TrainingItem, visible_objects
from maskloop.segmentation.preprocess import Preprocessing, images_to_batch
from maskloop.segmentation.task_text import TaskText
from maskloop.types import SegmentationTask

__all__ = ["IGNORED_KEY", "Collator"]

IGNORED_KEY = "any_ignored"
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Collator:
    """Turns items of one canvas size into one batch."""

    preprocessing: Preprocessing  # of the checkpoint; its sizes are not used, items have theirs already
    labels: tuple[str, ...]  # class names in the order of their ids
    task: SegmentationTask
    task_text: TaskText | None = None  # OneFormer's tokenizer; None for Mask2Former

    def __call__(self, items: Sequence[TrainingItem]) -> dict[str, Any]:
        """Return pixel_values float32 (B, 3, H, W), pixel_mask, mask_labels and class_labels.

        mask_labels are an index map int16 (B, H, W), of which `object_planes` makes what the families' own
        losses want; class_labels are int64 (N,) for each image, and N may be 0. OneFormer gets task_inputs
        and text_inputs as well. IGNORED_KEY, which is not for the model, says whether the map has IGNORED
        pixels, so that no device need be asked.
        """
        as_they_are = replace(self.preprocessing, shortest_edge=None, longest_edge=None, box_hw=None)
        batch = images_to_batch([item.image_hwc for item in items], as_they_are, _CPU)
        maps, class_ids = zip(*(visible_objects(item) for item in items), strict=True)
        index_bhw = torch.stack(maps)
        inputs: dict[str, Any] = {
            "pixel_values": batch.pixel_values_bchw,
            "pixel_mask": batch.pixel_mask_bhw,
            "mask_labels": index_bhw,
            "class_labels": list(class_ids),
            IGNORED_KEY: bool((index_bhw == IGNORED).any()),
        }
        if self.task_text is not None:
            names = [[self.labels[index] for index in ids.tolist()] for ids in class_ids]
            inputs["task_inputs"] = self.task_text.task_inputs(self.task, len(items), _CPU)
            inputs["text_inputs"] = self.task_text.text_inputs(names, self.task, _CPU)
        return inputs
