"""Unlabelled areas in a loss: they give no gradient, neither through masks nor through classes.

The families' losses have no such areas, but all take mask and class logits as their first arguments.
`IgnoringLoss` changes these first. Inside an ignored area every mask logit becomes -20: this agrees with the
target, has no loss and is never sampled as uncertain. At its border, where the loss interpolates between
pixels, logits keep their value without a gradient. A query that matches no object and lies mostly in ignored
areas gets the class "no object" with certainty, and so no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "CERTAIN_LOGIT",
    "IgnoringLoss",
    "deeply_ignored",
    "excuse_logits",
    "ignored_cells",
    "ignoring",
    "lies_in",
    "without_gradient",
]

CERTAIN_LOGIT = 20.0  # its sigmoid is 1 - 2e-9
_MOSTLY = 0.5  # of a query's mask or of a cell's pixels


class IgnoringLoss(nn.Module):
    """Mixed in before a family's loss; `ignored_bhw` are the ignored areas of the next call."""

    ignored_bhw: Tensor | None = None  # bool (B, H, W), at the size of the images
    _excused_bq: Tensor | None = None

    def forward(
        self, masks_queries_logits: Tensor, class_queries_logits: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the family's losses; the family calls this for each decoder layer."""
        if self.ignored_bhw is not None and bool(self.ignored_bhw.any()):
            ignored_b1hw = ignored_cells(self.ignored_bhw, masks_queries_logits.shape[-2:])
            self._excused_bq = lies_in(masks_queries_logits, ignored_b1hw)
            masks_queries_logits = without_gradient(masks_queries_logits, ignored_b1hw)
        else:
            self._excused_bq = None
        return super().forward(masks_queries_logits, class_queries_logits, *args, **kwargs)

    def loss_labels(self, class_queries_logits: Tensor, class_labels: list[Tensor], indices: Any) -> Any:
        """Return the class loss without excused queries that match no object."""
        if self._excused_bq is not None:
            excused_bq = self._excused_bq.clone()
            for image, (matched, _) in enumerate(indices):
                excused_bq[image, matched] = False
            class_queries_logits = excuse_logits(class_queries_logits, excused_bq)
        base: Any = super()
        return base.loss_labels(class_queries_logits, class_labels, indices)

    def get_num_masks(self, class_labels: list[Tensor], device: torch.device) -> Tensor:
        """Return the mean number of objects per process, at least 1.

        The families' own method divides the mean over processes by their number once more: with two GPUs, the
        mask losses would have twice the weight against the class loss as with one.
        """
        objects = torch.full((), float(sum(len(ids) for ids in class_labels)), device=device)
        return torch.clamp(reduce(objects, "mean"), min=1.0)


@contextmanager
def ignoring(model: Any) -> Iterator[None]:
    """Let a model's loss ignore unlabelled areas while the context lasts."""
    loss = model.criterion
    plain = type(loss)
    loss.__class__ = type(f"Ignoring{plain.__name__}", (IgnoringLoss, plain), {})
    try:
        yield
    finally:
        loss.ignored_bhw = None
        loss.__class__ = plain


def ignored_cells(ignored_bhw: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Return bool (B, 1, h, w): cells of the masks of which more than half is ignored."""
    return functional.adaptive_avg_pool2d(ignored_bhw[:, None].float(), (size_hw[0], size_hw[1])) > _MOSTLY


def lies_in(mask_logits_bqhw: Tensor, ignored_b1hw: Tensor) -> Tensor:
    """Return bool (B, Q): masks of which more than half lies in ignored areas."""
    masks_bqhw = mask_logits_bqhw.detach() > 0
    area_bq = masks_bqhw.sum(dim=(2, 3))
    inside_bq = (masks_bqhw & ignored_b1hw).sum(dim=(2, 3))
    return inside_bq > _MOSTLY * area_bq


def deeply_ignored(ignored_b1hw: Tensor) -> Tensor:
    """Return bool (B, 1, h, w): ignored cells whose neighbours are all ignored."""
    return functional.max_pool2d((~ignored_b1hw).float(), kernel_size=3, stride=1, padding=1) == 0


def without_gradient(mask_logits_bqhw: Tensor, ignored_b1hw: Tensor) -> Tensor:
    """Return mask logits of -20 inside ignored areas and without gradient at their border."""
    stopped_bqhw = torch.where(ignored_b1hw, mask_logits_bqhw.detach(), mask_logits_bqhw)
    return torch.where(deeply_ignored(ignored_b1hw), -CERTAIN_LOGIT, stopped_bqhw)


def excuse_logits(class_logits: Tensor, excused: Tensor) -> Tensor:
    """Return class logits (..., K) with a certain "no object" where bool (...) is True."""
    no_object_k = class_logits.new_full(class_logits.shape[-1:], -CERTAIN_LOGIT)
    no_object_k[-1] = CERTAIN_LOGIT
    return torch.where(excused[..., None], no_object_k, class_logits)
