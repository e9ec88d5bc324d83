"""Deleted regions in a loss: a query that finds one again is told with more weight that it is no object.

The class loss of the families pushes every query that matches no object to "no object", at a tenth of the
weight of an object. Where an annotator deleted a region of the shown prediction the model was wrong for sure,
so there a query weighs more. The weights are not normalised anew: all else keeps its share of the loss.

Source of the idea: Shrivastava et al., "Training Region-Based Object Detectors with Online Hard Example
Mining", CVPR 2016; here a person has named the hard examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DeletedRegions", "covers_deleted"]

_MOSTLY = 0.5  # of a cell's pixels
_LEAST_IOU = 0.5  # of a query's mask and a region: more than half of the mask is where nothing is


@dataclass(frozen=True, kw_only=True, eq=False)
class DeletedRegions:
    """The deleted regions of a batch."""

    index_bhw: Tensor  # int16, the number of the region of each pixel, from 1 in each image; 0 for none
    counts: tuple[int, ...]  # number of regions of each image

    def to(self, device: torch.device) -> DeletedRegions:
        """Return the same on a device."""
        return DeletedRegions(index_bhw=self.index_bhw.to(device), counts=self.counts)

    def cells(self, image: int, size_hw: Sequence[int]) -> Tensor:
        """Return bool (D, h, w): the cells of the masks of which more than half lies in each region."""
        numbers_d = torch.arange(1, self.counts[image] + 1, device=self.index_bhw.device)
        planes_dhw = (self.index_bhw[image] == numbers_d[:, None, None]).float()
        return functional.adaptive_avg_pool2d(planes_dhw, (size_hw[0], size_hw[1])) > _MOSTLY


def covers_deleted(mask_logits_qhw: Tensor, cells_dhw: Tensor) -> Tensor:
    """Return bool (Q,): masks that have an IoU of at least .5 with a deleted region.

    Args:
        mask_logits_qhw: masks of one image.
        cells_dhw: bool, its deleted regions.
    """
    masks_qp = (mask_logits_qhw.detach() > 0).flatten(1).float()
    cells_dp = cells_dhw.flatten(1).float()
    shared_qd = masks_qp @ cells_dp.T
    union_qd = masks_qp.sum(1, keepdim=True) + cells_dp.sum(1) - shared_qd
    return ((shared_qd > 0) & (shared_qd >= _LEAST_IOU * union_qd)).any(1)
