"""Checkpoints whose outputs are known, in place of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation.checkpoint import Checkpoint


def two_areas_checkpoint(labels: Sequence[str]) -> Checkpoint:
    """Return a checkpoint that finds two separate areas of its first class, each by a query of its own."""
    return columns_checkpoint(labels, [(0, 0.0, 0.33, 9.0), (0, 0.67, 1.0, 9.0)])


def columns_checkpoint(labels: Sequence[str], found: Sequence[tuple[int, float, float, float]]) -> Checkpoint:
    """Return a checkpoint that finds the same upright stripes in every image, each by a query of its own.

    Args:
        labels: of its classes, all of them things of undeclared kind.
        found: class, left and right as shares of the width, and class logit of each stripe.
    """
    checkpoint = build_tiny_mask2former(labels, seed=1)
    everything = frozenset(range(len(labels)))

    class Columns(torch.nn.Module):
        config = checkpoint.model.config

        def forward(self, pixel_values, **_others):
            batch, _, height, width = pixel_values.shape
            logits = torch.full((batch, len(found), len(labels) + 1), -9.0)
            masks = torch.full((batch, len(found), height // 4, width // 4), -9.0)
            for query, (class_id, left, right, logit) in enumerate(found):
                logits[:, query, class_id] = logit
                masks[:, query, :, round(left * width / 4) : round(right * width / 4)] = 9.0
            return type("Output", (), {"class_queries_logits": logits, "masks_queries_logits": masks})

    return dataclasses.replace(checkpoint, model=Columns(), thing_ids=everything, undeclared_ids=everything)
