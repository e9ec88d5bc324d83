"""Checkpoints whose backbone starts from ImageNet and not from chance."""

from __future__ import annotations

from dataclasses import replace

from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.efficientnet_lite import (
    MEAN,
    STD,
    EfficientNetLiteBackbone,
    load_imagenet_weights,
)

__all__ = ["with_imagenet_backbone"]


def with_imagenet_backbone(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with ImageNet weights in its EfficientNet-Lite0 and the input they expect.

    Args:
        checkpoint: one with such a backbone; its model is changed in place.

    Raises:
        DependencyError: the package with the weights is not installed.
        ValueError: another backbone.
    """
    found = [item for item in checkpoint.model.modules() if isinstance(item, EfficientNetLiteBackbone)]
    if len(found) != 1:
        raise ValueError(
            f"with_imagenet_backbone, {checkpoint.source}: expected one EfficientNet-Lite0, got {len(found)}"
        )
    load_imagenet_weights(found[0])
    preprocessing = replace(checkpoint.preprocessing, mean=MEAN, std=STD)
    return replace(checkpoint, preprocessing=preprocessing)
