"""Swin as published checkpoints have it: the backbone of benchmarks whose model has to weigh something."""

from __future__ import annotations

from typing import Any

__all__ = ["SIZES", "swin_config"]

STAGES = ("stage1", "stage2", "stage3", "stage4")
SIZES: dict[str, dict[str, Any]] = {
    "swin-t": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin-l": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}


def swin_config(size: str = "swin-t", **options: Any) -> Any:
    """Return the SwinConfig of "swin-t" or "swin-l" with all four stages; options are passed on."""
    from transformers import SwinConfig

    return SwinConfig(**SIZES[size], out_features=list(STAGES), **options)
