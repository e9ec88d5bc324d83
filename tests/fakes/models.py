"""Checkpoints whose outputs are known, in place of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation.checkpoint import Checkpoint


def two_areas_checkpoint(labels: Sequence[str]) -> Checkpoint:
    """Return a checkpoint that finds two separate areas of its first class, each by a query of its own."""
    checkpoint = build_tiny_mask2former(labels, seed=1)
    everything = frozenset(range(len(labels)))

    class TwoAreas(torch.nn.Module):
        config = checkpoint.model.config

        def forward(self, pixel_values, **_others):
            batch, _, height, width = pixel_values.shape
            logits = torch.full((batch, 2, len(labels) + 1), -9.0)
            logits[:, :, 0] = 9.0
            masks = torch.full((batch, 2, height // 4, width // 4), -9.0)
            masks[:, 0, :, : width // 12] = 9.0
            masks[:, 1, :, -(width // 12) :] = 9.0
            return type("Output", (), {"class_queries_logits": logits, "masks_queries_logits": masks})

    return dataclasses.replace(checkpoint, model=TwoAreas(), thing_ids=everything, undeclared_ids=everything)
