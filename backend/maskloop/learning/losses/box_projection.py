"""What a box teaches about a mask: its class, and where its projections on both axes begin and end.

Inside, a box says nothing: its pixels are ignored as unlabelled areas are (see `ignore_regions`). But its
object reaches all four sides and nowhere beyond them, so the maximum of its mask over each column is 1 within
the box and 0 outside, and that over each row too. A query that no mask is matched with is matched with the
box by class and by these projections, and learns both.

Source: Tian et al., "BoxInst: High-Performance Instance Segmentation with Box Annotations", CVPR 2021,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskloop.learning.losses.hungarian import Costs, Matching, assign

__all__ = [
    "Boxes",
    "box_costs",
    "box_profiles",
    "dice_of_projections",
    "joined",
    "match_boxes",
    "projection_losses",
    "projections",
]

_EPSILON = 1e-5  # as in BoxInst


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """The boxes of one image that teach."""

    sides_m4: Tensor  # float32 (M, 4): left, top, right, bottom, in shares of the batch's width and height
    whole_m2: Tensor  # bool (M, 2): whether the view shows its object's whole extent along x, along y
    ids_m: Tensor  # int64 (M,): class ids

    def __len__(self) -> int:
        return len(self.ids_m)

    def to(self, device: torch.device) -> Boxes:
        """Return the same on a device; Trainer calls this for a batch."""
        return Boxes(
            sides_m4=self.sides_m4.to(device), whole_m2=self.whole_m2.to(device), ids_m=self.ids_m.to(device)
        )


def projections(mask_logits_rhw: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 (R, W) and (R, H): the largest share, 0..1, of each column and of each row of masks."""
    return mask_logits_rhw.amax(-2).float().sigmoid(), mask_logits_rhw.amax(-1).float().sigmoid()


def box_profiles(sides_m2: Tensor, length: int) -> Tensor:
    """Return float32 (M, length): how much of each cell along an axis a box covers.

    Args:
        sides_m2: where boxes begin and end, in shares of the axis.
        length: number of cells.
    """
    cells_l = torch.arange(length, device=sides_m2.device, dtype=torch.float32)
    first_m1, last_m1 = (sides_m2.float() * length)[..., None].unbind(1)
    covered_ml = torch.minimum(cells_l + 1, last_m1) - torch.maximum(cells_l, first_m1)
    return covered_ml.clamp(0, 1)


def dice_of_projections(shares_rl: Tensor, profiles_rl: Tensor, whole_r: Tensor) -> Tensor:
    """Return (R,): one minus the dice of projections and boxes along one axis.

    Where a view cuts an object, the part that it shows need not reach the sides that the cut runs between.
    Along that axis any projection within the box is right, so only what lies outside counts.

    Args:
        shares_rl: projections, 0..1.
        profiles_rl: what boxes cover of each cell, 0..1.
        whole_r: bool, False where a view cuts the object.
    """
    wanted_rl = torch.where(whole_r[..., None], profiles_rl, profiles_rl * shares_rl)
    overlap_r = 2 * (shares_rl * wanted_rl).sum(-1)
    sizes_r = shares_rl.square().sum(-1) + wanted_rl.square().sum(-1)
    return 1 - (overlap_r + _EPSILON) / (sizes_r + _EPSILON)


def projection_losses(mask_logits_rhw: Tensor, sides_r4: Tensor, whole_r2: Tensor) -> Tensor:
    """Return (R,): the mean over both axes of one minus the dice, of one mask and one box each."""
    along_x, along_y = projections(mask_logits_rhw)
    losses_r = mask_logits_rhw.new_zeros(len(mask_logits_rhw), dtype=torch.float32)
    for axis, shares_rl in enumerate((along_x, along_y)):
        profiles_rl = box_profiles(sides_r4[:, axis::2], shares_rl.shape[-1])
        losses_r = losses_r + dice_of_projections(shares_rl, profiles_rl, whole_r2[:, axis]) / 2
    return losses_r


def box_costs(mask_logits_qhw: Tensor, class_logits_qk: Tensor, boxes: Boxes, costs: Costs) -> Tensor:
    """Return (Q, M): the cost of matching a query with a box.

    Args:
        mask_logits_qhw: masks of all queries of one image.
        class_logits_qk: class logits; the last class is "no object".
        boxes: the image's.
        costs: weights of the terms; both projections together weigh as much as a mask's dice.
    """
    along_x, along_y = projections(mask_logits_qhw)
    pairs_qm = torch.zeros(len(mask_logits_qhw), len(boxes), device=mask_logits_qhw.device)
    for axis, shares_ql in enumerate((along_x, along_y)):
        profiles_ml = box_profiles(boxes.sides_m4[:, axis::2], shares_ql.shape[-1])
        every = (len(shares_ql), *profiles_ml.shape)
        pairs_qm += dice_of_projections(
            shares_ql[:, None].expand(every),
            profiles_ml.expand(every),
            boxes.whole_m2[:, axis].expand(every[:2]),
        )
    likely_qm = class_logits_qk.float().softmax(-1)[:, boxes.ids_m]
    return costs.of_dice * pairs_qm / 2 - costs.of_class * likely_qm


@torch.no_grad()
def match_boxes(costs_lb: Sequence[Sequence[Tensor]], taken_lbq: Tensor) -> Matching:
    """Return the pairs of lowest cost of queries that no mask is matched with, and boxes.

    Args:
        costs_lb: for each layer and image, costs (Q, M) with M of that image.
        taken_lbq: bool (L, B, Q), queries that a mask is matched with; at least as many others as boxes.
    """
    counts = [costs_qm.shape[1] for costs_qm in costs_lb[0]]
    shape = (*taken_lbq.shape, max(counts))
    padded_lbqm = torch.zeros(shape, dtype=torch.float32, device=taken_lbq.device)
    for layer, of_images in enumerate(costs_lb):
        for image, costs_qm in enumerate(of_images):
            padded_lbqm[layer, image, :, : counts[image]] = costs_qm
    return assign(padded_lbqm.masked_fill(taken_lbq[..., None], torch.inf), counts)


def joined(boxes: Sequence[Boxes], matching: Matching) -> Boxes:
    """Return the box of each pair of a matching, one layer after the other: L * N rows."""
    starts = [0]
    for one in boxes[:-1]:
        starts.append(starts[-1] + len(one))
    starts_b = torch.tensor(starts, device=matching.images_n.device)
    rows_r = (starts_b[matching.images_n] + matching.objects_ln).flatten()
    return Boxes(
        sides_m4=torch.cat([one.sides_m4 for one in boxes])[rows_r],
        whole_m2=torch.cat([one.whole_m2 for one in boxes])[rows_r],
        ids_m=torch.cat([one.ids_m for one in boxes])[rows_r],
    )
