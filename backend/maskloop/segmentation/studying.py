"""How undecided a forward pass was: from its logits to what `selection.signals` reads."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.uncertainty import Reading, pixel_reading, query_reading
from maskloop.types import SegmentationTask

__all__ = ["image_reading", "patch_grid"]

MOST_PIXELS = 1 << 14  # of a mask: shares of its area need no more, and a prediction does not wait for it
LEAST_OBJECTNESS = 0.05  # below it a query's mask is not looked at


def image_reading(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    *,
    task: SegmentationTask,
    labels: Sequence[str],
    thing_ids: Collection[int],
    thresholds: Thresholds,
) -> Reading:
    """Return how undecided the model is of one image, from its masks at the size they come in.

    Args:
        class_logits_qk: float (Q, K + 1), the last column is "no object".
        mask_logits_qhw: float (Q, h, w), cropped to the part of the input that is not padding.
        task: which form: of queries, or of pixels.
        labels: K class names.
        thing_ids: classes whose objects are counted; where there are any, instances are of no other.
        thresholds: what is shown.
    """
    class_probs_qk = class_logits_qk.float().softmax(dim=-1)
    mask_floor_k = np.array([thresholds.mask_for(label) for label in labels])
    step = max(1, math.ceil(math.sqrt(mask_logits_qhw[0].numel() / MOST_PIXELS)))
    mask_logits_qhw = mask_logits_qhw[:, step // 2 :: step, step // 2 :: step]
    if task is SegmentationTask.SEMANTIC:
        sums_khw = torch.einsum("qk,qhw->khw", class_probs_qk[:, :-1], mask_logits_qhw.float().sigmoid())
        return pixel_reading(sums_khw.cpu().numpy(), mask_floor_k=mask_floor_k)
    wanted_q = class_probs_qk[:, -1] <= 1 - LEAST_OBJECTNESS
    if task is SegmentationTask.INSTANCE and thing_ids:
        things = torch.tensor(sorted(thing_ids), device=class_probs_qk.device)
        wanted_q &= torch.isin(class_probs_qk[:, :-1].argmax(dim=-1), things)
    queries_n = torch.nonzero(wanted_q).flatten()
    return query_reading(
        class_probs_qk[queries_n].cpu().numpy(),
        mask_logits_qhw[queries_n].float().sigmoid().cpu().numpy(),
        score_floor_k=np.array([thresholds.score_for(label) for label in labels]),
        mask_floor_k=mask_floor_k,
        mask_counts=task is SegmentationTask.INSTANCE,
    )


def patch_grid(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """Return how many rows and columns of patches the model's tokens are; None where features are maps."""
    if checkpoint.family != "eomt":
        return None
    side = int(checkpoint.model.config.image_size) // int(checkpoint.model.config.patch_size)
    return side, side
