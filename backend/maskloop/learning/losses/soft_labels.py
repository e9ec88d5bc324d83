"""Soft targets in a loss: what the annotators of an image differ about is learnt as the share of them.

A pixel's target is the share of the annotators, of those who drew its object, who count it in. The mask
losses of the families take such targets as they are: cross-entropy is least where a mask gives the share
itself; dice, whose sums of products are linear in each pixel, where it gives the pixels of more than about
half of them whole. An object that half of the annotators or fewer drew weighs as many of them as did, and a
class that no more than half gave is learnt as they voted (`data.soft_targets`). Weights are not normalised
anew: all else keeps its share of the loss.

Source: Peterson et al., "Human Uncertainty Makes Classification More Robust", ICCV 2019 (votes as targets);
Wang et al., "Dice Semimetric Losses: Optimizing the Dice Score with Soft Labels", MICCAI 2023 (the usual dice
loss is not least at the soft target itself).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["CERTAIN", "SoftLabels", "votes_loss"]

CERTAIN = 255  # a share of 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftLabels:
    """What the annotators of a batch's images agree on."""

    shares_bhw: Tensor  # uint8, of the object of each pixel: who counts it in, in 255ths of who drew it
    votes_bnk: Tensor  # float32, how much each class of each object counts, in 0..1, padded with 0
    counts: tuple[int, ...]  # number of objects of each image

    def to(self, device: torch.device) -> SoftLabels:
        """Return the same on a device."""
        return replace(self, shares_bhw=self.shares_bhw.to(device), votes_bnk=self.votes_bnk.to(device))

    @property
    def weights_bn(self) -> Tensor:
        """float32 (B, N): how much each object counts."""
        return self.votes_bnk.sum(2)

    def soften(self, planes_nhw: Tensor, image: int) -> Tensor:
        """Return the planes of an image's objects with shares in place of ones."""
        return planes_nhw * (self.shares_bhw[image].to(planes_nhw.dtype) / CERTAIN)

    def harden(self, index_bhw: Tensor) -> Tensor:
        """Return an index map with background where less than half count a pixel in."""
        return index_bhw.masked_fill((index_bhw > 0) & (2 * self.shares_bhw.int() < CERTAIN), 0)


def votes_loss(class_logits_rk: Tensor, votes_rk: Tensor, weights_k: Tensor) -> Tensor:
    """Return (...): the cross-entropy of the classes, each weighed by its votes.

    Args:
        class_logits_rk: (..., K + 1), the last class is "no object".
        votes_rk: (..., K), how much each class counts, their sum at most 1.
        weights_k: (K + 1,), weight of each class.
    """
    unlikely_rk = -class_logits_rk.log_softmax(-1)[..., :-1]
    return (weights_k[:-1] * votes_rk * unlikely_rk).sum(-1)
