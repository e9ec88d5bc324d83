"""Matching of queries and objects, for all decoder layers and images with one transfer to the CPU.

The costs are those of the families' matchers (Cheng et al., "Masked-attention Mask Transformer", CVPR 2022,
section 3.3), in float32, at points that are the same for all layers of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

__all__ = ["Costs", "Matching", "assign", "pair_costs"]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Weights of the terms of the matching cost."""

    of_class: float
    of_mask: float
    of_dice: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """The pairs of all layers; each layer has N pairs, image after image."""

    images_n: Tensor  # int64 (N,), the same in each layer
    queries_ln: Tensor  # int64 (L, N)
    objects_ln: Tensor  # int64 (L, N), number within the image
    counts: tuple[int, ...]  # number of pairs of each image


def pair_costs(
    mask_logits_bqp: Tensor, class_logits_bqk: Tensor, labels_bnp: Tensor, ids_bn: Tensor, costs: Costs
) -> Tensor:
    """Return (B, Q, N): the cost of matching a query with an object.

    Args:
        mask_logits_bqp: float32, mask logits of every query at P points of its image.
        class_logits_bqk: class logits; the last class is "no object".
        labels_bnp: float32, coverage of the points by each object, 0..1; rows beyond an image's number of
            objects are not used.
        ids_bn: int64, class id of each object; any valid class beyond an image's number of objects.
        costs: weights of the terms.
    """
    points = mask_logits_bqp.shape[-1]
    labels_bpn = labels_bnp.transpose(1, 2)
    inside_b1n = labels_bnp.sum(-1)[:, None]
    # softplus(x) = softplus(-x) + x: both cross-entropies from one, and from one product each
    against_bq1 = functional.softplus(mask_logits_bqp).sum(-1, keepdim=True)
    mask_bqn = (against_bq1 - mask_logits_bqp @ labels_bpn) / points
    shares_bqp = mask_logits_bqp.sigmoid()
    dice_bqn = 1 - (2 * (shares_bqp @ labels_bpn) + 1) / (shares_bqp.sum(-1, keepdim=True) + inside_b1n + 1)
    shares_bqk = class_logits_bqk.float().softmax(-1)
    class_bqn = -shares_bqk.gather(2, ids_bn[:, None].expand(-1, shares_bqk.shape[1], -1))
    return costs.of_mask * mask_bqn + costs.of_class * class_bqn + costs.of_dice * dice_bqn


def assign(costs_lbqn: Tensor, objects: Sequence[int]) -> Matching:
    """Return the pairs of lowest total cost for each layer and image.

    A cost that is not finite is replaced by the largest number, so such a pair is a last resort.

    Args:
        costs_lbqn: costs of all layers, on any device.
        objects: number of objects of each image; columns beyond it are not used.
    """
    device = costs_lbqn.device
    most = torch.finfo(costs_lbqn.dtype).max
    costs = torch.nan_to_num(costs_lbqn, nan=most, posinf=most, neginf=most).cpu().numpy()
    layers, queries = costs.shape[0], costs.shape[2]
    counts = tuple(min(count, queries) for count in objects)
    pairs = np.zeros((2, layers, sum(counts)), dtype=np.int64)
    for layer in range(layers):
        found = [linear_sum_assignment(costs[layer, image, :, :count]) for image, count in enumerate(objects)]
        pairs[:, layer] = np.concatenate([np.stack(pair) for pair in found], axis=1)
    images = np.repeat(np.arange(len(counts)), counts)
    whole = _to_device(np.concatenate([images[None], pairs.reshape(2 * layers, -1)]), device)
    return Matching(
        images_n=whole[0], queries_ln=whole[1 : layers + 1], objects_ln=whole[layers + 1 :], counts=counts
    )


def _to_device(values: NDArray[np.int64], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
