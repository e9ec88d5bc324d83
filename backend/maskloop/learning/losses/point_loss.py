"""The loss of Mask2Former and OneFormer from mask embeddings: full masks of matched queries only.

A mask is the product of a query's mask embedding and the pixel embeddings, so its values at points are the
products of that embedding and the pixel embeddings at these points. The matcher needs only those; the mask
losses need the masks of matched queries alone; all decoder layers are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from maskloop.learning.losses.box_projection import box_costs, joined, match_boxes
from maskloop.learning.losses.hard_negatives import DeletedRegions, covers_deleted
from maskloop.learning.losses.hungarian import Costs, Matching, assign, pair_costs
from maskloop.learning.losses.ignore_regions import (
    CERTAIN_LOGIT,
    deeply_ignored,
    excuse_logits,
    ignored_cells,
    lies_in,
    without_gradient,
)
from maskloop.learning.losses.point_sampling import (
    draw_points,
    object_labels,
    row_labels,
    sample_features,
    sample_rows,
)
from maskloop.learning.losses.soft_labels import votes_loss

__all__ = ["PointwiseLoss", "matched_planes"]

_MAX_ROWS = 512  # masks whose points are drawn together; bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class _Predictions:
    """What a model predicts in one step: L decoder layers, B images, Q queries."""

    masks_lbqc: Tensor  # mask embeddings
    classes_lbqk: Tensor  # class logits, the last class is "no object"
    features_bchw: Tensor  # pixel embeddings


@dataclass(frozen=True, kw_only=True, eq=False)
class _Targets:
    """The ground truth of one step."""

    index_bhw: Tensor  # int16, the object of each pixel
    ids_bn: Tensor  # int64, class ids of the objects of each image, padded
    counts: tuple[int, ...]  # number of objects of each image
    ignored_b1hw: Tensor | None  # bool, ignored cells at the size of the pixel embeddings; None for none


class PointwiseLoss(nn.Module):
    """Mixed in before `IgnoringLoss`; used where the mask predictor has set the pixel embeddings.

    Then "masks_queries_logits" are mask embeddings (B, Q, C) and "mask_labels" is an index map (B, H, W).
    """

    features_bchw: Tensor | None = None  # pixel embeddings (B, C, H, W) of the next call

    def forward(
        self, masks_queries_logits: Tensor, class_queries_logits: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the family's losses under the family's names."""
        features_bchw, self.features_bchw = self.features_bchw, None
        plain: Any = super()
        if features_bchw is None:
            return plain.forward(masks_queries_logits, class_queries_logits, *args, **kwargs)
        earlier = kwargs.get("auxiliary_predictions") or ()
        masks_lbqc = torch.stack([masks_queries_logits, *(one["masks_queries_logits"] for one in earlier)])
        classes_lbqk = torch.stack([class_queries_logits, *(one["class_queries_logits"] for one in earlier)])
        with torch.autocast(features_bchw.device.type, enabled=False):
            predictions = _Predictions(
                masks_lbqc=masks_lbqc.to(features_bchw.dtype),
                classes_lbqk=classes_lbqk.float(),
                features_bchw=features_bchw,
            )
            losses = self._all_losses(predictions, kwargs["mask_labels"], kwargs["class_labels"])
        if kwargs.get("calculate_contrastive_loss"):
            losses |= plain.loss_contrastive(kwargs["contrastive_queries_logits"], kwargs["text_queries"])
        return losses

    def _all_losses(
        self, predictions: _Predictions, index_bhw: Tensor, class_ids: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        base: Any = self
        masks_lbqc, features_bchw = predictions.masks_lbqc, predictions.features_bchw
        ignored_b1hw = excused_lbq = None
        if base.ignored_bhw is not None:
            ignored_b1hw = ignored_cells(base.ignored_bhw, features_bchw.shape[-2:])
            excused_lbq = torch.stack(
                [_excused(one, features_bchw, ignored_b1hw) for one in masks_lbqc.detach()]
            )
        targets = _Targets(
            index_bhw=index_bhw,
            ids_bn=pad_sequence(list(class_ids), batch_first=True),
            counts=tuple(len(ids) for ids in class_ids),
            ignored_b1hw=ignored_b1hw,
        )
        matching = self._match(predictions, targets)
        to_boxes = None if base.boxes is None else self._match_boxed(predictions, matching)
        hard_lbq = None if base.deleted is None else _hard_negatives(predictions, base.deleted)
        class_l = self._class_losses(
            predictions.classes_lbqk, targets.ids_bn, matching, excused_lbq, to_boxes, hard_lbq=hard_lbq
        )
        objects = base.get_num_masks(class_ids, features_bchw.device)
        mask_l, dice_l = self.mask_losses(
            matched_planes(masks_lbqc, features_bchw, matching, ignored_b1hw), index_bhw, matching
        )
        losses = {}
        for layer in range(len(masks_lbqc)):
            name = "" if layer == 0 else f"_{layer - 1}"
            losses[f"loss_mask{name}"] = mask_l[layer] / objects
            losses[f"loss_dice{name}"] = dice_l[layer] / objects
            losses[f"loss_cross_entropy{name}"] = class_l[layer].clone()  # the model scales it in place
        if to_boxes is not None:
            planes_lnhw = matched_planes(masks_lbqc, features_bchw, to_boxes, None)
            box_l = base.weigh_boxes(planes_lnhw.flatten(0, 1), to_boxes, class_ids)
            losses |= {
                f"loss_box_{layer - 1}" if layer else "loss_box": one for layer, one in enumerate(box_l)
            }
        return losses

    @torch.no_grad()
    def _match(self, predictions: _Predictions, targets: _Targets) -> Matching:
        base: Any = self
        matcher = base.matcher
        costs = Costs(of_class=matcher.cost_class, of_mask=matcher.cost_mask, of_dice=matcher.cost_dice)
        features_bchw = predictions.features_bchw
        points_bp2 = draw_points(len(features_bchw), matcher.num_points, features_bchw.device)
        shift_b1p: Tensor | float = 0.0
        if targets.ignored_b1hw is not None:
            deep_b1hw = deeply_ignored(targets.ignored_b1hw)
            features_bchw = features_bchw.masked_fill(deep_b1hw, 0.0)
            shift_b1p = -CERTAIN_LOGIT * sample_features(deep_b1hw.float(), points_bp2)
        # One image at a time: a float32 copy of all would be the largest tensor of the step
        sampled_bcp = torch.cat(
            [
                sample_features(one_chw[None].float(), one_p2[None]).to(features_bchw.dtype)
                for one_chw, one_p2 in zip(features_bchw, points_bp2, strict=True)
            ]
        )
        ids_bn = targets.ids_bn
        shares_bhw = None if base.soft is None else base.soft.shares_bhw
        labels_bnp = object_labels(targets.index_bhw, points_bp2, ids_bn.shape[1], shares_bhw)
        costs_lbqn = [
            pair_costs((masks_bqc @ sampled_bcp).float() + shift_b1p, classes_bqk, labels_bnp, ids_bn, costs)
            for masks_bqc, classes_bqk in zip(predictions.masks_lbqc, predictions.classes_lbqk, strict=True)
        ]
        return assign(torch.stack(costs_lbqn), targets.counts)

    @torch.no_grad()
    def _match_boxed(self, predictions: _Predictions, matching: Matching) -> Matching:
        """Return which query that matches no object matches which box."""
        base: Any = self
        features_bchw = predictions.features_bchw
        taken_lbq = torch.zeros_like(predictions.classes_lbqk[..., 0], dtype=torch.bool)
        taken_lbq[_places(matching)] = True
        size_hw = features_bchw.shape[-2:]
        costs_lb = [
            [
                box_costs((one_qc @ one_chw.flatten(1)).view(-1, *size_hw), one_qk, boxes, base.box_weights)
                for one_qc, one_chw, one_qk, boxes in zip(
                    masks_bqc, features_bchw, classes_bqk, base.boxes, strict=True
                )
            ]
            for masks_bqc, classes_bqk in zip(predictions.masks_lbqc, predictions.classes_lbqk, strict=True)
        ]
        return match_boxes(costs_lb, taken_lbq)

    def _class_losses(
        self,
        classes_lbqk: Tensor,
        ids_bn: Tensor,
        matching: Matching,
        excused_lbq: Tensor | None,
        to_boxes: Matching | None,
        *,
        hard_lbq: Tensor | None,
    ) -> Tensor:
        layers = len(classes_lbqk)
        no_object = classes_lbqk.shape[-1] - 1
        targets_lbq = torch.full(classes_lbqk.shape[:3], no_object, device=classes_lbqk.device)
        targets_lbq[_places(matching)] = ids_bn[matching.images_n, matching.objects_ln]
        if to_boxes is not None:
            base: Any = self
            targets_lbq[_places(to_boxes)] = joined(base.boxes, to_boxes).ids_m.view(layers, -1)
        if excused_lbq is not None:
            excused_lbq[_places(matching)] = False
            if to_boxes is not None:
                excused_lbq[_places(to_boxes)] = False
            classes_lbqk = excuse_logits(classes_lbqk, excused_lbq)
        weights: Any = self.empty_weight
        loss = functional.cross_entropy(
            classes_lbqk.flatten(0, 2), targets_lbq.flatten(), weight=weights, reduction="none"
        )
        soft: Any = self.soft
        if soft is not None:
            votes_lnk = soft.votes_bnk[matching.images_n, matching.objects_ln]
            voted_ln = votes_loss(classes_lbqk[_places(matching)], votes_lnk, weights)
            loss = loss.view(targets_lbq.shape).index_put(_places(matching), voted_ln).flatten()
        if hard_lbq is not None:
            hard = (hard_lbq & (targets_lbq == no_object)).flatten()
            criterion: Any = self
            loss = torch.where(hard, criterion.deleted_weight * loss, loss)
        mean_l: Tensor = loss.view(layers, -1).sum(1) / weights[targets_lbq].view(layers, -1).sum(1)
        return mean_l

    def mask_losses(
        self, planes_lnhw: Tensor, index_bhw: Tensor, matching: Matching
    ) -> tuple[Tensor, Tensor]:
        """Return cross-entropy (L,) and dice (L,), each summed over the objects by their weights."""
        base: Any = self
        pairs = planes_lnhw.shape[1]
        sums: list[Tensor] = []
        group = max(1, _MAX_ROWS // max(pairs, 1))
        for planes, objects in zip(
            torch.split(planes_lnhw, group), torch.split(matching.objects_ln, group), strict=True
        ):
            rows_rhw = planes.flatten(0, 1)
            if not pairs:
                sums.append(rows_rhw.sum() + planes.new_zeros(2, len(planes)))
                continue
            with torch.no_grad():
                points_rp2 = base.sample_points_using_uncertainty(
                    rows_rhw[:, None],
                    base.calculate_uncertainty,
                    base.num_points,
                    base.oversample_ratio,
                    base.importance_sample_ratio,
                )
                images_r = matching.images_n.repeat(len(planes))
                shares_bhw = None if base.soft is None else base.soft.shares_bhw
                labels_rp = row_labels(index_bhw, images_r, objects.flatten(), points_rp2, shares_bhw)
            both_2r = _row_losses(sample_rows(rows_rhw, points_rp2), labels_rp)
            if base.soft is not None:
                both_2r = both_2r * base.soft.weights_bn[images_r, objects.flatten()]
            sums.append(both_2r.view(2, len(planes), pairs).sum(2))
        mask_l, dice_l = torch.cat(sums, dim=1)
        return mask_l, dice_l


def _places(matching: Matching) -> tuple[Tensor, Tensor, Tensor]:
    """Return layer, image and query of each pair, as indices that broadcast to (L, N)."""
    layers_l1 = torch.arange(len(matching.queries_ln), device=matching.images_n.device)[:, None]
    return layers_l1, matching.images_n, matching.queries_ln


def _row_losses(logits_rp: Tensor, labels_rp: Tensor) -> Tensor:
    """Return (2, R): cross-entropy and dice of each row."""
    mask_r = functional.binary_cross_entropy_with_logits(logits_rp, labels_rp, reduction="none").mean(1)
    shares_rp = logits_rp.sigmoid()
    overlap_r = 2 * (shares_rp * labels_rp).sum(1)
    dice_r = 1 - (overlap_r + 1) / (shares_rp.sum(1) + labels_rp.sum(1) + 1)
    return torch.stack([mask_r, dice_r])


def matched_planes(
    masks_lbqc: Tensor, features_bchw: Tensor, matching: Matching, cells_b1hw: Tensor | None
) -> Tensor:
    """Return float32 (L, N, H, W): the masks of matched queries, image after image."""
    chosen_lnc = masks_lbqc[_places(matching)]
    planes = []
    for image, rows_lnc in enumerate(torch.split(chosen_lnc, list(matching.counts), dim=1)):
        size_hw = features_bchw.shape[-2:]
        flat = rows_lnc.flatten(0, 1) @ features_bchw[image].flatten(1)
        planes_lnhw = flat.view(*rows_lnc.shape[:2], *size_hw).float()
        if cells_b1hw is not None:
            planes_lnhw = without_gradient(planes_lnhw, cells_b1hw[image : image + 1])
        planes.append(planes_lnhw)
    return torch.cat(planes, dim=1)


@torch.no_grad()
def _hard_negatives(predictions: _Predictions, deleted: DeletedRegions) -> Tensor:
    """Return bool (L, B, Q): masks that cover a deleted region of their image."""
    hard_lbq = torch.zeros_like(predictions.classes_lbqk[..., 0], dtype=torch.bool)
    features_bchw = predictions.features_bchw
    size_hw = features_bchw.shape[-2:]
    for image, count in enumerate(deleted.counts):
        if not count:
            continue
        cells_dhw = deleted.cells(image, size_hw)
        features_cp = features_bchw[image].flatten(1)
        for layer, masks_bqc in enumerate(predictions.masks_lbqc):  # all at once would be a large tensor
            planes_qhw = (masks_bqc[image] @ features_cp).view(-1, *size_hw)
            hard_lbq[layer, image] = covers_deleted(planes_qhw, cells_dhw)
    return hard_lbq


def _excused(masks_bqc: Tensor, features_bchw: Tensor, cells_b1hw: Tensor) -> Tensor:
    planes_bqp = masks_bqc @ features_bchw.detach().flatten(2)
    return lies_in(planes_bqp.view(*planes_bqp.shape[:2], *features_bchw.shape[-2:]), cells_b1hw)
