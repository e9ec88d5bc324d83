"""OneFormer's token ids: of the task, and for training of the objects in each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskloop.types import SegmentationTask

__all__ = ["TaskText"]

FILLER = {
    SegmentationTask.INSTANCE: "an instance photo",
    SegmentationTask.SEMANTIC: "a semantic photo",
    SegmentationTask.PANOPTIC: "an panoptic photo",  # the original's wording, which published weights know
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskText:
    """A tokenizer together with the lengths that one OneFormer checkpoint expects."""

    tokenizer: Any  # a transformers tokenizer
    task_length: int  # tokens of the task input
    text_length: int  # tokens of each text in training
    text_count: int  # texts of each image in training: queries less learned context

    def task_inputs(self, task: SegmentationTask, count: int, device: torch.device) -> Tensor:
        """Return int64 (count, task_length): "the task is ..." once per image."""
        ids_1l = self._encode([f"the task is {task.value}"], self.task_length)
        return ids_1l.expand(count, -1).contiguous().to(device)

    def text_inputs(
        self, names: Sequence[Sequence[str]], task: SegmentationTask, device: torch.device
    ) -> Tensor:
        """Return int64 (B, text_count, text_length): what each image shows, for the contrastive loss.

        Args:
            names: for each image the class names of its target masks, one per mask.
            task: the task the batch is trained for.
            device: where the tensor is wanted.

        Source:
            OneFormer (Jain et al., CVPR 2023), section 3.2: one text per object, filled up with the task's.
        """
        texts = []
        for image_names in names:
            shown = [f"a photo with a {name}" for name in image_names][: self.text_count]
            texts += shown + [FILLER[task]] * (self.text_count - len(shown))
        ids = self._encode(texts, self.text_length)
        return ids.reshape(len(names), self.text_count, self.text_length).to(device)

    def _encode(self, texts: list[str], length: int) -> Tensor:
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True)
        # padding counts as 0, not as the tokenizer's padding token: the model takes the largest id as the end
        return torch.tensor(tokens["input_ids"]) * torch.tensor(tokens["attention_mask"])
