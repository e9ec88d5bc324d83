"""maskloop's engine: segments images, learns from corrections; knows nothing of Label Studio."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError

if TYPE_CHECKING:
    from maskloop.types import (
        Correction,
        EditCounts,
        HoldoutMetrics,
        ModelVersion,
        Prediction,
        Segment,
        SegmentationTask,
    )

__all__ = [
    "Correction",
    "EditCounts",
    "HoldoutMetrics",
    "MaskloopError",
    "ModelVersion",
    "Prediction",
    "Segment",
    "SegmentationTask",
]


def __getattr__(name: str) -> object:
    # The types need NumPy, and every module passes here: the command line waits for none of it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("maskloop.types"), name)
