"""Unlabelled areas in a loss: they give no gradient, neither through masks nor through classes.

The families' losses have no such areas, but all take mask and class logits as their first arguments.
`IgnoringLoss` changes these first. Inside an ignored area every mask logit becomes -20: this agrees with the
target, has no loss and is never sampled as uncertain. At its border, where the loss interpolates between
pixels, logits keep their value without a gradient. A query that matches no object and lies mostly in ignored
areas gets the class "no object" with certainty, and so no gradient. Boxes are such areas too, but one query
for each learns what the box says: see `box_projection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn import functional

from maskloop.learning.losses.box_projection import (
    Boxes,
    box_costs,
    joined,
    match_boxes,
    projection_losses,
)
from maskloop.learning.losses.hard_negatives import DeletedRegions, covers_deleted
from maskloop.learning.losses.hungarian import Costs, Matching
from maskloop.learning.losses.soft_labels import SoftLabels, votes_loss

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
    boxes: Sequence[Boxes] | None = None  # of each image of the next call; their areas are ignored too
    deleted: DeletedRegions | None = None  # of the next call
    deleted_weight: float = 1.0  # of a query that finds one, against others without an object
    soft: SoftLabels | None = None  # of the next call; masks are targets with shares already
    _excused_bq: Tensor | None = None
    _hard_bq: Tensor | None = None  # masks that cover a deleted region
    _mask_logits_bqhw: Tensor | None = None  # as predicted, for the boxes

    def forward(
        self, masks_queries_logits: Tensor, class_queries_logits: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the family's losses; the family calls this for each decoder layer."""
        self._mask_logits_bqhw = None if self.boxes is None else masks_queries_logits
        self._hard_bq = None if self.deleted is None else _all_covers(masks_queries_logits, self.deleted)
        if self.ignored_bhw is not None and bool(self.ignored_bhw.any()):
            ignored_b1hw = ignored_cells(self.ignored_bhw, masks_queries_logits.shape[-2:])
            self._excused_bq = lies_in(masks_queries_logits, ignored_b1hw)
            masks_queries_logits = without_gradient(masks_queries_logits, ignored_b1hw)
        else:
            self._excused_bq = None
        return super().forward(masks_queries_logits, class_queries_logits, *args, **kwargs)

    def loss_labels(self, class_queries_logits: Tensor, class_labels: list[Tensor], indices: Any) -> Any:
        """Return the class loss without excused queries that match no object, and what boxes teach."""
        base: Any = super()
        box_losses: dict[str, Tensor] = {}
        if self.boxes is not None and self._mask_logits_bqhw is not None:
            matching = self._match_boxes(class_queries_logits, indices)
            rows_nhw = self._mask_logits_bqhw[matching.images_n, matching.queries_ln[0]]
            box_losses["loss_box"] = self.weigh_boxes(rows_nhw, matching, class_labels)[0]
            class_labels, indices = _with_boxes(class_labels, indices, self.boxes, matching)
        if self._excused_bq is not None:
            excused_bq = self._excused_bq.clone()
            for image, (matched, _) in enumerate(indices):
                excused_bq[image, matched] = False
            class_queries_logits = excuse_logits(class_queries_logits, excused_bq)
        losses = base.loss_labels(class_queries_logits, class_labels, indices) | box_losses
        if self.soft is not None:
            losses["loss_cross_entropy"] = losses["loss_cross_entropy"] + self._weigh_votes(
                self.soft, class_queries_logits, class_labels, indices
            )
        if self._hard_bq is not None:
            losses["loss_cross_entropy"] = losses["loss_cross_entropy"] + self._weigh_hard(
                class_queries_logits, class_labels, indices
            )
        return losses

    def _weigh_hard(self, class_logits_bqk: Tensor, class_labels: Sequence[Tensor], indices: Any) -> Tensor:
        """Return what queries that match no object and cover a deleted region add to the class loss."""
        assert self._hard_bq is not None
        no_object = class_logits_bqk.shape[-1] - 1
        targets_bq = _class_targets(class_logits_bqk, class_labels, indices)
        weights: Any = self.empty_weight
        unlikely_bq = -class_logits_bqk.log_softmax(-1)[..., no_object]
        added: Tensor = weights[no_object] * (unlikely_bq * (self._hard_bq & (targets_bq == no_object))).sum()
        every: Tensor = weights[targets_bq].sum()
        return (self.deleted_weight - 1) * added / every

    def _weigh_votes(
        self,
        soft: SoftLabels,
        class_logits_bqk: Tensor,
        class_labels: Sequence[Tensor],
        indices: Any,
    ) -> Tensor:
        """Return what the annotators' votes for the classes of objects change in the class loss."""
        weights: Any = self.empty_weight
        change = class_logits_bqk.new_zeros(())
        for image, (matched, objects) in enumerate(indices):
            drawn = objects < soft.counts[image]  # boxes come after the objects and have no votes
            rows_rk = class_logits_bqk[image, matched[drawn]]
            ids_r = class_labels[image][objects[drawn]]
            votes_rk = soft.votes_bnk[image, objects[drawn]]
            plain = functional.cross_entropy(rows_rk, ids_r, weight=weights, reduction="sum")
            change = change + votes_loss(rows_rk, votes_rk, weights).sum() - plain
        every: Tensor = weights[_class_targets(class_logits_bqk, class_labels, indices)].sum()
        return change / every

    def loss_masks(
        self, masks_queries_logits: Tensor, mask_labels: list[Tensor], indices: Any, *args: Any
    ) -> Any:
        """Return the mask losses, in which an object weighs as its votes.

        The family sums over the objects, so that it is called once for the objects of each weight.
        """
        base: Any = super()
        if self.soft is None:
            return base.loss_masks(masks_queries_logits, mask_labels, indices, *args)
        weights = [
            self.soft.weights_bn[image].cpu().round(decimals=4)[objects.cpu()]
            for image, (_, objects) in enumerate(indices)
        ]
        losses: dict[str, Tensor] = {}
        for weight in sorted({float(one) for of_image in weights for one in of_image}) or [1.0]:
            chosen = [
                (matched[of_image == weight], objects[of_image == weight])
                for (matched, objects), of_image in zip(indices, weights, strict=True)
            ]
            for name, loss in base.loss_masks(masks_queries_logits, mask_labels, chosen, *args).items():
                losses[name] = losses.get(name, 0.0) + weight * loss
        return losses

    @property
    def box_weights(self) -> Costs:
        """The weights of the cost of matching a query with a box."""
        matcher: Any = self.matcher
        return Costs(of_class=matcher.cost_class, of_mask=0.0, of_dice=matcher.cost_dice)

    def weigh_boxes(
        self, mask_logits_rhw: Tensor, matching: Matching, class_labels: Sequence[Tensor]
    ) -> Tensor:
        """Return (L,): what the masks of each layer lose to their boxes, of L * N masks.

        Both projections weigh as much as the dice of a mask, and the mean is over masks and boxes together:
        those of this process, since one without boxes has nothing to exchange with others.
        """
        assert self.boxes is not None
        of_pairs = joined(self.boxes, matching)
        losses_r = projection_losses(mask_logits_rhw, of_pairs.sides_m4, of_pairs.whole_m2)
        count = sum(map(len, class_labels)) + sum(map(len, self.boxes))
        return self.box_weights.of_dice * losses_r.view(len(matching.queries_ln), -1).sum(1) / max(count, 1)

    def _match_boxes(self, class_queries_logits: Tensor, indices: Any) -> Matching:
        """Return which query that matches no object matches which box, in one layer."""
        assert self.boxes is not None
        assert self._mask_logits_bqhw is not None
        images = zip(self._mask_logits_bqhw.detach(), class_queries_logits.detach(), self.boxes, strict=True)
        costs = [box_costs(masks, classes, boxes, self.box_weights) for masks, classes, boxes in images]
        taken_bq = torch.zeros_like(class_queries_logits[..., 0], dtype=torch.bool)
        for image, (matched, _) in enumerate(indices):
            taken_bq[image, matched] = True
        return match_boxes([costs], taken_bq[None])

    def get_num_masks(self, class_labels: list[Tensor], device: torch.device) -> Tensor:
        """Return the mean number of objects per process, at least 1.

        The families' own method divides the mean over processes by their number once more: with two GPUs, the
        mask losses would have twice the weight against the class loss as with one.
        """
        objects = torch.full((), float(sum(len(ids) for ids in class_labels)), device=device)
        return torch.clamp(reduce(objects, "mean"), min=1.0)


def _class_targets(class_logits_bqk: Tensor, class_labels: Sequence[Tensor], indices: Any) -> Tensor:
    """Return int64 (B, Q): the class of each query's object, else the last one."""
    no_object = class_logits_bqk.shape[-1] - 1
    targets_bq = torch.full(class_logits_bqk.shape[:2], no_object, device=class_logits_bqk.device)
    for image, (matched, objects) in enumerate(indices):
        targets_bq[image, matched] = class_labels[image][objects]
    return targets_bq


def _with_boxes(
    class_labels: Sequence[Tensor], indices: Any, boxes: Sequence[Boxes], matching: Matching
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return classes and pairs of each image, with boxes as further objects after those with a mask."""
    ids = [torch.cat([one, more.ids_m]) for one, more in zip(class_labels, boxes, strict=True)]
    queries = torch.split(matching.queries_ln[0].cpu(), list(matching.counts))
    objects = torch.split(matching.objects_ln[0].cpu(), list(matching.counts))
    pairs = [
        (torch.cat([src.cpu(), more]), torch.cat([target.cpu(), places + len(own)]))
        for (src, target), more, places, own in zip(indices, queries, objects, class_labels, strict=True)
    ]
    return ids, pairs


@contextmanager
def ignoring(model: Any) -> Iterator[None]:
    """Let a model's loss ignore unlabelled areas while the context lasts."""
    loss = model.criterion
    plain = type(loss)
    loss.__class__ = type(f"Ignoring{plain.__name__}", (IgnoringLoss, plain), {})
    try:
        yield
    finally:
        loss.ignored_bhw = loss.boxes = loss.deleted = loss.soft = None
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


def _all_covers(mask_logits_bqhw: Tensor, deleted: DeletedRegions) -> Tensor:
    """Return bool (B, Q): masks that cover a deleted region of their image."""
    size_hw = mask_logits_bqhw.shape[-2:]
    return torch.stack(
        [covers_deleted(one, deleted.cells(image, size_hw)) for image, one in enumerate(mask_logits_bqhw)]
    )


def excuse_logits(class_logits: Tensor, excused: Tensor) -> Tensor:
    """Return class logits (..., K) with a certain "no object" where bool (...) is True."""
    no_object_k = class_logits.new_full(class_logits.shape[-1:], -CERTAIN_LOGIT)
    no_object_k[-1] = CERTAIN_LOGIT
    return torch.where(excused[..., None], no_object_k, class_logits)
